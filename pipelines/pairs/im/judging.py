"""Which of the teacher's answers are revisions: whole, changed, and still about what the draft is about."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from pipelines.corpus.notes import Notes
from pipelines.corpus.scrub import scrub
from pipelines.pairs.im.joining import Encode
from pipelines.pairs.im.planning import note_similarities
from pipelines.pairs.im.schema import REVISION, TEACHER, teacher_id
from pipelines.pairs.im.teacher import REFUSED

WHOLE = "stop"
"""The finish reason of an answer that ended by itself (OpenAI's API reference, chat completions)."""
END_OF_THOUGHT = "</think>"
"""Where a reasoning model's thoughts end whose endpoint does not take them out."""


def judge(
    requests: pa.Table, answers: Mapping[str, Mapping[str, Any]], encode: Encode, floor: float, notes: Notes
) -> pa.Table:
    """The revisions (columns REVISION) among the answers to ``requests`` (columns REQUEST), by key.

    Every request is counted in ``notes`` as a revision or under the reason why it gave none.
    """
    rows = []
    for request in requests.to_pylist():
        text, reason = verdict(request["original"], answers.get(request["key"]))
        if reason:
            notes.add("drafts", reason)
        else:
            rows.append(request | {"text": text})
    originals, revised = (encode([row[name] for row in rows]) for name in ("original", "text"))
    similarity = np.einsum("nd,nd->n", originals, revised).astype(np.float64)
    note_similarities(notes, similarity, TEACHER)
    kept = similarity >= floor
    notes.add("drafts", "content_lost", int((~kept).sum()))
    notes.add("drafts", None, int(kept.sum()))
    found = [made(row, value) for row, value, fine in zip(rows, similarity.tolist(), kept, strict=True) if fine]
    for row in found:
        notes.add(f"{TEACHER}:{row['split']}", "pairs")
        notes.add(f"{TEACHER}:{row['split']}", "rejected_is_original", int(row["worse_id"] is None))
    return pa.Table.from_pylist(found, schema=REVISION)


def verdict(original: str, answer: Mapping[str, Any] | None) -> tuple[str, str | None]:
    """The revision in an answer, and the reason why it is none."""
    if answer is None:
        return "", "unanswered"
    if answer["finish_reason"] in {REFUSED, "content_filter"}:
        return "", "refused"
    if answer["finish_reason"] == "length":
        return "", "cut_off"
    if answer["finish_reason"] != WHOLE:
        return "", "not_a_text"
    text = scrub(answer["text"].rpartition(END_OF_THOUGHT)[2].strip())
    if not text:
        return "", "empty"
    if plain(text) == plain(original):
        return "", "unchanged"
    return text, None


def plain(text: str) -> str:
    """The words without regard to case and white space."""
    return " ".join(text.casefold().split())


def made(row: Mapping[str, Any], similarity: float) -> dict[str, Any]:
    """A request with its revision as a row of REVISION."""
    return {name: row.get(name) for name in REVISION.names} | {
        "source": TEACHER,
        "revision_id": teacher_id(row["original_id"]),
        "similarity": similarity,
    }
