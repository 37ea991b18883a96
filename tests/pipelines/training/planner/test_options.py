"""What would fit: the table, its recommendation, and the way out of a refusal."""

from functools import partial

import pytest

from configs import load
from configs.settings import Settings
from configs.training import StageSettings
from pipelines.training.planner.gpus import gpu
from pipelines.training.planner.memory import GIB, memory
from pipelines.training.planner.model import Architecture, architecture
from pipelines.training.planner.options import SAFE, Option, options, way_out
from pipelines.training.planner.setup import Batch, Setup, batch_of, possible
from pipelines.training.planner.volume import Rows

ROWS = Rows(1000, 700, 180, 2048, 512, "tokens")


class Case:
    """A configuration's SFT stage."""

    def __init__(self, *overrides: str):
        self.settings: Settings = load("production", overrides)
        self.stage: StageSettings = self.settings.training.sft
        self.model: Architecture = architecture(self.settings)
        self.setup = Setup.of(self.settings, "sft", self.stage)
        self.allowed = partial(possible, self.settings)

    def batch(self, size: int) -> Batch:
        return batch_of(self.settings, "sft", self.stage, ROWS, size)

    def table(self, room: float) -> list[Option]:
        step = self.stage.micro_batch * self.setup.accumulation
        return options(self.model, self.setup, self.batch, step, room, self.allowed)

    def way_out(self, room: float) -> list[str]:
        return way_out(self.model, self.setup, self.batch, self.stage, room, self.allowed)

    def total(self) -> float:
        return memory(self.model, self.setup, self.batch(self.stage.micro_batch)).total


def recommended(table: list[Option]) -> Option:
    (found,) = [one for one in table if one.recommended]
    return found


def test_the_fastest_way_that_fits_in_the_configured_mode_is_recommended() -> None:
    roomy = recommended(Case().table(79 * GIB))
    assert (roomy.setup.mode, roomy.setup.zero_stage, roomy.offload, roomy.largest) == ("lora", 2, "none", 4)

    small = recommended(Case().table(16 * GIB))  # 13.6 GiB of weights alone: they have to be sharded
    assert (small.setup.mode, small.setup.zero_stage, small.offload) == ("lora", 3, "none")
    assert small.cells[small.largest or 0].total <= SAFE * 16 * GIB


def test_nothing_is_recommended_where_nothing_fits_in_the_configured_mode() -> None:
    full = Case("training.mode=full", "training.offload.optimizer=cpu", "training.zero_stage=2").table(6 * GIB)
    assert recommended(full).setup.offload_parameters, "the last resort: weights wait in the host's memory"
    assert not [one for one in Case("training.mode=full").table(3 * GIB) if one.recommended or one.largest]


def test_the_table_holds_no_combination_that_training_refuses() -> None:
    table = Case().table(79 * GIB)
    assert {(one.setup.mode, one.setup.zero_stage) for one in table} >= {("lora", 2), ("qlora", 2), ("full", 3)}
    assert not [one for one in table if one.setup.zero_stage < 3 and one.setup.offload_parameters]
    assert not [one for one in table if one.setup.zero_stage == 0 and one.setup.offload_optimizer]
    assert {one.setup.mode for one in Case("training.bf16=false").table(79 * GIB)} == {"lora", "full"}


@pytest.mark.parametrize(
    ("overrides", "room", "expected"),
    [
        ((), 19, [".micro_batch=2", ".accumulation=2"]),
        (("training.gradient_checkpointing=false",), 19, ["training.gradient_checkpointing=true"]),
        ((), 16, ["training.zero_stage=3"]),
        (("training.mode=full",), 10, ["training.zero_stage=3", "training.offload.optimizer=cpu"]),
    ],
)
def test_the_way_out_is_the_smallest_change_that_fits_and_really_fits(
    overrides: tuple[str, ...], room: float, expected: list[str]
) -> None:
    case = Case(*overrides)
    assert case.total() > room * GIB
    found = case.way_out(room * GIB)
    assert set(expected) <= set(found)

    changed = Case(*overrides, *(f"training.sft{one}" if one.startswith(".") else one for one in found))
    assert changed.total() <= room * GIB
    step = changed.stage.micro_batch * changed.stage.accumulation
    assert step == case.stage.micro_batch * case.stage.accumulation, "an optimizer step takes the same rows"


def test_there_is_no_way_out_where_the_weights_do_not_fit_at_all() -> None:
    assert Case("training.workers=1").way_out(1 * GIB) == []


@pytest.mark.parametrize("name", ["NVIDIA H100 80GB HBM3", "H100", "h100", "NVIDIA-A100-SXM4-80GB", "A10G", "L40S"])
def test_gpus_are_known_by_the_names_of_drivers_and_of_ray(name: str) -> None:
    assert gpu(name).memory > 0
