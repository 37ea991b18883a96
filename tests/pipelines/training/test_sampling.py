"""The order of rows."""

import random
from itertools import pairwise

import numpy as np
import pytest
from accelerate.data_loader import BatchSamplerShard
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import BatchSampler

from pipelines.training.sampling import LengthGrouped, Packed, Shuffled, order_of, packed

DRAW = random.Random(1)
LENGTHS = [DRAW.randint(20, 400) for _ in range(1003)]
STEP = 8


def padding(order: list[int]) -> float:
    """Share of a step's cells that hold no token."""
    steps = [[LENGTHS[row] for row in order[at : at + STEP]] for at in range(0, len(order), STEP)]
    cells = sum(max(step) * len(step) for step in steps)
    return 1 - sum(map(sum, steps)) / cells


def epoch(sampler: Shuffled | Packed, number: int) -> list:
    sampler.set_epoch(number)
    return list(sampler)


@given(
    rows=st.integers(1, 90),
    step=st.integers(1, 12),
    chunk=st.integers(1, 9),
    runs=st.integers(1, 5),
    seed=st.integers(0, 9),
)
def test_every_row_comes_once_an_epoch_and_the_last_step_is_filled_with_first_ones(
    rows: int, step: int, chunk: int, runs: int, seed: int
) -> None:
    lengths = [(row * 7) % 13 for row in range(rows)]
    for kind in (Shuffled, LengthGrouped):
        sampler = kind(lengths, step, seed, window=chunk * runs, chunk=chunk)
        order = list(sampler)
        assert sorted(order[:rows]) == list(range(rows))
        assert len(order) == len(sampler) == -(-rows // step) * step
        if rows <= chunk * runs:
            assert order[rows:] == [order[at % rows] for at in range(len(order) - rows)]


def test_the_order_depends_on_seed_and_epoch_only() -> None:
    first, second = LengthGrouped(LENGTHS, STEP, 7), LengthGrouped(LENGTHS, STEP, 7)
    assert epoch(first, 0) == epoch(first, 0) == epoch(second, 0)
    assert epoch(second, 1) != epoch(first, 0)
    assert epoch(LengthGrouped(LENGTHS, STEP, 8), 0) != epoch(first, 0)


@pytest.mark.parametrize("rows", [64, 61, 3])
def test_any_number_of_workers_gives_the_same_rows_to_the_same_step(rows: int) -> None:
    """As accelerate deals micro-batches to workers, of which fewer take more before they step."""
    steps = []
    for workers in (4, 2, 1):
        sampler = LengthGrouped(LENGTHS[:rows], 8, 3)
        shards = [list(BatchSamplerShard(BatchSampler(sampler, 2, False), workers, rank)) for rank in range(workers)]
        accumulation = 4 // workers
        assert len({len(shard) for shard in shards}) == 1 and len(shards[0]) % accumulation == 0
        steps.append(
            [
                {tuple(batch) for shard in shards for batch in shard[at : at + accumulation]}
                for at in range(0, len(shards[0]), accumulation)
            ]
        )
    assert steps[0] == steps[1] == steps[2]


def test_rows_of_like_length_stand_together_so_that_little_is_padding() -> None:
    assert padding(list(LengthGrouped(LENGTHS, STEP, 0))) < 0.08 < 0.3 < padding(list(Shuffled(LENGTHS, STEP, 0)))


def test_long_and_short_steps_come_in_no_order_of_length() -> None:
    order = list(LengthGrouped(LENGTHS, STEP, 0))
    means = [sum(LENGTHS[row] for row in order[at : at + STEP]) / STEP for at in range(0, 1000, STEP)]
    rises = sum(b > a for a, b in pairwise(means))
    assert 0.35 < rises / (len(means) - 1) < 0.65


def test_a_large_set_is_read_window_by_window_in_another_order_each_epoch() -> None:
    sampler = LengthGrouped(LENGTHS, STEP, 0, window=200, chunk=20)
    first, second = (sampler.window(number, 0) for number in (0, 1))
    runs = {row // 20 for row in first.ravel().tolist()}
    assert len(runs) == 10, "a window holds whole runs of rows"
    assert runs != set(range(10)) and set(first.ravel().tolist()) != set(second.ravel().tolist())


@given(st.lists(st.integers(1, 50), min_size=1, max_size=80), st.integers(20, 60))
def test_packing_keeps_every_row_whole_and_no_pack_overflows(lengths: list[int], capacity: int) -> None:
    packs = packed(np.array(lengths), capacity, 0)
    assert sorted(row for pack in packs for row in pack) == list(range(len(lengths)))
    assert all(sum(lengths[row] for row in pack) <= capacity or len(pack) == 1 for pack in packs)


def test_packing_leaves_little_room() -> None:
    packs = packed(np.array(LENGTHS), 800, 0)
    assert sum(LENGTHS) / (800 * len(packs)) > 0.98


def test_packs_come_whole_once_an_epoch_in_another_order_and_as_many_for_every_worker() -> None:
    sampler = order_of("packed", LENGTHS, 5, micro_batch=2, micro_batches=6, max_length=400)
    assert isinstance(sampler, Packed)
    one, two = epoch(sampler, 0), epoch(sampler, 1)
    assert len(one) == len(sampler) and len(one) % 6 == 0
    assert set(range(len(LENGTHS))) == {row for pack in one for row in pack}
    assert one != two and sorted(map(tuple, one[: len(sampler.packs)])) == sorted(map(tuple, two[: len(sampler.packs)]))
    shards = [list(BatchSamplerShard(sampler, 3, rank)) for rank in range(3)]
    assert [shards[at % 3][at // 3] for at in range(len(two))] == two
