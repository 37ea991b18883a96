"""Means, shares and differences with their intervals, resampled by post.

Several pairs or replies of one post are not independent, so whole posts are drawn with
replacement (BCa bootstrap, Efron 1987, by ``scipy.stats.bootstrap``). Where all values are
equal there is nothing to resample: a share then gets Wilson's interval over the posts, and
any other mean is given without an interval, as it is with fewer than two posts.
"""

import math
import warnings
from collections.abc import Callable, Hashable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from configs.settings import Settings

BOOTSTRAP = "BCa bootstrap over posts"
WILSON = "Wilson"
NONE = "none"


@dataclass(frozen=True)
class Resampling:
    """How intervals are made."""

    confidence: float = 0.95
    resamples: int = 2000
    seed: int = 0

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """As the settings say."""
        return cls(settings.evaluation.confidence, settings.evaluation.resamples, settings.seed)


@dataclass(frozen=True)
class Estimate:
    """A mean (of 0 and 1: a share) with its interval; None where it cannot be told."""

    n: int
    """Values."""
    posts: int
    """Posts that the values come from, the unit of resampling."""
    mean: float | None
    sd: float | None
    """Standard deviation of the values, n - 1 in the denominator."""
    low: float | None
    high: float | None
    method: str
    """How the interval was made: ``BOOTSTRAP``, ``WILSON`` or ``NONE``."""

    def as_dict(self) -> dict[str, Any]:
        """JSON values."""
        return asdict(self)


def estimate(values: Sequence[float], posts: Sequence[Hashable], how: Resampling) -> Estimate:
    """Mean of ``values`` with a bootstrap interval over ``posts`` (one label a value)."""
    array = np.asarray(values, dtype=float)
    if not len(array):
        return Estimate(0, 0, None, None, None, None, NONE)
    sums, counts = by_post(array, posts)
    low, high = bootstrap(sums, counts, how)
    sd = float(array.std(ddof=1)) if len(array) > 1 else None
    return Estimate(len(array), len(sums), float(array.mean()), sd, low, high, NONE if low is None else BOOTSTRAP)


def share(hits: Sequence[bool], posts: Sequence[Hashable], how: Resampling) -> Estimate:
    """Share of ``hits`` that are true, with its interval; Wilson's over posts where the bootstrap has none."""
    found = estimate([float(hit) for hit in hits], posts, how)
    if found.mean is None or found.low is not None:
        return found
    low, high = wilson(round(found.mean * found.posts), found.posts, how.confidence)
    return replace(found, low=low, high=high, method=WILSON)


def difference(after: Sequence[float], before: Sequence[float], posts: Sequence[Hashable], how: Resampling) -> Estimate:
    """Mean of the paired differences ``after - before``."""
    paired = np.asarray(after, dtype=float) - np.asarray(before, dtype=float)
    return estimate(paired.tolist(), posts, how)


def share_difference(
    first: Sequence[tuple[Hashable, bool]], second: Sequence[tuple[Hashable, bool]], how: Resampling
) -> Estimate:
    """Share of hits in ``first`` minus that in ``second``, both lists of (post, hit) over the same posts.

    A post is drawn for both at once, since its replies stand in both.
    """
    posts = list(dict.fromkeys(post for post, _ in [*first, *second]))
    n = len(first) + len(second)
    if not first or not second:
        return Estimate(n, len(posts), None, None, None, None, NONE)
    columns = [column for pairs in (first, second) for column in tally(pairs, posts)]

    def gap(a: NDArray[Any], m: NDArray[Any], b: NDArray[Any], n: NDArray[Any], axis: int = -1) -> NDArray[Any]:
        found: NDArray[Any] = a.sum(axis) / m.sum(axis) - b.sum(axis) / n.sum(axis)
        return found

    low, high = resampled(columns, gap, how)
    mean = sum(hit for _, hit in first) / len(first) - sum(hit for _, hit in second) / len(second)
    return Estimate(n, len(posts), mean, None, low, high, NONE if low is None else BOOTSTRAP)


def by_post(values: NDArray[Any], posts: Sequence[Hashable]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Sum and number of the values of each post, in order of first appearance."""
    return tally(list(zip(posts, values.tolist(), strict=True)), list(dict.fromkeys(posts)))


def tally(values: Sequence[tuple[Hashable, float]], posts: Sequence[Hashable]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Sum and number of the values of each of ``posts``."""
    place = {post: index for index, post in enumerate(posts)}
    owner = np.array([place[post] for post, _ in values], dtype=int)
    weights = np.array([value for _, value in values], dtype=float)
    return np.bincount(owner, weights, len(posts)), np.bincount(owner, minlength=len(posts))


def bootstrap(sums: NDArray[Any], counts: NDArray[Any], how: Resampling) -> tuple[float, float] | tuple[None, None]:
    """Ends of the interval of sum(sums) / sum(counts); none where all posts have the same mean."""
    if np.ptp(sums / counts) == 0:
        return None, None
    return resampled([sums, counts], lambda s, c, axis=-1: s.sum(axis) / c.sum(axis), how)


def resampled(
    columns: Sequence[NDArray[Any]], statistic: Callable[..., Any], how: Resampling
) -> tuple[float, float] | tuple[None, None]:
    """Ends of the BCa interval of a statistic of columns with one entry a post, posts drawn with replacement.

    None where there are too few posts, or too few that differ, for BCa.
    """
    posts = len(columns[0])
    if posts < 2:
        return None, None
    with np.errstate(invalid="ignore", divide="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore", stats.DegenerateDataWarning)
        result = stats.bootstrap(
            columns,
            statistic,
            paired=True,
            vectorized=True,
            n_resamples=how.resamples,
            batch=max(1, 4_000_000 // posts),
            confidence_level=how.confidence,
            method="BCa",
            rng=np.random.default_rng(how.seed),
        )
    low, high = float(result.confidence_interval.low), float(result.confidence_interval.high)
    return (low, high) if math.isfinite(low) and math.isfinite(high) else (None, None)


def wilson(successes: int, n: int, confidence: float) -> tuple[float, float]:
    """Wilson's (1927) score interval of a share."""
    ends = stats.binomtest(successes, n).proportion_ci(confidence_level=confidence, method="wilson")
    return float(ends.low), float(ends.high)


def share_verdict(share: Estimate) -> str:
    """``learned`` only where the whole interval lies above one half."""
    if share.low is None or share.high is None:
        return "not enough data"
    if share.low > 0.5:
        return "learned"
    return "worse than chance" if share.high < 0.5 else "not shown"


def difference_verdict(change: Estimate) -> str:
    """``rises`` or ``falls`` only where the whole interval lies on one side of zero."""
    if change.low is None or change.high is None:
        return "no change shown" if change.mean == 0 else "not enough data"
    if change.low > 0:
        return "rises"
    return "falls" if change.high < 0 else "no change shown"


def rank_correlation(first: Sequence[float], second: Sequence[float]) -> float | None:
    """Spearman's rank correlation; None where it is not defined."""
    if len(first) < 3 or len(set(first)) < 2 or len(set(second)) < 2:
        return None
    return float(stats.spearmanr(first, second).statistic)
