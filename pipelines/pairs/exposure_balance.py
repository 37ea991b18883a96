"""Which share of each kind of pair ``matched`` keeps, so that its pairs prefer neither early nor long replies.

A kind is (chosen earlier or later) x (chosen longer or shorter), within a stratum of the
margin. A kind and its mirror image (both turned round) in like numbers give balance on both
counts at once, and no smaller loss can: with n(+,+) = n(-,-) and n(+,-) = n(-,+) half of all
pairs are earlier and half longer, and vice versa. Thinning happens before the caps, so that
a post from which a pair is withheld may offer its next one; what is left after the caps can
only be found by trying, so the shares are corrected in a few rounds.
"""

import numpy as np

from configs.pairs import PairSettings
from pipelines.pairs.exposure_model import STRATA, Exposure, Kept
from pipelines.pairs.replies import Floats, Replies
from pipelines.pairs.rules import Matched, kinds
from pipelines.pairs.select import select

ROUNDS = 8
PRIOR = 2.0
"""Pairs added to each kind, so that a kind of few pairs is not thinned by chance."""


def balanced(exposure: Exposure, replies: Replies, settings: PairSettings) -> Exposure:
    """The model with the shares that balance the pairs of these replies.

    After each round the commoner of a kind and its mirror image is thinned by the ratio of
    the pairs that the caps left of the two; the rarer is always kept whole.
    """
    if not exposure.usable_timestamps or not settings.matched.balanced:
        return exposure
    replies = replies.under(exposure)
    shares = np.ones((len(STRATA) + 2, 3, 3))
    for _ in range(ROUNDS):
        exposure = exposure.model_copy(update={"kept": listed(shares)})
        shares = corrected(shares, tally(exposure, replies, settings))
    return exposure.model_copy(update={"kept": listed(shares)})


def tally(exposure: Exposure, replies: Replies, settings: PairSettings) -> Floats:
    """Pairs of each kind: stratum, earlier + 1, longer + 1."""
    found = select(replies, Matched(settings.matched, exposure), settings)
    counts = np.zeros((len(STRATA) + 2, 3, 3))
    np.add.at(counts, kinds(replies, found.chosen, found.rejected), 1)
    return counts


def corrected(shares: Floats, counts: Floats) -> Floats:
    """Shares after one more round; mirror images have opposite signs on both axes."""
    counts = counts + PRIOR
    wanted = shares * np.minimum(counts, counts[:, ::-1, ::-1]) / counts
    found: Floats = wanted / np.maximum(wanted, wanted[:, ::-1, ::-1])
    return found


def listed(shares: Floats) -> list[Kept]:
    """The shares below 1 as rows."""
    places = np.argwhere(shares < 1).tolist()
    return [Kept(stratum=s, earlier=e - 1, longer=n - 1, share=round(float(shares[s, e, n]), 6)) for s, e, n in places]
