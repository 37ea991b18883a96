"""Where training curves go while they grow: TensorBoard event files, MLflow, Weights & Biases.

    logs/{run}/       event files, for ``tensorboard --logdir logs``
    logs/mlflow/      MLflow's file store, unless ``training.mlflow_uri`` names a server
    logs/wandb/       W&B's offline runs, unless ``training.wandb_online``

Rank 0 writes; numbers, settings and the run's name only. transformers has callbacks for all
three, which would begin a new run at every restart (and MLflow's would then refuse the new
worker's paths as changed parameters): here a restart goes on in the run that it belongs to, and
what a killed worker had written beyond the last checkpoint is overwritten or marked as purged.
A tracker that fails costs its curves, never the training.
"""

import logging
import math
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from pipelines.training.plan import Plan

logger = logging.getLogger("llumi.training")

PROJECT = "llumi"
RUN_TAG = "llumi.run"


class Sink(Protocol):
    """Where numbers go."""

    def open(self, step: int) -> None:
        """Begin after ``step`` optimizer steps; 0 begins a run anew."""

    def write(self, numbers: Mapping[str, float], step: int) -> None:
        """One point."""


class EventFiles:
    """TensorBoard's event files in a folder."""

    def __init__(self, folder: Path):
        self.folder = folder

    def open(self, step: int) -> None:
        """``purge_step`` has TensorBoard forget what an earlier worker wrote from there on."""
        from torch.utils.tensorboard import SummaryWriter

        self.writer = SummaryWriter(str(self.folder), purge_step=step + 1 if step else 0)

    def write(self, numbers: Mapping[str, float], step: int) -> None:
        """Figures on the validation split below ``eval/``, the others below ``train/``."""
        for name, value in numbers.items():
            held_out = name.startswith("eval_")
            self.writer.add_scalar(f"eval/{name[5:]}" if held_out else f"train/{name}", value, step)
        self.writer.flush()


class Mlflow:
    """A run in MLflow's experiment ``llumi``, found again by its tag."""

    def __init__(self, uri: str, name: str, settings: Mapping[str, Any]):
        self.uri = uri
        self.name = name
        self.settings = settings

    def open(self, step: int) -> None:
        """Go on in the newest run of that name where training resumes, else begin one."""
        import mlflow

        if "://" not in self.uri:
            os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
            self.uri = Path(self.uri).resolve().as_uri()
        self.client = mlflow.MlflowClient(tracking_uri=self.uri)
        experiment = self.client.get_experiment_by_name(PROJECT)
        identity = experiment.experiment_id if experiment else self.client.create_experiment(PROJECT)
        earlier = (
            self.client.search_runs([identity], f"tags.`{RUN_TAG}` = '{self.name}'", max_results=1) if step else []
        )
        if earlier:
            self.run = earlier[0].info.run_id
            return
        made = self.client.create_run(identity, run_name=self.name, tags={RUN_TAG: self.name})
        self.run = made.info.run_id
        for name, value in self.settings.items():
            self.client.log_param(self.run, name, value)

    def write(self, numbers: Mapping[str, float], step: int) -> None:
        """All figures at one step."""
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        points = [Metric(name, value, now, step) for name, value in numbers.items()]
        self.client.log_batch(self.run, metrics=points)


class Wandb:
    """A run in W&B's project ``llumi``, offline unless told otherwise; the run's name is its id."""

    def __init__(self, folder: Path, name: str, settings: Mapping[str, Any], online: bool):
        self.folder = folder
        self.name = name
        self.settings = settings
        self.online = online

    def open(self, step: int) -> None:
        """The same id again after a restart: ``wandb sync`` lays the pieces together."""
        import wandb

        self.folder.mkdir(parents=True, exist_ok=True)
        self.run = wandb.init(
            project=PROJECT,
            id=self.name,
            name=self.name,
            resume="allow",
            dir=str(self.folder),
            config=dict(self.settings),
            mode="online" if self.online else "offline",
            settings=wandb.Settings(silent=True, console="off", disable_git=True),
        )

    def write(self, numbers: Mapping[str, float], step: int) -> None:
        """All figures at one step."""
        self.run.log(dict(numbers), step=step)


class Track(TrainerCallback):
    """Hands the trainer's log to the trackers."""

    def __init__(self, sinks: Mapping[str, Sink]):
        self.sinks = dict(sinks)

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if state.is_world_process_zero:
            for name in list(self.sinks):
                self.attempt(name, lambda sink: sink.open(state.global_step))

    def on_log(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, logs: dict[str, Any], **_: Any
    ) -> None:
        numbers = {name: float(value) for name, value in logs.items() if isinstance(value, int | float)}
        numbers = {name: value for name, value in numbers.items() if math.isfinite(value)}
        if state.is_world_process_zero and numbers:
            for name in list(self.sinks):
                self.attempt(name, lambda sink: sink.write(numbers, state.global_step))

    def attempt(self, name: str, call: Any) -> None:
        """Call with one sink; the first failure ends it, since a tracker is no reason to lose a run."""
        try:
            call(self.sinks[name])
        except Exception as error:  # whatever a tracker's client raises: network, disk, its own kinds
            logger.warning("%s: no more curves from here on: %s", name, type(error).__name__)
            del self.sinks[name]


def sinks_of(plan: Plan) -> dict[str, Sink]:
    """The plan's trackers, in the folder of its logs; none where it has no such folder."""
    if not plan.logs:
        return {}
    logs, training, settings = Path(plan.logs), plan.training, parameters(plan)
    made: dict[str, Sink] = {
        "tensorboard": EventFiles(logs / plan.name),
        "mlflow": Mlflow(training.mlflow_uri or str(logs / "mlflow"), plan.name, settings),
        "wandb": Wandb(logs / "wandb", plan.name, settings, training.wandb_online),
    }
    return {name: made[name] for name in training.report_to}


def parameters(plan: Plan) -> dict[str, Any]:
    """Settings of the run that a tracker shows: the stage's own and those of memory and precision, no paths."""
    training = plan.training.model_dump(
        mode="json", include={"mode", "zero_stage", "bf16", "gradient_checkpointing", "max_length", "grad_norm"}
    )
    lora = {f"lora.{name}": value for name, value in plan.training.lora.model_dump(mode="json").items()}
    return {**plan.stage.model_dump(mode="json"), **training, **lora, "seed": plan.seed, "task": plan.task}
