"""How well scrubbing finds what identifies a person: recall and precision by kind on a labelled set.

``scrub_labelled.jsonl`` holds invented texts in which ``[[EMAIL:a@b.org]]`` marks what is
to be found, among them ways of writing that patterns miss (spelt-out numbers, names of
people) and plain text that looks like a find (doses, dates, prices, crisis lines). The set
is small, written by hand, and the patterns were made with it in sight: it tells what kind
of thing is missed, and is no estimate of how often that happens in your community.
"""

import json
import re
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa

from configs.corpus import ScrubSettings
from pipelines.corpus import names
from pipelines.corpus.scrub import scrub_column
from pipelines.manifest import Draft

FILE = Path(__file__).with_name("scrub_labelled.jsonl")
NO_NAMES = (
    "Names of people in the texts are not replaced: patterns do not find them. corpus.scrub.names takes a model that"
    " does."
)
_MARK = re.compile(r"\[\[([A-Z]+):(.+?)\]\](?!\])")
_WORD = re.compile(r"\w{2,}")
_PLACEHOLDER = re.compile(r"\[([A-Z]+)\]")


def check(settings: ScrubSettings) -> None:
    """Refuse settings that cannot be carried out, before any row is read; raises UsageError."""
    if settings.names:
        names.recogniser(settings.names)


def record(draft: Draft, settings: ScrubSettings) -> None:
    """The report into a manifest, as the figure ``scrub``."""
    draft.figures["scrub"] = report(settings)
    if not settings.names:
        draft.notes.append(NO_NAMES)


class Example(NamedTuple):
    """A text, and what in it is to be found: kinds and words."""

    text: str
    marks: tuple[tuple[str, str], ...]


def report(settings: ScrubSettings) -> dict[str, dict[str, float]]:
    """By kind: how many are ``labelled``, how many of them were ``found``, how many finds were ``wrong``.

    ``recall`` is found / labelled, ``precision`` found / (found + wrong), both null where there
    is nothing to divide by. A find counts where its words are gone and its placeholder stands
    in the text; a part of a find that is left over makes it none.
    """
    examples = labelled()
    scrubbed = scrub_column(pa.array([example.text for example in examples]), settings).to_pylist()
    wanted, found, made = Counter[str](), Counter[str](), Counter[str]()
    for example, text in zip(examples, scrubbed, strict=True):
        placeholders = Counter(_PLACEHOLDER.findall(text))
        made.update(placeholders)
        wanted.update(kind for kind, _ in example.marks)
        for kind, _ in right(example, text):
            found[kind] += 1
    return {kind: _figures(wanted[kind], found[kind], made[kind]) for kind in sorted(wanted | made)}


def right(example: Example, scrubbed: str) -> Iterator[tuple[str, str]]:
    """The marks that were found whole: each takes one placeholder of its kind, and none of its words is left over."""
    left = Counter(_PLACEHOLDER.findall(scrubbed))
    remains = set(_WORD.findall(_PLACEHOLDER.sub(" ", scrubbed)))
    everywhere = Counter(_WORD.findall(example.text))
    for kind, words in example.marks:
        its_own = {word for word, n in Counter(_WORD.findall(words)).items() if n == everywhere[word]}
        if left[kind] and words not in scrubbed and not its_own & remains:
            left[kind] -= 1
            yield kind, words


@cache
def labelled() -> tuple[Example, ...]:
    """The labelled set."""
    rows = FILE.read_text(encoding="utf-8").splitlines()
    return tuple(example(json.loads(row)["text"]) for row in rows)


def example(marked: str) -> Example:
    """A text with its marks taken out of it."""
    return Example(_MARK.sub(r"\2", marked), tuple((m[1], m[2]) for m in _MARK.finditer(marked)))


def _figures(wanted: int, found: int, made: int) -> dict[str, float]:
    figures: dict[str, float] = {"labelled": wanted, "found": found, "wrong": made - found}
    if wanted:
        figures["recall"] = round(found / wanted, 3)
    if made:
        figures["precision"] = round(found / made, 3)
    return figures
