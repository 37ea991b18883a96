"""SFT rows and pairs of single threads."""

from typing import Any

import pyarrow as pa
import pytest

from configs import DataError, Settings
from pipelines.corpus.notes import Notes
from pipelines.manifest import writing
from pipelines.pairs import build as pairs
from pipelines.pairs import sft
from pipelines.pairs.old_rows import timing_notes
from pipelines.pairs.schema import PAIR, SFT


def thread(*votes: tuple[int, int], score: int = 20) -> dict[str, Any]:
    """A thread whose replies have the given (score, time); reply i says ``reply i``."""
    return {
        "post_id": "p",
        "title": "A title",
        "text": "What I worry about.",
        "score": score,
        "split": "test",
        "comments": [
            {"comment_id": f"c{i}", "text": f"reply {i}", "score": votes[i][0], "created_utc": votes[i][1]}
            for i in range(len(votes))
        ],
    }


def made(stage: Any, made_of: dict[str, Any], **changes: Any) -> tuple[dict[str, list[dict[str, Any]]], Notes]:
    """The rows of one thread by model, and the notes."""
    rows: dict[str, list[dict[str, Any]]] = {"gm": [], "im": []}
    notes = Notes()
    for model, row in stage.rows_of(made_of, Settings(output="x", **changes), notes):
        rows[model].append(row)
    return rows, notes


def texts(messages: list[dict[str, str]]) -> list[tuple[str, str]]:
    return [(message["role"], message["content"]) for message in messages]


def test_gm_learns_from_the_best_replies_that_have_votes_enough() -> None:
    rows, notes = made(sft, thread((1, 1), (5, 2), (9, 3), (3, 4)), sft={"max_per_post": 2})
    assert [row["comment_id"] for row in rows["gm"]] == ["c2", "c1"]
    assert texts(rows["gm"][0]["completion"]) == [("assistant", "reply 2")]
    assert [role for role, _ in texts(rows["gm"][0]["prompt"])] == ["user"]
    assert "A title\n\nWhat I worry about." in rows["gm"][0]["prompt"][0]["content"]
    assert rows["gm"][0]["original_id"] is None
    assert {name: n for (kind, name), n in notes.entries.items() if kind == "gm"} == {
        None: 2,
        "over_post_cap": 1,
        "score_too_low": 1,
    }


def test_im_learns_to_turn_the_less_liked_reply_into_the_more_liked_one() -> None:
    rows, _ = made(sft, thread((2, 1), (8, 2)))
    (row,) = rows["im"]
    assert "<draft>\nreply 0\n</draft>" in row["prompt"][0]["content"]
    assert texts(row["completion"]) == [("assistant", "reply 1")]
    assert (row["original_id"], row["comment_id"], row["score"], row["created_utc"]) == ("c0", "c1", 8, 2)


def test_a_gm_pair_carries_both_replies_and_their_votes() -> None:
    rows, _ = made(pairs, thread((2, 1), (8, 2)))
    (row,) = rows["gm"]
    assert (texts(row["chosen"]), texts(row["rejected"])) == ([("assistant", "reply 1")], [("assistant", "reply 0")])
    assert (row["chosen_score"], row["rejected_score"]) == (8, 2)
    assert (row["chosen_created_utc"], row["rejected_created_utc"]) == (2, 1)
    assert (row["rule"], row["split"]) == ("shp", "test")


def test_an_im_pair_rejects_another_worse_reply_than_the_draft() -> None:
    rows, _ = made(pairs, thread((3, 1), (2, 2), (8, 3)), pairs={"max_per_post": 1})
    (row,) = rows["im"]
    assert "<draft>\nreply 1\n</draft>" in row["prompt"][0]["content"]
    assert (row["chosen_id"], row["rejected_id"]) == ("c2", "c0")


def test_an_im_pair_rejects_the_draft_itself_where_no_other_reply_is_worse_by_the_rule() -> None:
    rows, notes = made(pairs, thread((2, 1), (8, 3), (3, 5)))
    (row,) = rows["im"]
    assert (row["chosen_id"], row["rejected_id"]) == ("c1", "c0")
    assert texts(row["rejected"]) == [("assistant", "reply 0")]
    assert notes.entries["im:test", "rejected_is_draft"] == 1


@pytest.mark.parametrize(
    ("made_of", "end"),
    [
        (thread((2, 1), (8, 2)), None),
        (thread((2, 1), (8, 2), score=3), "post_score_too_low"),
        (thread((2, 1)), "too_few_replies"),
        (thread(), "too_few_replies"),
        (thread((8, 1), (2, 2)), "no_pair"),
    ],
)
def test_each_thread_is_counted_once(made_of: dict[str, Any], end: str | None) -> None:
    _, notes = made(pairs, made_of, pairs={"min_post_score": 10})
    assert {name: n for (kind, name), n in notes.entries.items() if kind == "threads"} == {end: 1}


def test_both_rules_are_measured_on_the_same_threads() -> None:
    _, notes = made(pairs, thread((8, 1), (2, 2)))
    assert notes.entries["rule:naive", "pairs"] == notes.entries["rule:naive", "earlier"] == 1
    assert notes.entries["rule:shp", "pairs"] == 0


def test_rows_fit_their_schemas() -> None:
    votes = thread((2, 1), (8, 2), (20, 3))
    for stage, schema in ((sft, SFT), (pairs, PAIR)):
        for rows in made(stage, votes)[0].values():
            table = pa.Table.from_pylist(rows, schema=schema)
            assert table.num_rows > 0
            assert set(rows[0]) == set(schema.names)


def test_the_timing_rule_needs_timestamps_that_tell_the_order(tmp_path) -> None:
    threads = tmp_path / "threads"
    with writing(threads, stage="corpus", settings={}, inputs={}) as draft:
        draft.figures["usable_timestamps"] = False
    with pytest.raises(DataError, match=r"set pairs\.timing=false"):
        timing_notes(threads, Settings(output="x").pairs)
    (note,) = timing_notes(threads, Settings(output="x", pairs={"timing": False}).pairs)
    assert "timing rule is off" in note
    assert "dumps do not tell" in note


def test_a_prompt_of_other_words_is_another_output(tmp_path) -> None:
    template = tmp_path / "gm.md"
    template.write_text("Answer: {{ post }}")
    plain, other = Settings(output="x"), Settings(output="x", prompts={"gm": str(template)})
    for stage in (sft, pairs):
        assert stage.depends(plain) != stage.depends(other)
        first = stage.depends(other)
        assert first == stage.depends(other)
