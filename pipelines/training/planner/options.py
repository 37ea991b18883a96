"""Other settings of the same training: which of them fit, which to take, and the smallest change that fits.

Whatever the micro-batch, accumulation makes up for it, so that an optimizer step takes the same
rows and the result stays the same; what ZeRO and offloading change is speed alone. A mode changes
what is trained and is never recommended in place of another.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from configs.training import StageSettings
from pipelines.training.planner.activations import Batch
from pipelines.training.planner.memory import Memory, memory
from pipelines.training.planner.model import Architecture
from pipelines.training.planner.setup import Mode, Setup

SAFE = 0.9
"""Share of a device that a recommendation fills at most: the formula may be 10 % off."""
MICRO_BATCHES = (1, 2, 4, 8, 16)
"""Rows or pairs a worker takes at once, the table's columns."""
OFFLOADS = ((False, False), (True, False), (True, True))
"""Of the optimizer, of the weights."""
Batches = Callable[[int], Batch]
"""The micro-batch of so many rows or pairs."""
Possible = Callable[[Setup], bool]
"""Whether training takes a combination of settings at all."""


@dataclass(frozen=True)
class Option:
    """One line of the table."""

    setup: Setup
    cells: dict[int, Memory]
    """Memory by micro-batch."""
    largest: int | None
    """The largest micro-batch that fits with some to spare, of those whose accumulation keeps the rows of a step."""
    recommended: bool = False

    @property
    def offload(self) -> str:
        """In words."""
        if self.setup.offload_parameters:
            return "optimizer, weights"
        return "optimizer" if self.setup.offload_optimizer else "none"


def options(
    model: Architecture, setup: Setup, batches: Batches, step: int, room: float, possible: Possible
) -> list[Option]:
    """The table for a device with ``room`` bytes: the fastest that fits in the configured mode is recommended.

    ``step`` is a worker's rows of an optimizer step, micro-batch times accumulation.
    """
    found = [option(model, one, batches, step, room) for one in setups(setup) if possible(one)]
    fitting = [one for one in found if one.setup.mode == setup.mode and one.largest is not None]
    if not fitting:
        return found
    best = min(fitting, key=lambda one: slowness(one, setup))
    return [replace(one, recommended=one is best) for one in found]


def setups(setup: Setup) -> Iterator[Setup]:
    """Modes, ZeRO stages and offloading, each with each."""
    modes: tuple[Mode, ...] = ("full",) if setup.task == "lm" else ("lora", "qlora", "full")
    for mode in modes:
        for stage in (0, 1, 2, 3):
            for optimizer, weights in OFFLOADS:
                yield replace(
                    setup, mode=mode, zero_stage=stage, offload_optimizer=optimizer, offload_parameters=weights
                )


def option(model: Architecture, setup: Setup, batches: Batches, step: int, room: float) -> Option:
    """One line."""
    sizes = sorted({*MICRO_BATCHES, *divisors(step)})
    cells = {size: memory(model, replace(setup, accumulation=max(1, step // size)), batches(size)) for size in sizes}
    fitting = [size for size in divisors(step) if cells[size].total <= SAFE * room]
    return Option(setup=setup, cells=cells, largest=max(fitting, default=None))


def divisors(step: int) -> list[int]:
    """Micro-batches that a step's rows can be cut into evenly."""
    return [size for size in range(1, step + 1) if step % size == 0]


def slowness(one: Option, configured: Setup) -> tuple[Any, ...]:
    """Sorts by what costs time: weights over the bus, optimizer on the host, weights over the network, small batches.

    Among equals the configured ZeRO stage comes first, then stage 2, which holds least for nothing.
    """
    stage = one.setup.zero_stage
    order = 0 if stage == configured.zero_stage else 1 if stage == 2 else 2
    many = -min(one.largest or 0, 4)  # from four rows of a thousand tokens on, a GPU is busy
    return one.setup.offload_parameters, one.setup.offload_optimizer, stage == 3, many, order


def way_out(
    model: Architecture, setup: Setup, batches: Batches, stage: StageSettings, room: float, possible: Possible
) -> list[str]:
    """Settings that make it fit, as KEY=VALUE without the stage's name for its own; empty where none does.

    From the smallest change on: a smaller micro-batch with more accumulation, checkpointing, ZeRO,
    offloading. None changes what is trained, beyond rounding.
    """
    step = stage.micro_batch * stage.accumulation
    smaller = sorted((size for size in divisors(step) if size <= stage.micro_batch), reverse=True)
    for checkpointing in dict.fromkeys((setup.checkpointing, True)):
        for zero in (setup.zero_stage, *(number for number in (2, 3) if number > setup.zero_stage)):
            for optimizer, weights in OFFLOADS:
                for size in smaller:
                    changed = replace(
                        setup,
                        checkpointing=checkpointing,
                        zero_stage=zero,
                        offload_optimizer=optimizer or setup.offload_optimizer,
                        offload_parameters=weights or setup.offload_parameters,
                        accumulation=setup.accumulation * stage.micro_batch // size,
                    )
                    if possible(changed) and memory(model, changed, batches(size)).total <= room:
                        return settings_of(setup, changed, stage, size)
    return []


def settings_of(before: Setup, after: Setup, stage: StageSettings, size: int) -> list[str]:
    """What differs, as overrides; the stage's own begin with a dot."""
    found = []
    if size != stage.micro_batch:
        found += [f".micro_batch={size}", f".accumulation={stage.accumulation * stage.micro_batch // size}"]
    if after.checkpointing and not before.checkpointing:
        found.append("training.gradient_checkpointing=true")
    if after.zero_stage != before.zero_stage:
        found.append(f"training.zero_stage={after.zero_stage}")
    if after.offload_optimizer and not before.offload_optimizer:
        found.append("training.offload.optimizer=cpu")
    if after.offload_parameters and not before.offload_parameters:
        found.append("training.offload.parameters=cpu")
    return found
