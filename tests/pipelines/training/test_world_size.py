"""A run killed on two workers goes on with one, and then with two again, as if nothing had been."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from configs.settings import Settings
from configs.training import WorkerRange
from pipelines.training import build, checkpoint, curves, loop
from pipelines.training.plan import Plan
from tests.pipelines.training import ranks
from tests.pipelines.training.conftest import Build

STEPS = 12
MakePlan = Callable[[int, str], Plan]


@pytest.fixture
def plan_of(settings: Settings, base_model: Path, tokenised: Build, tmp_path: Path) -> MakePlan:
    """Three epochs of four steps without dropout, since that draws by worker; a checkpoint at every step."""

    def make(zero_stage: int, name: str) -> Plan:
        lora = settings.training.lora.model_copy(update={"dropout": 0.0})
        sft = settings.training.sft.model_copy(update={"max_steps": STEPS, "save_every": 1, "learning_rate": 1e-2})
        changed = {"lora": lora, "sft": sft, "zero_stage": zero_stage, "workers": WorkerRange(min=1, max=2)}
        own = settings.model_copy(update={"training": settings.training.model_copy(update=changed)})
        inputs = {"tokens": tokenised("sft"), "base": base_model}
        plan = build.plan_of(own, inputs, tmp_path / name, "gm", "sft", "0" * 12)
        return replace(plan, storage=str(tmp_path / "storage" / name))

    return make


def losses(plan: Plan) -> list[float]:
    """The loss of each step, in order."""
    points = [point for point in curves.load(Path(plan.output)) if "loss" in point]
    assert [point["step"] for point in points] == list(range(1, STEPS + 1))
    return [point["loss"] for point in points]


def reached(plan: Plan, step: int) -> Callable[[], bool]:
    """Whether the checkpoint of that step is complete."""
    return lambda: checkpoint.at(Path(plan.storage), step) is not None


@pytest.mark.slow
@pytest.mark.parametrize("zero_stage", [0, 1, 2, 3])
def test_two_workers_then_one_then_two_give_the_undisturbed_losses(plan_of: MakePlan, zero_stage: int) -> None:
    whole, broken = plan_of(zero_stage, "whole"), plan_of(zero_stage, "broken")
    ranks.train(whole, workers=2)
    ranks.train(broken, workers=2, until=reached(broken, 4))
    ranks.train(broken, workers=1, until=reached(broken, 8))
    ranks.train(broken, workers=2)
    starts = loop.starts(Path(broken.storage))
    assert [start["workers"] for start in starts] == [2, 1, 2]
    assert 0 < starts[1]["step"] < starts[2]["step"] < STEPS
    assert losses(broken) == pytest.approx(losses(whole), rel=0, abs=1e-4)
    assert losses(whole)[0] - losses(whole)[-1] > 0.5
    assert not list(Path(broken.storage).glob("universal-*"))
