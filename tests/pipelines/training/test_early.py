"""Held-out evaluation while training: when it stops, which step is exported, and that a restart decides alike."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from pipelines.training import checkpoint, curves
from pipelines.training.early import ACCURACY, LOSS, best, evaluated, evaluations, fruitless, load_weights
from pipelines.training.plan import Plan
from tests.pipelines.training.dpo_world import World, again
from tests.pipelines.training.ranks import train

STAGE: dict[str, Any] = {
    "evaluate_every": 2,
    "early_stopping": {"patience": 2},
    "max_steps": 30,
    "learning_rate": 1e-2,
    "save_every": 4,
}


def test_the_earliest_of_the_best_wins_and_what_is_no_number_never() -> None:
    found = [(2, 0.5), (4, 0.7), (6, float("nan")), (8, 0.7), (10, 0.6)]
    assert best(found, ACCURACY) == (4, 0.7)
    assert best(found, LOSS) == (2, 0.5)
    assert best([(2, float("nan"))], LOSS) is None and best([], LOSS) is None


def test_patience_counts_evaluations_since_the_last_gain_above_min_delta() -> None:
    found = [(2, 0.5), (4, 0.505), (6, 0.509), (8, 0.52), (10, 0.4)]
    assert [fruitless(found[:n], ACCURACY, 0.01) for n in range(1, 6)] == [0, 1, 2, 0, 1]
    assert fruitless(found, ACCURACY, 0.0) == 1
    assert fruitless([(2, 2.0), (4, 1.0), (6, 1.5)], LOSS, 0.0) == 1


def test_evaluations_are_read_from_the_trainer_s_history() -> None:
    history = [{"loss": 1.0, "step": 1}, {"eval_rewards/accuracies": 0.5, "eval_loss": 0.7, "step": 2}]
    assert evaluations(history, ACCURACY) == [(2, 0.5)] and evaluations(history, LOSS) == [(2, 0.7)]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(tmp_path_factory.mktemp("early"))


@pytest.fixture(scope="module")
def stopped(world: World) -> Plan:
    """A run that stopped early."""
    plan = world.plan("stopped", **STAGE)
    train(plan, 1)
    return plan


def summary(plan: Plan) -> dict[str, Any]:
    assert not (Path(plan.output) / "failure.json").exists(), (Path(plan.output) / "failure.json").read_text()
    found: dict[str, Any] = json.loads((Path(plan.output) / "summary.json").read_text())
    return found


def adapter(folder: Path | str | None) -> dict[str, torch.Tensor]:
    assert folder is not None
    return load_file(Path(folder) / "adapter_model.safetensors")


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_training_stops_where_held_out_accuracy_no_longer_rises_and_exports_its_best_step(stopped: Plan) -> None:
    done, curve = summary(stopped), curves.load(Path(stopped.output))
    held_out = evaluations(curve, ACCURACY)
    top = best(held_out, ACCURACY)
    assert top is not None and done["exported_step"] == top[0]
    assert done["steps"] == top[0] + 4 < 30, "two evaluations without a gain"
    assert same(adapter(stopped.output), adapter(checkpoint.at(Path(stopped.storage), top[0])))
    assert curves.last_values(curve, until=top[0])["eval_rewards/accuracies"] == top[1]
    assert all(value * 13 == pytest.approx(round(value * 13)) for _, value in held_out), "a share of the 13 pairs"
    assert done["memory_peak_gib"] > 0.1


def test_curves_hold_kl_rates_and_memory(stopped: Plan) -> None:
    curve = curves.load(Path(stopped.output))
    first, last = curve[0], [point for point in curve if "eval_kl" in point][-1]
    assert 0 <= first["kl"] < 1e-6 < last["eval_kl"]
    assert first["tokens_per_second_per_worker"] > 0 and first["memory_peak_gib"] > 0.1 and "mfu" not in first


def test_event_files_hold_the_same_curves(stopped: Plan) -> None:
    events = EventAccumulator(str(Path(str(stopped.logs)) / stopped.name)).Reload()
    held_out = [(event.step, event.value) for event in events.Scalars("eval/rewards/accuracies")]
    assert held_out == [(s, pytest.approx(v)) for s, v in evaluations(curves.load(Path(stopped.output)), ACCURACY)]
    assert len(events.Scalars("train/loss")) == summary(stopped)["steps"]


@pytest.mark.slow
def test_a_killed_run_stops_at_the_same_step_and_exports_the_same_weights(stopped: Plan) -> None:
    plan = again(stopped, "killed")
    train(plan, 1, until=lambda: checkpoint.newest(Path(plan.storage)) is not None)
    assert not (Path(plan.output) / "summary.json").exists(), "the run ended before it could be killed"
    train(plan, 1)
    done = summary(plan)
    assert done["resumed_at_step"] > 0
    assert (done["steps"], done["exported_step"]) == (summary(stopped)["steps"], summary(stopped)["exported_step"])
    assert same(adapter(plan.output), adapter(stopped.output))
    events = EventAccumulator(str(Path(str(plan.logs)) / plan.name)).Reload().Scalars("train/loss")
    assert [event.step for event in events] == list(range(1, done["steps"] + 1)), "each step once"


@pytest.mark.slow
def test_two_workers_of_zero_3_stop_and_export_as_one_does(stopped: Plan, world: World) -> None:
    plan = world.plan("sharded", training={"workers": 2, "zero_stage": 3}, **STAGE, micro_batch=2)
    train(replace(plan, seed=stopped.seed), 2)
    done, one = summary(plan), summary(stopped)
    assert (done["steps"], done["exported_step"]) == (one["steps"], one["exported_step"])
    assert same(adapter(plan.output), adapter(checkpoint.at(Path(plan.storage), done["exported_step"])))
    ours, theirs = adapter(plan.output), adapter(stopped.output)
    assert max(float((ours[name] - theirs[name]).abs().max()) for name in ours) < 1e-3


def test_a_whole_model_s_weights_are_put_back(world: World, tmp_path: Path) -> None:
    from pipelines.training.weights import load_model

    model = load_model(str(world.base))
    model.save_pretrained(tmp_path)
    kept = {name: p.detach().clone() for name, p in model.named_parameters()}
    with torch.no_grad():
        for p in model.parameters():
            p.add_(1.0)
    load_weights(model, tmp_path)
    assert all(torch.equal(p, kept[name]) for name, p in model.named_parameters())


def test_an_evaluated_last_step_is_not_evaluated_twice(stopped: Plan) -> None:
    from transformers import TrainerState

    newest = checkpoint.newest(Path(stopped.storage))
    assert newest is not None
    state = TrainerState.load_from_json(str(newest.folder / "trainer_state.json"))
    assert evaluated(state) == (state.global_step % 2 == 0)
    state.global_step += 1
    assert not evaluated(state)
    steps = [point["step"] for point in curves.load(Path(stopped.output)) if "eval_loss" in point]
    assert len(steps) == len(set(steps))
