"""Which answers of a teacher are revisions, and the rows that are made of revisions."""

from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import settings as limits
from hypothesis import strategies as st

from configs.retrieval import EmbedderSettings
from pipelines.corpus.notes import Notes
from pipelines.pairs.im.judging import judge
from pipelines.pairs.im.rows import pair_table, sft_table
from pipelines.pairs.im.schema import REQUEST, REVISION
from pipelines.pairs.schema import PAIR, SFT
from pipelines.retrieval.embed import load
from pipelines.retrieval.examples import Retrieved
from tests.pipelines.pairs.im.making import about, table, thread

ENCODE = load(EmbedderSettings(dimensions=256)).encode
DRAFT = about(0, "draft")


def judged(answers: list[dict[str, Any] | None], floor: float = 0.3) -> tuple[list[dict[str, Any]], dict[Any, int]]:
    """Revisions among the answers to requests for one draft, and how each request ended."""
    requests = [
        {"key": f"k{i}", "post_id": "p", "split": "train", "original_id": f"c{i}", "original": DRAFT}
        for i in range(len(answers))
    ]
    notes = Notes()
    given = {f"k{i}": answer for i, answer in enumerate(answers) if answer is not None}
    found = judge(pa.Table.from_pylist(requests, schema=REQUEST), given, ENCODE, floor, notes)
    return found.to_pylist(), {name: n for (kind, name), n in notes.entries.items() if kind == "drafts"}


def answer(text: str, reason: str = "stop") -> dict[str, Any]:
    return {"text": text, "finish_reason": reason}


@pytest.mark.parametrize(
    ("given", "end"),
    [
        (None, "unanswered"),
        (answer("", "refused"), "refused"),
        (answer("", "content_filter"), "refused"),
        (answer(DRAFT + " and then", "length"), "cut_off"),
        (answer("", "tool_calls"), "not_a_text"),
        (answer(" \n"), "empty"),
        (answer("<think>" + DRAFT + "</think>"), "empty"),
        (answer(f"  {DRAFT.upper()}\n"), "unchanged"),
        (answer("Lighthouse, violin and marmalade."), "content_lost"),
    ],
)
def test_what_is_no_revision_is_dropped_under_its_name(given, end):
    assert judged([given]) == ([], {end: 1})


def test_a_revision_is_scrubbed_freed_of_thoughts_and_named_after_its_original():
    (row,), ends = judged([answer(f"<think>hm</think>\n{DRAFT}. Write to helper@example.org today.")])
    assert row["text"] == f"{DRAFT}. Write to [EMAIL] today."
    assert (row["source"], row["revision_id"], row["original_id"]) == ("teacher", "teacher:c0", "c0")
    assert 0.3 < row["similarity"] < 1
    assert ends == {None: 1}


ANSWERS = st.one_of(
    st.none(),
    st.builds(
        answer,
        st.sampled_from(["", DRAFT, DRAFT + " kindly", "something else altogether", "</think> " + DRAFT + " now"]),
        st.sampled_from(["stop", "length", "refused", "content_filter"]),
    ),
)


@limits(deadline=None)
@given(st.lists(ANSWERS, max_size=12), st.sampled_from([-1.0, 0.3, 0.9]))
def test_every_request_is_a_revision_or_counted_under_a_reason(answers, floor):
    found, ends = judged(answers, floor)
    assert sum(ends.values()) == len(answers)
    assert ends.get(None, 0) == len(found)
    for row in found:
        assert row["similarity"] >= floor
        assert row["text"] and row["text"] != DRAFT


def rows_of(made: list[dict[str, Any]]) -> pa.Table:
    return pa.Table.from_pylist(made, schema=REVISION)


THREADS = table(
    thread("q", [(1, 1, "other")]),
    thread("p", [(2, 10, "first"), (3, 20, "second"), (9, 30, "third")], split="test"),
)
COMMUNITY = {"post_id": "p", "split": "test", "source": "community", "original_id": "pc0", "revision_id": "pc2"}
TAUGHT = {**COMMUNITY, "source": "teacher", "revision_id": "teacher:pc0", "text": "first, but kinder"}


def said(row: dict[str, Any], name: str) -> str:
    (turn,) = row[name]
    assert turn["role"] == "assistant"
    return str(turn["content"])


def test_im_learns_to_turn_the_draft_into_its_revision():
    first, second = sft_table(THREADS, rows_of([COMMUNITY, TAUGHT]), "im").to_pylist()
    for row in (first, second):
        assert "<draft>\nfirst\n</draft>" in row["prompt"][0]["content"]
        assert "Title p\n\nWhat p worries about." in row["prompt"][0]["content"]
        assert (row["post_id"], row["original_id"], row["split"]) == ("p", "pc0", "test")
    assert (said(first, "completion"), first["comment_id"], first["score"], first["created_utc"]) == (
        "third",
        "pc2",
        9,
        30,
    )
    assert (said(second, "completion"), second["comment_id"], second["score"], second["created_utc"]) == (
        "first, but kinder",
        "teacher:pc0",
        None,
        None,
    )


def test_a_pair_rejects_the_draft_or_the_worse_reply_that_was_found():
    made = [COMMUNITY, {**COMMUNITY, "worse_id": "pc1"}, TAUGHT, {**TAUGHT, "worse_id": "pc1"}]
    rows = pair_table(THREADS, rows_of(made), "im", "matched").to_pylist()
    assert [said(row, "chosen") for row in rows] == ["third"] * 2 + ["first, but kinder"] * 2
    assert [said(row, "rejected") for row in rows] == ["first", "second"] * 2
    assert [row["rejected_id"] for row in rows] == ["pc0", "pc1"] * 2
    assert [row["original_id"] for row in rows] == ["pc0"] * 4
    assert [row["rule"] for row in rows] == ["matched"] * 2 + ["teacher"] * 2
    assert [row["chosen_score"] for row in rows] == [9, 9, None, None]
    assert [row["rejected_score"] for row in rows] == [2, 3, 2, 3]
    assert [row["rejected_created_utc"] for row in rows] == [10, 20, 10, 20]


def test_rows_name_what_was_retrieved_into_their_prompt():
    shown = [Retrieved([], []), Retrieved([{"post": "like", "reply": "kind"}], ["e1"])]
    for make, schema in ((sft_table, SFT), (lambda *a: pair_table(a[0], a[1], a[2], "shp", a[3]), PAIR)):
        (row,) = make(THREADS, rows_of([COMMUNITY]), "im", shown).cast(schema).to_pylist()
        assert "<comment>kind</comment>" in row["prompt"][0]["content"]
        assert row["example_ids"] == ["e1"]


def test_no_revisions_give_empty_rows_of_the_same_columns():
    assert sft_table(THREADS, REVISION.empty_table(), "im").cast(SFT).num_rows == 0
    assert pair_table(THREADS, REVISION.empty_table(), "im", "shp").cast(PAIR).num_rows == 0
