"""Fitting the exposure model: what the order of arrival costs, with each thread as its own yardstick.

Later ranks exist only in busier threads, so plain means by rank mix what arrival does with
how many people came by. The fit is therefore the within estimator of a linear model with
an effect for each thread and each bin of ranks (Wooldridge 2010, section 10.5), a curve
for each group of threads of like size. The curve is then made monotone by isotonic
regression (Barlow and Brunk 1972): arriving later never helps, what says otherwise is
noise. Bins and logarithms keep single threads from bending it. What it does not model:
the hour of the day, the sorting of the page, and delays in hours beyond the rank.
"""

from collections.abc import Mapping

import numpy as np
from scipy.optimize import isotonic_regression

from configs.pairs import ExposureSettings, PairSettings
from pipelines.pairs.exposure_model import Curve, Exposure, logged
from pipelines.pairs.replies import Floats, Ints, Replies

BINS = np.array([1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 13, 17, 25, 33, 49, 65, 97, 129, 193])
"""First rank of each bin of ranks; the last has no end."""
SIZES = (2, 4, 8, 16, 32, 64, 128, 256)
"""Fewest replies of each group of threads."""
DIGITS = 6


def fit(
    replies: Replies,
    histogram: Mapping[int, int],
    usable_timestamps: bool,
    exposure: ExposureSettings,
    pairs: PairSettings,
) -> Exposure:
    """The model of the replies of some threads; ``histogram`` counts all replies of the corpus by score.

    The shares that balance ``matched`` are not among it (``exposure_balance``).
    """
    return Exposure(
        threads=int((np.bincount(replies.posts) > 1).sum()),
        replies=len(replies),
        usable_timestamps=usable_timestamps,
        top_score=quantile(histogram, 1 - pairs.top_share),
        bottom_score=quantile(histogram, pairs.bottom_share),
        curves=curves(replies, exposure.min_threads) if usable_timestamps else [],
        kept=[],
    )


def quantile(histogram: Mapping[int, int], share: float) -> int:
    """The least score s of which at least ``share`` of the replies have s or less (the inverted distribution)."""
    scores = sorted(histogram)
    counts = np.cumsum([histogram[score] for score in scores])
    # rounded up to a whole reply; 1 - 0.02 is not exactly 0.98
    needed = np.ceil(round(share * int(counts[-1]), 6))
    return scores[int(np.searchsorted(counts, needed))]


def curves(replies: Replies, min_threads: int) -> list[Curve]:
    """A curve for each group of thread sizes that occurs."""
    several = replies.sizes > 1
    group = np.searchsorted(SIZES, replies.sizes, side="right") - 1
    overall, found = fall_of(replies, several), []
    for number in np.unique(group[several]):
        own = group == number
        threads = int((replies.ranks[own] == 1).sum())
        fall = fall_of(replies, own) if threads >= min_threads else overall
        found.append(
            Curve(
                size_from=SIZES[number],
                threads=threads,
                pooled=threads < min_threads,
                noise=round(noise(replies, own, fall), DIGITS),
                fall=[round(float(value), DIGITS) for value in fall],
            )
        )
    return found


def fall_of(replies: Replies, own: np.ndarray) -> Floats:
    """Log-score by rank, the first rank being 0, from the replies of the mask ``own`` (whole threads)."""
    _, posts = np.unique(replies.posts[own], return_inverse=True)
    ranks, scores = replies.ranks[own], logged(replies.scores[own])
    bins = np.searchsorted(BINS, ranks, side="right") - 1
    table = np.bincount(posts * len(BINS) + bins, minlength=(posts.max() + 1) * len(BINS)).reshape(-1, len(BINS))
    per_post, per_bin = table.sum(1), table.sum(0)
    shared = (table / per_post[:, None]).T
    left = np.diag(per_bin) - shared @ table
    right = np.bincount(bins, scores, len(BINS)) - shared @ np.bincount(posts, scores)
    there = per_bin > 0
    solved = np.linalg.lstsq(left[np.ix_(there, there)], right[there], rcond=None)[0]
    level = isotonic_regression(solved, weights=per_bin[there], increasing=False).x
    middles = np.bincount(bins, np.log(ranks), len(BINS))[there] / per_bin[there]
    values: Floats = np.interp(np.log(np.arange(1, ranks.max() + 1)), middles, level)
    return values - values[0]


def noise(replies: Replies, own: np.ndarray, fall: Floats) -> float:
    """Standard deviation within threads of what the curve leaves, in doublings."""
    rest = logged(replies.scores[own]) - fall[np.minimum(replies.ranks[own], len(fall)) - 1]
    centred = within(rest, replies.posts[own])
    threads = len(np.unique(replies.posts[own]))
    return float(np.sqrt((centred**2).sum() / max(1, len(centred) - threads)))


def within(values: Floats | Ints, posts: Ints) -> Floats:
    """Values less the mean of their thread."""
    counts = np.maximum(np.bincount(posts), 1)
    centred: Floats = values - (np.bincount(posts, values) / counts)[posts]
    return centred


def arrival_correlation(replies: Replies, values: Floats) -> float | None:
    """Correlation, within threads, of a value a reply with the log of its arrival rank; None without variation."""
    order, value = within(np.log(replies.ranks), replies.posts), within(values, replies.posts)
    scale = float(np.sqrt((order**2).sum() * (value**2).sum()))
    return round(float((order * value).sum()) / scale, 4) if scale else None
