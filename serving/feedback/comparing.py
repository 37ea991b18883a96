"""Which drafts a rater compared: those of one answer, and of two that were rated one after the other.

Pairs that lie further apart are not made: a post that is asked a thousand times would make half
a million. A pair carries ratings where both were rated, and a choice where one of the two was
chosen. Pure functions.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from itertools import combinations, pairwise, product
from typing import Literal, TypeAlias

from pipelines.feedback.ratings import Response, Scores

Preferred: TypeAlias = Literal["a", "b"] | None


@dataclass(frozen=True)
class Said:
    """What one rater said of one answer."""

    answer: int
    scores: dict[int, Scores]
    """By draft."""
    chosen: int | None


@dataclass(frozen=True)
class Shown:
    """One draft of an answer, as a line shows it."""

    answer: int
    index: int
    response: Response

    @property
    def place(self) -> bytes:
        """Decides which of two comes first, in a way that says nothing about either."""
        return blake2b(f"{self.answer} {self.index}".encode(), digest_size=8).digest()


def compared(said: Sequence[Said], drafts: dict[int, list[Shown]]) -> Iterator[tuple[Shown, Shown, Preferred]]:
    """Pairs of drafts that one rater compared, in an order of no meaning, and which of the two was chosen."""
    for one in said:
        for first, second in combinations(drafts[one.answer], 2):
            chosen = one.chosen in (first.index, second.index)
            if chosen or {first.index, second.index} <= one.scores.keys():
                yield from ordered(first, second, one.chosen if chosen else None)
    for one, next_one in pairwise(said):
        for first, second in product(drafts[one.answer], drafts[next_one.answer]):
            if first.index in one.scores and second.index in next_one.scores:
                yield from ordered(first, second, None)


def ordered(first: Shown, second: Shown, chosen: int | None) -> Iterator[tuple[Shown, Shown, Preferred]]:
    """The pair, nothing where both say the same."""
    if first.response.text == second.response.text:
        return
    a, b = sorted((first, second), key=lambda draft: draft.place)
    yield a, b, None if chosen is None else "a" if a.index == chosen else "b"
