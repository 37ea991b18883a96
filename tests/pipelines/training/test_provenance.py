"""What a card tells of a model beside its manifests' own words."""

import math

import pytest
from scipy import stats

from pipelines.training.metrics import standard_error
from pipelines.training.provenance import student


def test_the_interval_of_a_loss_is_students_over_batches() -> None:
    losses = [2.0, 2.5, 1.5, 2.2, 1.9]
    last = {"eval_loss": sum(losses) / 5, "eval_loss_se": standard_error(losses) or math.nan, "eval_batches": 5}
    expected = stats.ttest_1samp(losses, 0).confidence_interval(0.9)
    assert student(last, 0.9) == pytest.approx((expected.low, expected.high))


def test_one_batch_has_none() -> None:
    assert standard_error([2.0]) is None
    assert student({"eval_loss": 2.0}, 0.95) == (None, None)
