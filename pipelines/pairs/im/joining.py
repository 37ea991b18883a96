"""Which reply a draft should become: the candidates of the pair rule, joined by likeness of content.

A rule says that one reply is better than another; whether it is a *revision* of it, it does
not ask. Of the candidates (before the caps) those stay whose two replies are about the same
thing, the likest first, so that IM learns to say the same better and not to say something
else. Two people wrote them all the same: this stands in for true revisions, which nobody
publishes. Pure functions over arrays of positions (``pipelines.pairs.replies``).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from configs.pairs import PairSettings
from pipelines.pairs.replies import Bools, Floats, Ints, Replies
from pipelines.pairs.rules import Rule
from pipelines.pairs.select import Candidates, capped
from pipelines.retrieval.embed import Vectors

Encode = Callable[[Sequence[str]], Vectors]
CHUNK = 50_000
"""Couples of vectors multiplied at once."""
NONE = -1
"""No position."""


class Likeness:
    """Cosine similarities of some replies, each embedded once."""

    def __init__(self, texts: pa.Array, positions: Ints, encode: Encode):
        self.positions = np.unique(positions)
        self.vectors = encode(texts.take(pa.array(self.positions)).to_pylist())

    def between(self, first: Ints, second: Ints) -> Floats:
        """Similarity of each two replies, to six digits, so that it orders them alike on any machine."""
        left, right = np.searchsorted(self.positions, first), np.searchsorted(self.positions, second)
        found = [
            np.einsum("nd,nd->n", self.vectors[left[at : at + CHUNK]], self.vectors[right[at : at + CHUNK]])
            for at in range(0, len(left), CHUNK)
        ]
        similarity: Floats = np.concatenate([np.zeros(0), *found]).astype(np.float64)
        return similarity.round(6)


@dataclass(frozen=True)
class Joined:
    """Drafts and the replies they should become."""

    pairs: Candidates
    """By post and then likest first; ``rejected`` is the original, ``chosen`` its revision."""
    similarity: Floats
    """Of the two."""
    content_lost: int
    """Candidates left out because the revision is not about what the draft is about."""
    over_cap: int
    """Candidates left out because the post or one of the replies stands in enough pairs."""


def joined(found: Candidates, similarity: Floats, replies: Replies, floor: float, settings: PairSettings) -> Joined:
    """Of the candidates those not below the ``floor``, the likest first within the caps of the settings."""
    kept = similarity >= floor
    alike, similarity = found.take(kept), similarity[kept]
    order = np.lexsort((replies.names[alike.rejected], replies.names[alike.chosen], -similarity, alike.posts))
    alike, similarity = alike.take(order), similarity[order]
    taken = capped(alike, settings.max_per_post, settings.max_per_reply)
    return Joined(alike.take(taken), similarity[taken], int((~kept).sum()), int((~taken).sum()))


def drafts(found: Candidates, max_per_post: int) -> tuple[Candidates, int]:
    """For the teacher: the replies that the rule rejects, each once by its clearest candidate, and how many more."""
    _, first = np.unique(found.rejected, return_index=True)
    each = found.take(np.sort(first))
    taken = place(each.posts) < max_per_post
    return each.take(taken), int((~taken).sum())


def worse(
    better: Ints, originals: Ints, found: Candidates, likeness: Likeness, replies: Replies, rule: Rule, floor: float
) -> Ints:
    """A worse revision of each original: of the replies that the rule ranks below ``better``, the lowest.

    It is none of the originals and keeps the floor to its own; NONE where there is no such reply.
    """
    by_chosen = np.argsort(found.chosen, kind="stable")
    starts, ends = (np.searchsorted(found.chosen[by_chosen], better, side=side) for side in ("left", "right"))
    counts = ends - starts
    row = np.repeat(np.arange(len(better)), counts)
    nth = np.arange(len(row)) - np.repeat(np.cumsum(counts) - counts, counts)
    other = found.rejected[by_chosen[starts[row] + nth]]
    fits: Bools = other != originals[row]
    fits &= likeness.between(other, originals[row]) >= floor
    row, other = row[fits], other[fits]
    order = np.lexsort((replies.names[other], rule.value(replies)[other], row))
    row, other = row[order], other[order]
    least = place(row) == 0
    result = np.full(len(better), NONE)
    result[row[least]] = other[least]
    return result


def place(labels: Ints) -> Ints:
    """How many earlier entries have the same label, where equal labels stand together."""
    starts = np.flatnonzero(np.append(True, labels[1:] != labels[:-1])) if len(labels) else np.zeros(0, np.int64)
    counts = np.diff(np.append(starts, len(labels)))
    return np.arange(len(labels)) - np.repeat(starts, counts)
