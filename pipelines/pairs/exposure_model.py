"""How much of a reply's score its arrival explains: the fitted model, as the rules use it.

    log-score = thread + fall(rank, size of the thread) + what is left

Who answers first is seen by most voters, whatever the answer says: position bias, known
from ranked lists (Joachims et al. 2017, "Unbiased learning-to-rank with biased feedback")
and from songs whose early downloads made them hits (Salganik, Dodds and Watts 2006). The
thread's own level takes up how many people came by; ``fall`` is what the rank costs.
"""

from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

FILE = "exposure.json"
STRATA = (2.0, 3.0)
"""Bounds, in doublings, between the strata of adjusted margin that are balanced each for itself."""


def logged(scores: NDArray[np.int64]) -> NDArray[np.float64]:
    """sign(s) log2(1 + |s|): votes in doublings, and net downvotes below zero as far as upvotes above.

    Scores are products of exposure and appeal, so their logarithm is a sum; the symmetric
    logarithm (Webber 2013, "A bi-symmetric log transformation") is defined for all scores.
    """
    return np.sign(scores) * np.log2(1.0 + np.abs(scores))


class Curve(BaseModel):
    """The fall of the log-score with arrival in threads of like size."""

    model_config = ConfigDict(extra="forbid")
    size_from: int
    """Fewest replies of the threads it is for; most are those below the next curve's."""
    threads: int
    """Threads of that size it was fitted on."""
    pooled: bool
    """Whether these were too few, so that the curve is that of threads of all sizes."""
    noise: float
    """Standard deviation, in doublings, of what arrival and thread leave of the log-score."""
    fall: list[float]
    """By arrival rank from 1: log-score in doublings, that of the first reply being 0; never rises."""


class Kept(BaseModel):
    """Share of the candidate pairs of one kind that ``matched`` keeps, so that its pairs are balanced."""

    model_config = ConfigDict(extra="forbid")
    stratum: int
    """0: the rejected reply is downvoted; else 1 + how many of STRATA the adjusted margin reaches."""
    earlier: int
    """1 chosen earlier, -1 chosen later, 0 in the same second."""
    longer: int
    """1 chosen longer, -1 chosen shorter, 0 as long."""
    share: float
    """Candidates kept (0-1), by ``replies.drawn``."""


class Exposure(BaseModel):
    """The model in ``exposure.json``."""

    model_config = ConfigDict(extra="forbid")
    threads: int
    """Threads of the training split that it was fitted on."""
    replies: int
    """Their replies."""
    usable_timestamps: bool
    """Whether the threads tell the order of arrival; without it there are no curves."""
    top_score: int
    """Least score of the replies that count as top for the rule ``paper``."""
    bottom_score: int
    """Highest score of the replies that count as bottom for the rule ``paper``."""
    curves: list[Curve]
    """By size of the thread, smallest first."""
    kept: list[Kept]
    """Kinds of pairs of which not all are kept."""

    @classmethod
    def read(cls, folder: Path) -> Self:
        """From the output of the stage ``exposure``."""
        return cls.model_validate_json((folder / FILE).read_text(encoding="utf-8"))

    def expected(self, ranks: NDArray[np.int64], sizes: NDArray[np.int64]) -> NDArray[np.float64]:
        """``fall`` by arrival rank and thread size, in doublings; ranks beyond a curve's end take its last value."""
        if not self.curves:
            return np.zeros(len(ranks))
        which = np.searchsorted([curve.size_from for curve in self.curves[1:]], sizes, side="right")
        longest = max(len(curve.fall) for curve in self.curves)
        falls = np.array([curve.fall + curve.fall[-1:] * (longest - len(curve.fall)) for curve in self.curves])
        return falls[which, np.minimum(ranks, longest) - 1]

    def shares(self) -> NDArray[np.float64]:
        """The shares of ``kept`` by stratum, earlier + 1, longer + 1; 1 where all are kept."""
        found = np.ones((len(STRATA) + 2, 3, 3))
        for kept in self.kept:
            found[kept.stratum, kept.earlier + 1, kept.longer + 1] = kept.share
        return found
