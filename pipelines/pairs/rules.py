"""Which of two replies to one post is preferred: the pair rules, each a small class with its source.

A rule sees arrays of positions (see ``replies``), never a single pair, and no files. It
says by which value the chosen reply stands above the rejected one, which such pairs it
allows, and which of those are clearest; ``select`` does the joining and the caps.
"""

from dataclasses import dataclass
from typing import ClassVar, Protocol

import numpy as np

from configs.errors import DataError
from configs.pairs import MatchedSettings, PairSettings, RuleName
from pipelines.pairs.exposure_model import STRATA, Exposure
from pipelines.pairs.replies import Bools, Floats, Ints, Replies, drawn

Clarity = tuple[Floats, Floats]
"""Two values a pair, the second for ties of the first: the higher, the clearer."""
FULL_DROP = 2.0
"""Doublings below its thread's median at which a rejected reply is as bad as can be told."""


class Rule(Protocol):
    """What a pair rule answers; ``chosen`` and ``rejected`` are positions, one entry a pair."""

    name: ClassVar[RuleName]

    @property
    def most_apart(self) -> int | None:
        """Most places between the two replies in the order of arrival; None: any."""

    def value(self, replies: Replies) -> Ints | Floats:
        """A value a reply: the chosen one has the higher, and where both are equal there is no pair."""

    def allows(self, replies: Replies, chosen: Ints, rejected: Ints) -> Bools:
        """Whether each pair is a candidate."""

    def clarity(self, replies: Replies, chosen: Ints, rejected: Ints) -> Clarity:
        """How clear each candidate is; the caps take the clearest."""

    def keeps(self, replies: Replies, chosen: Ints, rejected: Ints) -> Bools:
        """Whether each candidate stays in when kinds of pairs are balanced; decided before the caps."""


class ByScore:
    """What the rules share that rank by net votes: any distance, ratio before gap, nothing balanced."""

    most_apart: int | None = None

    def value(self, replies: Replies) -> Ints | Floats:
        """The score."""
        return replies.scores

    def clarity(self, replies: Replies, chosen: Ints, rejected: Ints) -> Clarity:
        """Highest ratio of scores (scores below 1 count as 1 in the denominator), then widest gap."""
        high, low = replies.scores[chosen], replies.scores[rejected]
        return high / np.maximum(low, 1), (high - low).astype(float)

    def keeps(self, replies: Replies, chosen: Ints, rejected: Ints) -> Bools:
        """All."""
        return np.ones(len(chosen), bool)


@dataclass(frozen=True)
class Shp(ByScore):
    """Stanford Human Preferences (Ethayarajh et al. 2022, "Understanding dataset difficulty", section 4).

    score(chosen) > score(rejected) >= ``min_score``, score(chosen) >= ``min_ratio`` x
    score(rejected), and the chosen reply was *not posted earlier* (created_utc no lower): the
    first replies are seen by most voters, so a later one with more votes won against the odds.
    Without ``timing`` the last condition is not asked.
    """

    name: ClassVar[RuleName] = "shp"
    min_score: int
    min_ratio: float
    timing: bool

    def allows(self, replies: Replies, chosen: Ints, rejected: Ints) -> Bools:
        """Score, ratio and time."""
        high, low = replies.scores[chosen], replies.scores[rejected]
        fine = (low >= self.min_score) & (high >= self.min_ratio * low)
        return fine & (replies.times[chosen] >= replies.times[rejected]) if self.timing else fine


class _ByGap(ByScore):
    """Widest gap first."""

    def clarity(self, replies: Replies, chosen: Ints, rejected: Ints) -> Clarity:
        """The gap of the scores, then the higher score of the chosen reply."""
        high, low = replies.scores[chosen], replies.scores[rejected]
        return (high - low).astype(float), high.astype(float)


@dataclass(frozen=True)
class Paper(_ByGap):
    """LLUMI's own rule (arXiv 2605.30273): the top of the corpus' votes over its bottom.

    score(chosen) >= ``top_score``, score(rejected) <= ``bottom_score``, gap >= ``min_gap``.
    The two bounds are quantiles of all replies of the training split (``exposure.quantile``).
    """

    name: ClassVar[RuleName] = "paper"
    top_score: int
    bottom_score: int
    min_gap: int

    def allows(self, replies: Replies, chosen: Ints, rejected: Ints) -> Bools:
        """Top over bottom, with the gap."""
        high, low = replies.scores[chosen], replies.scores[rejected]
        return (high >= self.top_score) & (low <= self.bottom_score) & (high - low >= self.min_gap)


@dataclass(frozen=True)
class Askell(ByScore):
    """Askell et al. 2021 ("A general language assistant as a laboratory for alignment", arXiv 2112.00861, C.1).

    A reply's grade is round(log2(1 + upvotes)), and -1 where net votes are negative (their +1
    for an accepted answer has no counterpart on Reddit). The higher grade is chosen. Halves
    cannot occur: log2 of an integer is no half-integer. Widest difference of grades first,
    then the gap of the scores.
    """

    name: ClassVar[RuleName] = "askell"

    def value(self, replies: Replies) -> Ints | Floats:
        """The grade."""
        return self.grades(replies.scores)

    def grades(self, scores: Ints) -> Ints:
        """Grade of each score."""
        return np.where(scores < 0, -1, np.round(np.log2(1.0 + np.maximum(scores, 0)))).astype(np.int64)

    def allows(self, replies: Replies, chosen: Ints, rejected: Ints) -> Bools:
        """All: the grades differ."""
        return np.ones(len(chosen), bool)

    def clarity(self, replies: Replies, chosen: Ints, rejected: Ints) -> Clarity:
        """Difference of the grades, then of the scores."""
        high, low = replies.scores[chosen], replies.scores[rejected]
        return (self.grades(high) - self.grades(low)).astype(float), (high - low).astype(float)


@dataclass(frozen=True)
class Margin(_ByGap):
    """A gap of ``min_gap`` votes at least, whoever came first: ``paper`` without its quantiles."""

    name: ClassVar[RuleName] = "margin"
    min_gap: int

    def allows(self, replies: Replies, chosen: Ints, rejected: Ints) -> Bools:
        """The gap."""
        return replies.scores[chosen] - replies.scores[rejected] >= self.min_gap


@dataclass(frozen=True)
class Naive(ByScore):
    """The higher score wins, whoever came first: the rule to compare against."""

    name: ClassVar[RuleName] = "naive"

    def allows(self, replies: Replies, chosen: Ints, rejected: Ints) -> Bools:
        """All: the scores differ."""
        return np.ones(len(chosen), bool)


@dataclass(frozen=True)
class Matched:
    """Replies that had the same chance to be seen, one of which did far better: our default.

    Both stand under one post, at most ``window_hours`` and ``max_rank_distance`` arrivals
    apart (matching on the confounder, Rosenbaum and Rubin 1983); what the remaining
    difference of arrival explains is taken off the log-scores by the exposure model. Then

    - adjusted(chosen) - adjusted(rejected) >= ``min_margin``,
    - score(chosen) > score(rejected) and score(chosen) >= ``min_chosen_score``,
    - where the rejected reply is downvoted (score <= 0), lift(chosen) >= ``min_lift``: how far
      a reply was voted down says nothing of the other one, which has to be good by itself.
      lift is adjusted less its median in the thread.

    Pairs with a downvoted rejected reply come first, then the highest
    lift(chosen) + min(-lift(rejected), ``FULL_DROP``), so that one reply's disaster does not
    make a pair clear. Of the kinds of pairs (chosen earlier or later, longer or shorter) the
    commoner is thinned by a hash of the two ids to the share that the exposure stage found to
    balance each kind with its mirror image, within strata of the margin (``exposure_balance``).
    """

    name: ClassVar[RuleName] = "matched"
    settings: MatchedSettings
    exposure: Exposure

    @property
    def most_apart(self) -> int | None:
        """The rank distance."""
        return self.settings.max_rank_distance

    def value(self, replies: Replies) -> Ints | Floats:
        """The exposure-adjusted log-score."""
        return replies.adjusted

    def allows(self, replies: Replies, chosen: Ints, rejected: Ints) -> Bools:
        """Window, rank distance, margin and scores."""
        high = replies.scores[chosen]
        fine = replies.adjusted[chosen] - replies.adjusted[rejected] >= self.settings.min_margin
        fine &= (high > replies.scores[rejected]) & (high >= self.settings.min_chosen_score)
        fine &= np.abs(replies.times[chosen] - replies.times[rejected]) <= 3600 * self.settings.window_hours
        fine &= (replies.scores[rejected] > 0) | (replies.lifts[chosen] >= self.settings.min_lift)
        return fine & (np.abs(replies.ranks[chosen] - replies.ranks[rejected]) <= self.settings.max_rank_distance)

    def clarity(self, replies: Replies, chosen: Ints, rejected: Ints) -> Clarity:
        """Downvoted first, then lift and bounded drop (rounded, so that ties fall by id on any machine)."""
        clear = replies.lifts[chosen] + np.minimum(-replies.lifts[rejected], FULL_DROP)
        return (replies.scores[rejected] <= 0).astype(float), np.round(clear, 9)

    def keeps(self, replies: Replies, chosen: Ints, rejected: Ints) -> Bools:
        """Whether the pair's draw lies below the share kept of its kind."""
        if not self.settings.balanced:
            return np.ones(len(chosen), bool)
        shares = self.exposure.shares()[kinds(replies, chosen, rejected)]
        return drawn(replies.keys[chosen], replies.keys[rejected]) < shares


def kinds(replies: Replies, chosen: Ints, rejected: Ints) -> tuple[Ints, Ints, Ints]:
    """Stratum, earlier + 1 and longer + 1 of each pair: indices into ``Exposure.shares``."""
    margin = replies.adjusted[chosen] - replies.adjusted[rejected]
    stratum = np.where(replies.scores[rejected] <= 0, 0, 1 + np.searchsorted(STRATA, margin, side="right"))
    earlier = np.sign(replies.times[rejected] - replies.times[chosen])
    longer = np.sign(replies.lengths[chosen] - replies.lengths[rejected])
    return stratum, earlier + 1, longer + 1


ALL: tuple[type[Rule], ...] = (Matched, Shp, Paper, Askell, Margin, Naive)
"""Every rule, the default first."""


def rules(settings: PairSettings, exposure: Exposure | None) -> dict[RuleName, Rule]:
    """Every rule that can be applied, by name; without an exposure model those that need none.

    ``matched`` needs the order of arrival as well, which some dumps do not tell.
    """
    found: list[Rule] = [
        Shp(settings.min_score, settings.min_ratio, settings.timing),
        Askell(),
        Margin(settings.min_gap),
        Naive(),
    ]
    if exposure is not None:
        found.append(Paper(exposure.top_score, exposure.bottom_score, settings.min_gap))
        if exposure.usable_timestamps:
            found.append(Matched(settings.matched, exposure))
    by_name = {rule.name: rule for rule in found}
    return {rule.name: by_name[rule.name] for rule in ALL if rule.name in by_name}


def rule_of(settings: PairSettings, exposure: Exposure) -> Rule:
    """The rule that ``pairs.rule`` names; raises DataError where it asks for an order that the threads do not tell."""
    found = rules(settings, exposure).get(settings.rule)
    if found is not None and (exposure.usable_timestamps or not (settings.rule == "shp" and settings.timing)):
        return found
    raise DataError(
        f"pairs.rule={settings.rule} asks who replied first, and these threads' comments share their timestamps;"
        " set pairs.rule=shp and pairs.timing=false (configs/tiny_untimed.yaml does)"
    )


def cautions(settings: PairSettings, exposure: Exposure) -> list[str]:
    """What whoever uses the rule's pairs must know."""
    if settings.rule == "matched":
        return []
    if settings.rule != "shp":
        return [f"Rule {settings.rule}: whoever replied first has the advantage; use it only to compare."]
    if settings.timing:
        return []
    reason = (
        "the order of the replies can be seen but was not asked for"
        if exposure.usable_timestamps
        else "the dumps do not tell it"
    )
    return [
        "The timing rule is off (pairs.timing=false): replies that came first collect more votes, and these pairs"
        f" are not freed of that; {reason}."
    ]
