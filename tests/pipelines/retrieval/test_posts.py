"""Which posts may be found, and with which replies."""

from collections import Counter

import pyarrow.compute as pc
import pytest

from pipelines.retrieval.posts import posts, shortened
from pipelines.retrieval.schema import POST_OR_NOTE
from tests.pipelines.retrieval.making import reply, settings_for, table, thread


def outcome(*threads, **changes):
    """Rows by post id, and the notes by kind."""
    out = posts(table(*threads), settings_for(**changes))
    assert out.schema.equals(POST_OR_NOTE)
    rows = {row["post_id"]: row for row in out.filter(pc.is_null(out["kind"])).to_pylist()}
    notes = {}
    for row in out.filter(pc.is_valid(out["kind"])).to_pylist():
        notes.setdefault(row["kind"], Counter())[row["name"]] += row["count"]
    return rows, notes


def test_the_best_replies_are_kept_in_order_of_score_then_id():
    replies = [reply(f"c{i}", score=score) for i, score in enumerate((3, 9, 9, 4, 2))]
    rows, notes = outcome(thread("p", "some post", replies), replies_per_post=3)
    assert [(r["comment_id"], r["score"]) for r in rows["p"]["replies"]] == [("c1", 9), ("c2", 9), ("c3", 4)]
    assert notes["replies"] == {None: 3, "over_post_cap": 1, "score_too_low": 1}


def test_a_reply_too_long_by_the_poster_or_without_a_score_is_not_kept():
    replies = [
        reply("long", "word " * 151),
        reply("own", author_hash="author-p"),
        reply("scoreless", score=None),
        reply("fits", "word " * 150),
        reply("nobody", author_hash=None),
    ]
    rows, notes = outcome(thread("p", "some post", replies), thread("q", "other", [reply("x")], author_hash=None))
    assert {r["comment_id"] for r in rows["p"]["replies"]} == {"fits", "nobody"}
    assert [r["comment_id"] for r in rows["q"]["replies"]] == ["x"]
    assert notes["replies"] == {None: 3, "too_long": 1, "own_reply": 1, "score_too_low": 1}


@pytest.mark.parametrize("split", ["validation", "test"])
def test_a_post_outside_the_training_split_leaves_without_words_or_replies(split):
    rows, notes = outcome(thread("in", "one post"), thread("out", "another post", split=split))
    assert rows["in"]["post"] == "one post"
    assert rows["out"]["post"] is None and rows["out"]["replies"] is None
    assert notes["entries"] == {None: 1, "not_training": 1}
    assert notes["replies"] == {None: 1, "not_training": 1}


def test_posts_that_only_ask_are_left_out_where_no_prompt_takes_examples():
    threads = [thread("in", "one post"), thread("out", "another post", split="test"), thread("bare", "a third", [])]
    assert set(outcome(*threads)[0]) == {"in", "out", "bare"}
    assert set(outcome(*threads, examples=0, index=True)[0]) == {"in"}


def test_every_post_and_every_reply_is_accounted_for():
    threads = [
        thread("a", "one", [reply("a1"), reply("a2", score=0)]),
        thread("b", "two", []),
        thread("c", "three", [reply("c1", score=1)]),
        thread("d", "four", [reply("d1"), reply("d2")], split="test"),
    ]
    _, notes = outcome(*threads)
    assert notes["entries"] == {None: 1, "no_reply": 1, "no_well_received_reply": 1, "not_training": 1}
    assert notes["replies"].total() == 5


def test_no_comment_anywhere_is_no_trouble():
    rows, notes = outcome(thread("a", "one", []), thread("b", "two", []))
    assert set(rows) == {"a", "b"} and notes["entries"] == {"no_reply": 2} and "replies" not in notes


def test_equal_texts_have_equal_keys_and_others_do_not():
    rows, _ = outcome(thread("a", "same words"), thread("b", "same words"), thread("c", "words", title="same"))
    assert rows["a"]["text_key"] == rows["b"]["text_key"] != rows["c"]["text_key"]


def test_a_long_post_is_shown_by_its_first_words():
    assert shortened("one two\nthree  four", 3) == "one two\nthree …"
    assert shortened("one two\nthree ", 3) == "one two\nthree "
    assert shortened("", 3) == "" and shortened("one", 1) == "one"
    rows, _ = outcome(thread("p", "word " * 300), max_post_words=20)
    assert rows["p"]["post"].split() == ["word"] * 20 + ["…"]
    assert rows["p"]["text"].split() == ["word"] * 300
