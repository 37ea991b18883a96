"""Duplicates, the join, the cap and the split, without Ray."""

from collections import Counter
from typing import Any

import pyarrow as pa
import pytest

from configs.corpus import CleaningSettings, CorpusSettings, SplitSettings
from pipelines.corpus import fields
from pipelines.corpus.cleaning import clean
from pipelines.corpus.duplicates import keys, verdicts
from pipelines.corpus.reader import table_of
from pipelines.corpus.schema import NOTE, ROW, THREAD
from pipelines.corpus.threads import split_of, thread
from tests.pipelines.corpus.dumps import APRIL_2021, comment, post

SECRET = b"k" * 32


def rows(*records: dict[str, Any]) -> pa.Table:
    """Cleaned rows."""
    convert = [fields.post(r) if "title" in r else fields.comment(r) for r in records]
    return clean(table_of(convert), CleaningSettings())


def judged(table: pa.Table) -> pa.Table:
    """Rows and the verdicts on them, as a partition by post holds them."""
    cleaning = CleaningSettings()
    return pa.concat_tables([table, verdicts(keys(table, cleaning), cleaning)])


def threads(table: pa.Table, **settings: Any) -> tuple[list[dict[str, Any]], dict[str, Counter[str | None]]]:
    """The threads and the notes."""
    out, noted = thread(judged(table), CorpusSettings(**settings), SECRET)
    assert out.schema.equals(THREAD)
    assert noted.table().schema.equals(NOTE)
    notes: dict[str, Counter[str | None]] = {}
    for (kind, name), count in noted.entries.items():
        notes.setdefault(kind, Counter())[name] += count
    return out.to_pylist(), notes


def test_comments_stand_under_their_post_in_order_of_arrival() -> None:
    late, early = comment("a", "p1", created_utc=APRIL_2021 + 90), comment("b", "p1", created_utc=APRIL_2021 + 10)
    same = comment("c", "p1", created_utc=APRIL_2021 + 90)
    got, notes = threads(rows(post("p2"), same, late, post("p1"), early, comment("d", "p2")))
    assert [(t["post_id"], [c["comment_id"] for c in t["comments"]]) for t in got] == [
        ("p1", ["b", "a", "c"]),
        ("p2", ["d"]),
    ]
    assert (notes["post"], notes["comment"]) == ({None: 2}, {None: 4})


def test_a_post_without_comments_is_still_a_thread() -> None:
    got, notes = threads(rows(post("p1")))
    assert got[0]["comments"] == []
    assert "threads" not in notes
    _, notes = threads(rows(post("p1"), comment("a", "p1")))
    assert notes["threads"] == {"with_comments": 1}


def test_a_comment_whose_post_is_nowhere_is_told_from_one_whose_post_was_dropped() -> None:
    table = rows(post("p1"), post("p2", over_18=True), comment("a", "p1"), comment("b", "p2"), comment("c", "p3"))
    notes = threads(table)[1]
    assert notes["comment"] == {None: 1, "post_dropped": 1, "post_missing": 1}
    assert notes["post"] == {None: 1, "over_18": 1}


def test_the_posters_own_replies_are_dropped_but_not_those_under_a_deleted_account() -> None:
    table = rows(
        post("p1", author="Me"), comment("a", "p1", author="Me"), comment("b", "p1"),
        post("p2", author="[deleted]"), comment("c", "p2"),
    )  # fmt: skip
    assert threads(table)[1]["comment"] == {None: 2, "own_reply": 1}


def test_a_row_in_two_dumps_is_kept_once() -> None:
    table = rows(
        post("p1"), comment("a", "p1", score=1), comment("a", "p1", score=9, body="the later reading of it all")
    )
    got, notes = threads(table)
    assert [c["score"] for c in got[0]["comments"]] == [9]
    assert notes["comment"] == {None: 1, "same_id": 1}


def test_the_cap_is_blind_to_score_and_arrival_and_to_the_order_of_rows() -> None:
    replies = [comment(f"c{i:03}", "p1", created_utc=APRIL_2021 + i, score=i) for i in range(200)]
    chosen = []
    for order in (replies, replies[::-1]):
        got, notes = threads(rows(post("p1"), *order), max_comments_per_post=50)
        assert notes["comment"] == {None: 50, "over_cap": 150}
        chosen.append([c["score"] for c in got[0]["comments"]])
    assert chosen[0] == chosen[1]
    assert 60 < sum(chosen[0]) / 50 < 140


def test_the_earliest_of_equal_texts_stays_whatever_the_order() -> None:
    first = comment("z", "p1", body="You are not alone in this.", created_utc=APRIL_2021 + 1)
    second = comment("a", "p2", body="you are NOT alone in this", created_utc=APRIL_2021 + 2)
    for order in ((first, second), (second, first)):
        got, notes = threads(rows(post("p1"), post("p2"), *order))
        assert [[c["comment_id"] for c in t["comments"]] for t in got] == [["z"], []]
        assert notes["comment"] == {None: 1, "duplicate": 1}


def test_a_post_with_the_title_and_text_of_another_is_a_duplicate_and_known_as_dropped() -> None:
    copy = post("p2", title=post("p1")["title"], selftext=post("p1")["selftext"], created_utc=APRIL_2021 + 5)
    table = rows(post("p1"), copy, comment("a", "p2"), comment("b", "p1"))
    assert threads(table)[1]["comment"] == {None: 1, "post_dropped": 1}


def test_an_empty_partition_gives_nothing() -> None:
    assert threads(ROW.empty_table()) == ([], {})


def test_texts_are_scrubbed_and_authors_hashed() -> None:
    row = comment("a", "p1", body="ask u/somebody or write to a@example.org about it", author="Helper")
    got, _ = threads(rows(post("p1", title="see www.example.org for what I mean"), row))
    assert got[0]["title"] == "see [URL] for what I mean"
    assert got[0]["comments"][0]["text"] == "ask [USER] or write to [EMAIL] about it"
    assert "Helper" not in str(got)
    assert len(got[0]["comments"][0]["author_hash"]) == 32


def test_shared_timestamps_are_counted() -> None:
    same = [comment(f"c{i}", "p1") for i in range(3)]
    apart = [comment(f"d{i}", "p2", created_utc=APRIL_2021 + i) for i in range(2)]
    _, notes = threads(rows(post("p1"), post("p2"), post("p3"), *same, *apart, comment("e", "p3")))
    assert notes["times"] == {"shared": 3, "all": 5}


def test_everything_an_author_posted_lies_in_one_split_of_about_the_asked_size() -> None:
    split = SplitSettings(train=0.8, validation=0.1, test=0.1)
    sizes = Counter(split_of(f"author{i}", split) for i in range(20_000))
    assert sizes["train"] / 20_000 == pytest.approx(0.8, abs=0.01)
    assert sizes["test"] / 20_000 == pytest.approx(0.1, abs=0.01)
    assert split_of("Author7", split) == split_of("author7", split)
    both = threads(rows(post("p1", author="A"), post("p2", author="a"), post("p3", author="[deleted]")))[0]
    assert both[0]["split"] == both[1]["split"]
    assert both[2]["split"] == split_of("p3", SplitSettings())
