"""A run killed on two workers goes on with one, and then with two again, as if nothing had been."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from configs.settings import Settings
from configs.training import WorkerRange
from pipelines.training import build, checkpoint, curves, loop
from pipelines.training.plan import Plan
from tests.pipelines.training import ranks
from tests.pipelines.training.conftest import Build
from tests.pipelines.training.dpo_world import World

STEPS = 12
WORKERS = WorkerRange(min=1, max=2)
RATE, FULL_RATE = 1e-2, 1e-3
TOLERANCE = 1e-4
"""In bfloat16 too: a step here is the sum of two micro-batches, which rounds alike over workers and over time."""
MakePlan = Callable[..., Plan]
WAYS: dict[str, dict[str, Any]] = {
    **{f"zero-{stage}": {"zero_stage": stage} for stage in range(4)},
    "zero-2-in-bfloat16": {"zero_stage": 2, "bf16": True},
    "zero-3-optimizer-on-the-cpu": {"zero_stage": 3, "offload": {"optimizer": "cpu"}},
    "zero-2-all-weights": {"zero_stage": 2, "mode": "full"},
}
"""What differs from the demo's training."""


@pytest.fixture
def plan_of(settings: Settings, base_model: Path, tokenised: Build, tmp_path: Path) -> MakePlan:
    """Three epochs of four steps without dropout, since that draws by worker; a checkpoint at every step."""

    def make(name: str, **training: Any) -> Plan:
        common = settings.training
        rate = FULL_RATE if training.get("mode") == "full" else RATE
        sft = common.sft.model_copy(update={"max_steps": STEPS, "save_every": 1, "learning_rate": rate})
        lora = common.lora.model_copy(update={"dropout": 0.0})
        changed = common.model_copy(update={"lora": lora, "sft": sft, "workers": WORKERS})
        own = type(common).model_validate(changed.model_dump() | training)
        inputs = {"tokens": tokenised("sft"), "base": base_model}
        plan = build.plan_of(
            settings.model_copy(update={"training": own}), inputs, tmp_path / name, "gm", "sft", "0" * 12
        )
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


def differ_by(whole: Plan, broken: Plan) -> float:
    """Train one undisturbed and one on two workers, one and two; how far their losses are apart at most."""
    ranks.train(whole, workers=2)
    ranks.train(broken, workers=2, until=reached(broken, 4))
    ranks.train(broken, workers=1, until=reached(broken, 8))
    ranks.train(broken, workers=2)
    starts = loop.starts(Path(broken.storage))
    assert [start["workers"] for start in starts] == [2, 1, 2]
    assert 0 < starts[1]["step"] < starts[2]["step"] < STEPS
    assert not list(Path(broken.storage).glob("universal-*"))
    return max(abs(one - other) for one, other in zip(losses(broken), losses(whole), strict=True))


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
def test_two_workers_then_one_then_two_give_the_undisturbed_losses(plan_of: MakePlan, way: str) -> None:
    whole, broken = plan_of("whole", **WAYS[way]), plan_of("broken", **WAYS[way])
    assert differ_by(whole, broken) <= TOLERANCE
    assert losses(whole)[0] - losses(whole)[-1] > 0.5


@pytest.mark.slow
def test_so_do_they_in_dpo(tmp_path: Path) -> None:
    world = World(tmp_path)
    lora = world.settings.training.lora.model_copy(update={"dropout": 0.0}).model_dump()
    training = {"zero_stage": 2, "lora": lora, "workers": WORKERS.model_dump()}
    whole, broken = (world.plan(name, training=training, save_every=1) for name in ("whole", "broken"))
    assert differ_by(whole, broken) <= TOLERANCE
    assert losses(whole)[0] - losses(whole)[-1] > 0.02
