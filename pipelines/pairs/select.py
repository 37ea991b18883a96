"""From a rule to pairs: candidates by a self-join in blocks, the clearest of them within the caps.

``select`` is what every stage asks; ``candidates`` is the same before the caps, for
callers with a condition of their own, who then ask ``capped`` themselves:

    replies = Replies.of(threads, exposure)              # threads: a table of THREAD
    selection = select(replies, rule, settings.pairs)    # selection.chosen, .rejected: positions
    texts = pc.list_flatten(threads["comments"]).field("text").take(selection.chosen)

The caps are greedy: the clearest candidate of a post is taken, then the next of which
neither reply stands in ``max_per_reply`` pairs, until the post has ``max_per_post``.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from configs.pairs import PairSettings, RuleName
from pipelines.pairs.replies import BLOCK, Bools, Couples, Ints, Replies
from pipelines.pairs.rules import Rule

MOST_PER_REPLY = 64
"""Candidates kept of a reply by ``candidates``, so that a thread of n replies has at most 64 n."""


@dataclass(frozen=True)
class Candidates:
    """Pairs that a rule allows, by post (in the table's order) and then clearest first; ties fall by the ids."""

    posts: Ints
    """Row of the thread in its table."""
    chosen: Ints
    """Position of the chosen reply."""
    rejected: Ints
    """Position of the rejected reply."""

    def __len__(self) -> int:
        return len(self.chosen)

    def take(self, which: NDArray[Any]) -> Self:
        """The candidates at a mask or at places."""
        return type(self)(self.posts[which], self.chosen[which], self.rejected[which])


@dataclass(frozen=True)
class Selection:
    """The pairs of a table of threads within the caps, and what became of every candidate.

    ``candidates == len(pairs) + unbalanced + over_cap``, for the table and for each post.
    """

    pairs: Candidates
    """The pairs, by post and then clearest first."""
    candidates: Ints
    """By row of the table: pairs that the rule allows."""
    unbalanced: Ints
    """By row of the table: candidates left out to balance kinds of pairs (``matched`` only)."""

    @property
    def chosen(self) -> Ints:
        """Positions of the chosen replies."""
        return self.pairs.chosen

    @property
    def rejected(self) -> Ints:
        """Positions of the rejected replies."""
        return self.pairs.rejected

    @property
    def over_cap(self) -> int:
        """Candidates left out because the post or one of the two replies stands in enough pairs."""
        return int(self.candidates.sum() - self.unbalanced.sum()) - len(self.pairs)


def select(replies: Replies, rule: Rule, settings: PairSettings) -> Selection:
    """The pairs of one rule."""
    return select_all(replies, {rule.name: rule}, settings)[rule.name]


def select_all(replies: Replies, rules: Mapping[RuleName, Rule], settings: PairSettings) -> dict[RuleName, Selection]:
    """The pairs of several rules from one self-join, by the rules' names."""
    # A pair that is taken has fewer than this many clearer candidates at either reply: those before it were
    # taken (fewer than max_per_reply) or refused for another reply that is full (at most two a pair of the post).
    most = settings.max_per_reply + 2 * settings.max_per_post
    gathering = {name: _Gathering(replies, rule, most) for name, rule in rules.items()}
    taken: dict[RuleName, list[Candidates]] = defaultdict(list)
    for couples in _couples(replies, list(rules.values()), settings):
        _gather(couples, list(gathering.values()))
        for name, gathered in gathering.items():
            found = gathered.give()
            taken[name].append(found.take(capped(found, settings.max_per_post, settings.max_per_reply)))
    return {
        name: Selection(_joined(taken[name]), gathered.candidates, gathered.unbalanced)
        for name, gathered in gathering.items()
    }


def candidates(
    replies: Replies, rule: Rule, settings: PairSettings, most_per_reply: int = MOST_PER_REPLY
) -> Candidates:
    """The pairs that a rule allows (and keeps when it balances), before the caps.

    Of each reply the clearest ``most_per_reply`` in either role, so that the number stays in
    proportion to the replies; which they are depends on the thread alone.
    """
    gathered = _Gathering(replies, rule, most_per_reply)
    found = []
    for couples in _couples(replies, [rule], settings):
        _gather(couples, [gathered])
        found.append(gathered.give())
    return _joined(found)


def capped(found: Candidates, max_per_post: int, max_per_reply: int) -> Bools:
    """Which candidates the greedy caps take, as a mask.

    In rounds: a candidate is certainly taken when, of those still open, fewer than the places
    left come before it at both its replies; one is out when a reply is full. The result is that
    of going through them one by one, of which a post then keeps the first ``max_per_post``.
    """
    chosen, rejected = _dense(found.chosen, found.rejected)
    left = np.full(max(chosen.max(initial=-1), rejected.max(initial=-1)) + 1, max_per_reply)
    taken = np.zeros(len(found), bool)
    opened = np.arange(len(found))
    while len(opened):
        ends = np.stack([chosen[opened], rejected[opened]], axis=1)
        ahead = place(ends.ravel()).reshape(ends.shape)
        sure = (ahead < left[ends]).all(axis=1)
        taken[opened[sure]] = True
        np.subtract.at(left, ends[sure].ravel(), 1)
        opened = opened[~sure & (left[ends] > 0).all(axis=1)]
    at = np.flatnonzero(taken)
    taken[at[place(found.posts[at]) >= max_per_post]] = False
    return taken


def _couples(replies: Replies, rules: list[Rule], settings: PairSettings) -> Iterator[Couples]:
    """Batches of the self-join, as wide as the widest rule asks."""
    apart = [rule.most_apart for rule in rules]
    widest = None if None in apart else max(distance for distance in apart if distance is not None)
    return replies.couples(settings.min_post_score, widest)


def _gather(couples: Couples, gathering: "list[_Gathering]") -> None:
    for first, second in couples.blocks():
        for gathered in gathering:
            gathered.add(first, second)


class _Gathering:
    """Candidates of one rule, gathered block by block and handed out batch by batch of whole threads."""

    def __init__(self, replies: Replies, rule: Rule, most: int):
        self.replies, self.rule, self.most = replies, rule, most
        self.value = rule.value(replies)
        self.candidates = np.zeros(replies.rows, np.int64)
        self.unbalanced = np.zeros(replies.rows, np.int64)
        self.blocks: list[Candidates] = []
        self.size = 0

    def add(self, first: Ints, second: Ints) -> None:
        """The candidates among some couples."""
        replies, rule = self.replies, self.rule
        differ = self.value[first] != self.value[second]
        first, second = first[differ], second[differ]
        above = self.value[first] > self.value[second]
        chosen, rejected = np.where(above, first, second), np.where(above, second, first)
        allowed = rule.allows(replies, chosen, rejected)
        chosen, rejected = chosen[allowed], rejected[allowed]
        posts = replies.posts[chosen]
        self.candidates += np.bincount(posts, minlength=replies.rows)
        kept = rule.keeps(replies, chosen, rejected)
        self.unbalanced += np.bincount(posts[~kept], minlength=replies.rows)
        self.blocks.append(Candidates(posts[kept], chosen[kept], rejected[kept]))
        self.size += int(kept.sum())
        if self.size > BLOCK:
            self.blocks = [self.sorted()]
            self.size = len(self.blocks[0])

    def give(self) -> Candidates:
        """What was gathered, in order."""
        found, self.blocks, self.size = self.sorted(), [], 0
        return found

    def sorted(self) -> Candidates:
        """In order, without those that have ``most`` clearer ones at a reply."""
        found, replies = _joined(self.blocks), self.replies
        first, second = self.rule.clarity(replies, found.chosen, found.rejected)
        order: Ints = np.lexsort(
            (replies.names[found.rejected], replies.names[found.chosen], -second, -first, found.posts)
        )
        found = found.take(order)
        ends = np.stack([found.chosen, found.rejected], axis=1)
        near = np.asarray((place(ends.ravel()).reshape(ends.shape) < self.most).all(axis=1))
        return found.take(near)


def _joined(parts: list[Candidates]) -> Candidates:
    if not parts:
        return Candidates(*(np.zeros(0, np.int64) for _ in range(3)))
    return Candidates(
        np.concatenate([part.posts for part in parts]),
        np.concatenate([part.chosen for part in parts]),
        np.concatenate([part.rejected for part in parts]),
    )


def _dense(chosen: Ints, rejected: Ints) -> tuple[Ints, Ints]:
    """The positions renumbered from 0, so that counters are as many as replies that are in any pair."""
    _, numbers = np.unique(np.concatenate([chosen, rejected]), return_inverse=True)
    return numbers[: len(chosen)], numbers[len(chosen) :]


def place(labels: Ints) -> Ints:
    """How many earlier entries have the same label, entry by entry."""
    order = np.argsort(labels, kind="stable")
    ordered = labels[order]
    starts = np.flatnonzero(np.append(True, ordered[1:] != ordered[:-1])) if len(labels) else np.zeros(0, np.int64)
    counts = np.diff(np.append(starts, len(labels)))
    found = np.empty(len(labels), np.int64)
    found[order] = np.arange(len(labels)) - np.repeat(starts, counts)
    return found
