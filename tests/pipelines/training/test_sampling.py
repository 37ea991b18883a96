"""The order of rows."""

import random
from itertools import pairwise

from pipelines.training.sampling import LengthGrouped

DRAW = random.Random(1)
LENGTHS = [DRAW.randint(20, 400) for _ in range(1003)]
STEP = 8


def padding(order: list[int]) -> float:
    """Share of a step's cells that hold no token."""
    steps = [[LENGTHS[row] for row in order[at : at + STEP]] for at in range(0, len(order), STEP)]
    cells = sum(max(step) * len(step) for step in steps)
    return 1 - sum(map(sum, steps)) / cells


def test_every_row_comes_once_an_epoch() -> None:
    assert sorted(LengthGrouped(LENGTHS, STEP, 0)) == list(range(len(LENGTHS)))


def test_the_order_depends_on_seed_and_epoch_only() -> None:
    first, second = LengthGrouped(LENGTHS, STEP, 7), LengthGrouped(LENGTHS, STEP, 7)
    epoch_0 = list(first)
    assert list(first) == epoch_0 == list(second)
    second.set_epoch(1)
    assert list(second) != epoch_0
    assert list(LengthGrouped(LENGTHS, STEP, 8)) != epoch_0


def test_rows_of_like_length_stand_together_so_that_little_is_padding() -> None:
    shuffled = list(range(len(LENGTHS)))
    random.Random(2).shuffle(shuffled)
    assert padding(list(LengthGrouped(LENGTHS, STEP, 0))) < 0.08 < 0.3 < padding(shuffled)


def test_long_and_short_steps_come_in_no_order_of_length() -> None:
    order = list(LengthGrouped(LENGTHS, STEP, 0))
    means = [sum(LENGTHS[row] for row in order[at : at + STEP]) / STEP for at in range(0, 1000, STEP)]
    rises = sum(b > a for a, b in pairwise(means))
    assert 0.35 < rises / (len(means) - 1) < 0.65
