"""Which of two replies to one post is preferred: pair rules over a thread's votes.

A rule is a pure function from a thread's replies to a matrix: entry [i, j] says whether
reply i may be chosen over reply j. ``select`` then takes the clearest candidates within
the caps. Nothing here knows of Ray or files, so evaluation can ask the same rules.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import pyarrow as pa

from configs.pairs import PairSettings

Pair = tuple[int, int]
"""Positions of the chosen and of the rejected reply in their thread."""


@dataclass(frozen=True)
class Replies:
    """The replies of one thread, column by column."""

    ids: tuple[str, ...]
    scores: np.ndarray
    """Net votes, int64."""
    times: np.ndarray
    """Time of posting in seconds since 1970 UTC, int64."""

    @classmethod
    def of(cls, comments: Sequence[Mapping[str, Any]]) -> Self:
        """From the ``comments`` of a row of THREAD."""
        return cls(
            tuple(comment["comment_id"] for comment in comments),
            np.array([comment["score"] for comment in comments], dtype=np.int64),
            np.array([comment["created_utc"] for comment in comments], dtype=np.int64),
        )

    def __len__(self) -> int:
        return len(self.ids)


Rule = Callable[[Replies, PairSettings], np.ndarray]


def shp(replies: Replies, settings: PairSettings) -> np.ndarray:
    """The rule of the Stanford Human Preferences data (Ethayarajh et al. 2022, section 4).

    Reply i is preferred to j where it has the higher score, by ``min_ratio`` at least, both
    have ``min_score`` at least, and i was *not posted earlier*: the first replies of a
    thread are seen by most voters, so a later reply with more votes won against the odds.
    Without ``timing`` the last condition is not asked.
    """
    scores, times = replies.scores, replies.times
    chosen, rejected = scores[:, None], scores[None, :]
    preferred = (chosen > rejected) & (chosen >= settings.min_ratio * rejected) & (rejected >= settings.min_score)
    if settings.timing:
        preferred &= times[:, None] >= times[None, :]
    return preferred


def naive(replies: Replies, settings: PairSettings) -> np.ndarray:
    """The higher score wins, whoever came first: the rule to compare against."""
    return replies.scores[:, None] > replies.scores[None, :]


RULES: dict[str, Rule] = {"shp": shp, "naive": naive}


@dataclass(frozen=True)
class Selection:
    """The pairs of one thread, clearest first, and what the caps left out."""

    pairs: list[Pair]
    candidates: int
    """Pairs that the rule allows."""
    over_reply_cap: int
    """Candidates left out because one of the two stands in enough pairs."""
    over_post_cap: int
    """Candidates left out because the post has enough pairs."""


def select(replies: Replies, settings: PairSettings, rule: str | None = None) -> Selection:
    """The pairs of one thread by ``rule`` (that of the settings where none is given), within the caps.

    Highest ratio of scores first (scores below 1 count as 1), then widest margin, then ids,
    so that the choice depends on nothing else.
    """
    preferred = RULES[rule or settings.rule](replies, settings)
    chosen, rejected = np.nonzero(preferred)
    if not len(chosen):
        return Selection([], 0, 0, 0)
    high, low = replies.scores[chosen], replies.scores[rejected]
    ratio = high / np.maximum(low, 1)
    name = np.argsort(np.argsort(np.array(replies.ids)))
    order = np.lexsort((name[rejected], name[chosen], low - high, -ratio))
    pairs: list[Pair] = []
    uses = [0] * len(replies)
    full = 0
    for best, worse in zip(chosen[order].tolist(), rejected[order].tolist(), strict=True):
        if len(pairs) == settings.max_per_post:
            break
        if max(uses[best], uses[worse]) >= settings.max_per_reply:
            full += 1
            continue
        uses[best] += 1
        uses[worse] += 1
        pairs.append((best, worse))
    return Selection(pairs, len(chosen), full, len(chosen) - len(pairs) - full)


def post_allowed(score: int | None, settings: PairSettings) -> bool:
    """Whether the post has votes enough for its replies to have been seen; no score counts as 0."""
    return (score or 0) >= settings.min_post_score


def pair_ids(threads: pa.Table, settings: PairSettings, rule: str | None = None) -> pa.Table:
    """The pairs of a table of THREAD as post_id, split, chosen_id, rejected_id."""
    rows: list[dict[str, str]] = []
    for thread in threads.select(["post_id", "score", "split", "comments"]).to_pylist():
        if not post_allowed(thread["score"], settings):
            continue
        replies = Replies.of(thread["comments"])
        for chosen, rejected in select(replies, settings, rule).pairs:
            ids = {"chosen_id": replies.ids[chosen], "rejected_id": replies.ids[rejected]}
            rows.append({"post_id": thread["post_id"], "split": thread["split"], **ids})
    names = ("post_id", "split", "chosen_id", "rejected_id")
    return pa.Table.from_pylist(rows, schema=pa.schema([(name, pa.string()) for name in names]))
