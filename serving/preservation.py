"""How much of a draft's content its revision keeps: a score from 0 to 1, and how it was measured.

With an embedder (``retrieval.embedder`` is a model): the cosine of both texts' vectors, the
usual measure of content preservation in rewriting (Fu et al. 2018, "Style transfer in text",
section 4). Without one: the share of the draft's content words that the revision has too, each
as often as it stands there - ROUGE-1 recall (Lin 2004) without the commonest English words. A
paraphrase that keeps the meaning in other words scores low there, so the two are not to be
compared; ``method`` says which one it is.
"""

import re
from collections import Counter
from dataclasses import dataclass
from functools import cache
from typing import Literal

from pipelines.retrieval.embed import Embedder

WORD = re.compile(r"[^\W_]+(?:['\u2019][^\W_]+)*")


@dataclass(frozen=True)
class Preservation:
    """The score and its method."""

    score: float
    """From 0 (nothing kept) to 1 (all kept)."""
    method: Literal["embedding", "lexical"]


def preservation(draft: str, revision: str, embedder: Embedder | None = None) -> Preservation:
    """How much of ``draft`` stays in ``revision``; by words where there is no ``embedder``."""
    if embedder is None:
        return Preservation(round(kept_words(draft, revision), 4), "lexical")
    first, second = embedder.encode([draft, revision])
    return Preservation(round(min(max(float(first @ second), 0.0), 1.0), 4), "embedding")


def kept_words(draft: str, revision: str) -> float:
    """Share of the draft's content words found in the revision; of all its words where none has content."""
    wanted, found = Counter(words(draft)), Counter(words(revision))
    content = Counter({word: n for word, n in wanted.items() if word not in common_words()}) or wanted
    total = content.total()
    return (content & found).total() / total if total else 1.0


def words(text: str) -> list[str]:
    """Its words without case, one kind of apostrophe."""
    return [word.casefold().replace("\u2019", "'") for word in WORD.findall(text)]


@cache
def common_words() -> frozenset[str]:
    """English words that carry no content by themselves, and their short forms."""
    from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS

    short = ("i'm", "i've", "i'd", "i'll", "you're", "you've", "you'd", "you'll", "it's", "that's", "don't", "isn't")
    return frozenset(ENGLISH_STOP_WORDS) | frozenset(short)
