"""Known answers for means, shares, differences and their intervals."""

import numpy as np
import pytest

from pipelines.evaluation.statistics import (
    BOOTSTRAP,
    NONE,
    WILSON,
    Estimate,
    Resampling,
    difference,
    difference_verdict,
    estimate,
    rank_correlation,
    share,
    share_difference,
    share_verdict,
    wilson,
)

HOW = Resampling(resamples=4000)


def normal(n: int, seed: int = 1) -> list[float]:
    return np.random.default_rng(seed).normal(3, 2, n).tolist()


def test_a_mean_of_independent_values_has_the_interval_of_the_textbook() -> None:
    values = normal(400)
    found = estimate(values, range(400), HOW)
    half = 1.96 * np.std(values, ddof=1) / 20
    assert (found.n, found.posts, found.method) == (400, 400, BOOTSTRAP)
    assert found.mean == pytest.approx(np.mean(values))
    assert found.sd == pytest.approx(np.std(values, ddof=1))
    assert found.low == pytest.approx(np.mean(values) - half, abs=0.03)
    assert found.high == pytest.approx(np.mean(values) + half, abs=0.03)


def test_ten_copies_of_each_value_in_one_post_do_not_narrow_the_interval() -> None:
    values = normal(60)
    once = estimate(values, range(60), HOW)
    tenfold = estimate(np.repeat(values, 10).tolist(), np.repeat(range(60), 10).tolist(), HOW)
    as_if_independent = estimate(np.repeat(values, 10).tolist(), range(600), HOW)
    assert (tenfold.n, tenfold.posts) == (600, 60)
    assert width(tenfold) == pytest.approx(width(once), rel=0.05)
    assert width(as_if_independent) < width(once) / 2.5


def test_posts_weigh_by_their_number_of_values() -> None:
    found = estimate([1.0, 0.0, 0.0, 0.0], ["a", "b", "b", "b"], HOW)
    assert found.mean == 0.25


def test_equal_seeds_give_equal_intervals() -> None:
    values = normal(50)
    assert estimate(values, range(50), HOW) == estimate(values, range(50), HOW)


def test_a_share_without_a_single_miss_gets_wilsons_interval_over_posts() -> None:
    found = share([True] * 40, [f"p{i % 20}" for i in range(40)], HOW)
    assert (found.mean, found.posts, found.method) == (1.0, 20, WILSON)
    assert (found.low, found.high) == pytest.approx((0.8389, 1.0), abs=1e-4)


def test_wilsons_interval_of_the_papers_improvement_counts() -> None:
    assert wilson(173, 211, 0.95) == pytest.approx((0.7624, 0.8658), abs=1e-4)


def test_the_papers_two_shares_differ_by_what_a_re_test_found() -> None:
    ours = [(f"a{i}", i < 173) for i in range(211)]
    theirs = [(f"b{i}", i < 182) for i in range(213)]
    found = share_difference(ours, theirs, HOW)
    assert found.mean == pytest.approx(-0.0345, abs=1e-4)
    assert (found.low, found.high) == pytest.approx((-0.105, 0.036), abs=0.006)
    assert difference_verdict(found) == "no change shown"


def test_shares_over_the_same_posts_are_drawn_together() -> None:
    hits = [(i, bool(x)) for i, x in enumerate(np.random.default_rng(2).integers(0, 2, 200))]
    moved = [(i, hit or i < 20) for i, hit in hits]
    together = share_difference(moved, hits, HOW)
    apart = share_difference([(f"other {i}", hit) for i, hit in moved], hits, HOW)
    assert together.mean == pytest.approx(apart.mean)
    assert width(together) < width(apart) / 2


def test_a_difference_is_taken_pair_by_pair() -> None:
    before = normal(100)
    after = [value + 0.5 + 0.01 * (i % 3) for i, value in enumerate(before)]
    found = difference(after, before, range(100), HOW)
    assert found.mean == pytest.approx(0.51, abs=1e-3)
    assert width(found) < 0.01
    assert difference_verdict(found) == "rises"
    assert difference_verdict(difference(before, after, range(100), HOW)) == "falls"


def test_texts_that_did_not_change_show_no_change_and_claim_no_interval() -> None:
    found = difference([1.0, 2.0], [1.0, 2.0], ["a", "b"], HOW)
    assert (found.mean, found.low, found.high, found.method) == (0.0, None, None, NONE)
    assert difference_verdict(found) == "no change shown"
    assert difference_verdict(difference([1.0], [0.0], ["a"], HOW)) == "not enough data"


def test_nothing_to_measure_is_said_so() -> None:
    found = share([], [], HOW)
    assert (found.n, found.mean, found.low) == (0, None, None)
    assert share_verdict(found) == "not enough data"
    assert share_difference([], [("a", True)], HOW).mean is None


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [(0.51, 0.6, "learned"), (0.5, 0.9, "not shown"), (0.49, 0.9, "not shown"), (0.2, 0.49, "worse than chance")],
)
def test_learned_is_said_only_where_the_whole_interval_is_above_one_half(low: float, high: float, verdict: str) -> None:
    assert share_verdict(Estimate(100, 50, 0.55, 0.5, low, high, BOOTSTRAP)) == verdict


def test_rank_correlation_sees_order_only() -> None:
    assert rank_correlation([1, 2, 3, 4], [1, 10, 100, 1000]) == pytest.approx(1)
    assert rank_correlation([1, 2, 3], [5, 5, 5]) is None


def width(found: Estimate) -> float:
    assert found.low is not None and found.high is not None
    return found.high - found.low
