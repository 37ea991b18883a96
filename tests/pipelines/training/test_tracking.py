"""Curves in trackers: each where it was configured, gone on with after a restart, never in the way of training."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from transformers import TrainerControl, TrainerState, TrainingArguments

from configs.errors import ConfigError
from configs.settings import Settings
from configs.training import TrainingSettings
from pipelines.layout import Layout
from pipelines.manifest import read
from pipelines.training.plan import Plan
from pipelines.training.readiness import check_trackers
from pipelines.training.tracking import EventFiles, Mlflow, Track, parameters, sinks_of
from tests.pipelines.training.faults import plan_at


def plan(root: Path, *report_to: str) -> Plan:
    training = TrainingSettings.model_validate({"report_to": report_to, "mlflow_uri": None})
    return replace(plan_at(root), training=training, logs=str(root / "logs"))


def test_tensorboard_is_the_default_and_no_folder_means_no_tracker(tmp_path: Path) -> None:
    assert list(sinks_of(replace(plan_at(tmp_path), logs=str(tmp_path)))) == ["tensorboard"]
    assert sinks_of(plan_at(tmp_path)) == {} and sinks_of(plan(tmp_path)) == {}


def test_a_tracker_that_is_not_installed_is_refused_by_name(tmp_path: Path) -> None:
    check_trackers(plan(tmp_path, "tensorboard", "mlflow"))
    with pytest.raises(ConfigError, match=r"report_to: wandb is not installed here.*llumi\[wandb\]"):
        check_trackers(plan(tmp_path, "wandb"))


def test_what_a_killed_worker_wrote_beyond_its_checkpoint_is_purged_from_event_files(tmp_path: Path) -> None:
    first = EventFiles(tmp_path)
    first.open(0)
    for step in (1, 2, 3):
        first.write({"loss": float(step), "eval_kl": 0.5}, step)
    second = EventFiles(tmp_path)
    second.open(1)
    second.write({"loss": 20.0}, 2)
    events = EventAccumulator(str(tmp_path)).Reload()
    assert [(event.step, event.value) for event in events.Scalars("train/loss")] == [(1, 1.0), (2, 20.0)]
    assert events.Tags()["scalars"] == ["train/loss", "eval/kl"]


def test_mlflow_s_file_store_holds_one_run_with_its_settings_over_restarts(tmp_path: Path) -> None:
    from mlflow import MlflowClient

    given = plan(tmp_path, "mlflow")
    for step in (0, 1):
        sink = sinks_of(given)["mlflow"]
        sink.open(step)
        sink.write({"loss": 1.0 / (step + 1), "eval_rewards/accuracies": 0.5}, step + 1)
    assert isinstance(sink, Mlflow)
    client = MlflowClient((tmp_path / "logs" / "mlflow").as_uri())
    (run,) = client.search_runs([client.get_experiment_by_name("llumi").experiment_id])
    assert run.info.run_name == given.name and run.data.params["zero_stage"] == "2"
    assert [(m.step, m.value) for m in client.get_metric_history(run.info.run_id, "loss")] == [(1, 1.0), (2, 0.5)]
    sinks_of(given)["mlflow"].open(0)
    assert len(client.search_runs([run.info.experiment_id])) == 2, "training from the start is a run of its own"


def test_no_path_of_a_machine_is_told_to_a_tracker(tmp_path: Path) -> None:
    assert str(tmp_path) not in str(parameters(plan(tmp_path))) and parameters(plan(tmp_path))["lora.r"] == 16


def test_a_stage_leaves_its_event_files_and_figures(settings: Settings, sft_adapter: Path) -> None:
    made = read(sft_adapter)
    assert made is not None
    assert made.figures["exported_step"] == made.figures["steps"] == 2 and made.figures["memory_peak_gib"] > 0.1
    (folder,) = Layout(Path(settings.output)).logs.glob(f"gm-sft-{made.key[:12]}")
    events = EventAccumulator(str(folder)).Reload()
    assert [event.step for event in events.Scalars("train/loss")] == [1, 2]
    assert [event.step for event in events.Scalars("eval/loss")] == [2]


class Broken:
    """A tracker whose server is gone."""

    def open(self, step: int) -> None:
        self.step = step

    def write(self, numbers: Mapping[str, float], step: int) -> None:
        raise ConnectionError("refused")


def test_a_tracker_that_fails_costs_its_curves_and_not_the_training(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    track = Track({"mlflow": Broken(), "tensorboard": EventFiles(tmp_path)})
    state, control = TrainerState(), TrainerControl()
    arguments = TrainingArguments(str(tmp_path))
    track.on_train_begin(arguments, state, control)
    for step in (1, 2):
        state.global_step = step
        track.on_log(arguments, state, control, {"loss": 0.5, "note": "no number", "grad_norm": float("nan")})
    assert [record.getMessage() for record in caplog.records] == [
        "mlflow: no more curves from here on: ConnectionError"
    ]
    assert len(EventAccumulator(str(tmp_path)).Reload().Scalars("train/loss")) == 2
