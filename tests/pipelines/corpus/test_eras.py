"""Posts and comments as the public dumps spelled them from 2005 to 2026, each read from either kind of file."""

from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pytest

from pipelines.corpus.reader import PROBE, Dump, ReadOptions, read_dump
from tests.pipelines.corpus.dumps import zst

Fields = dict[str, Any]

COMMENTS: dict[str, tuple[Fields, Fields]] = {
    "2005-12: time as a string, ups and downs, no score": (
        {
            **{"id": "c13", "name": "t1_c13", "link_id": "t3_17863", "parent_id": "t3_17863", "author": "frjo"},
            **{"subreddit": "Reddit.com", "subreddit_id": "t5_6", "created_utc": "1134365188", "ups": 2, "downs": 0},
            **{"body": "A look at it", "edited": False, "distinguished": None, "score_hidden": False},
            **{"archived": True, "gilded": 0, "controversiality": 0, "retrieved_on": 1473738411},
        },
        {"id": "c13", "post_id": "17863", "created_utc": 1134365188, "score": 2, "edited": False, "settled": None},
    ),
    "2009: edited is true without a time": (
        {
            **{"id": "c0b6xx0", "link_id": "t3_92dd8", "parent_id": "t1_c0b6xw9", "author": "[deleted]", "score": -3},
            **{"subreddit": "reddit.com", "created_utc": 1247932861, "body": "a &lt; b &amp;amp; c", "edited": True},
        },
        {"author": None, "parent_id": "t1_c0b6xw9", "text": "a < b & c", "score": -3, "edited": True},
    ),
    "2013: edited is a float, the score may be hidden": (
        {
            **{"id": "c8aaaaa", "link_id": "t3_1bbbbb", "parent_id": "t3_1bbbbb", "author": "x", "score": 1, "ups": 1},
            **{"subreddit": "reddit.com", "created_utc": "1362096000", "body": "Well.\r\nYes.", "edited": 1362096999.0},
            **{"score_hidden": True, "author_flair_text": None, "distinguished": "moderator"},
        },
        {"text": "Well.\nYes.", "edited": True, "score_hidden": True, "distinguished": True},
    ),
    "2017-10: the score is null": (
        {
            **{"id": "dnqik14", "link_id": "t3_73ieyz", "parent_id": "t3_73ieyz", "author": "x", "score": None},
            **{"subreddit": "reddit.com", "created_utc": 1506816000, "body": "Yes.", "can_gild": True, "edited": False},
        },
        {"score": None, "created_utc": 1506816000},
    ),
    "2018: the author's full name, is_submitter, stickied": (
        {
            **{"id": "e0aaaaa", "link_id": "t3_8nnnnn", "parent_id": "t3_8nnnnn", "author": "x", "score": 7},
            **{"author_fullname": "t2_abcde", "is_submitter": True, "stickied": True, "created_utc": 1527811200},
            **{"subreddit": "reddit.com", "body": "Yes.", "permalink": "/r/reddit.com/comments/8nnnnn/_/e0aaaaa/"},
        },
        {"stickied": True, "score": 7},
    ),
    "2020: awards, flair as lists, treatment tags": (
        {
            **{"id": "fxxxxxx", "link_id": "t3_hhhhhh", "parent_id": "t3_hhhhhh", "author": "x", "score": 15},
            **{"all_awardings": [{"name": "Silver", "count": 1}], "author_flair_richtext": [{"e": "text", "t": "a"}]},
            **{"subreddit": "reddit.com", "created_utc": 1593561600, "body": "Yes \u2019 \u200b", "edited": 1593561999},
            **{"gildings": {"gid_1": 1}, "treatment_tags": [], "collapsed_because_crowd_control": None},
        },
        {"text": "Yes \u2019", "edited": True, "score": 15},
    ),
    "2022: time as a float": (
        {
            **{"id": "iiiiiii", "link_id": "t3_wwwwww", "parent_id": "t3_wwwwww", "author": "x", "score": 4},
            **{
                "subreddit": "reddit.com",
                "created_utc": 1660000000.0,
                "body": "[removed]",
                "retrieved_utc": 1660000015,
            },
        },
        {"created_utc": 1660000000, "removed": True},
    ),
    "2023-11: seen twice, by the archive's own field": (
        {
            **{"id": "k7aaaaa", "link_id": "t3_17kkkkk", "parent_id": "t3_17kkkkk", "author": "x", "score": 9},
            **{"subreddit": "reddit.com", "created_utc": 1698796800, "body": "Yes.", "retrieved_on": 1698796816},
            **{"_meta": {"retrieved_2nd_on": 1698926416}},
        },
        {"settled": True, "score": 9},
    ),
    "2026: seen once": (
        {
            **{"id": "o1aaaaa", "link_id": "t3_1qqqqqq", "parent_id": "t3_1qqqqqq", "author": "x", "score": 1},
            **{"subreddit": "reddit.com", "created_utc": 1767225600, "body": "[ Removed by Reddit ]", "edited": False},
            **{"_meta": {"note": "no second look"}, "subreddit_name_prefixed": "r/reddit.com", "approved": None},
        },
        {"settled": False, "removed": True},
    ),
}
POSTS: dict[str, tuple[Fields, Fields]] = {
    "2005-06: links only, no selftext, no is_self": (
        {
            **{"id": "87", "author": "kn0thing", "title": "The Downing Street Memo", "score": 3, "ups": 3, "downs": 0},
            **{"subreddit": "reddit.com", "created_utc": "1119537609", "url": "http://example.org/", "num_comments": 0},
            **{"domain": "example.org", "over_18": False, "edited": False, "permalink": "/comments/87/a/"},
        },
        {"id": "87", "post_id": "87", "text": "", "is_self": None, "created_utc": 1119537609, "removed": False},
    ),
    "2010: self-posts": (
        {
            **{
                "id": "aaaaa",
                "author": "x",
                "title": "I &amp; you",
                "selftext": "Long text",
                "is_self": True,
                "score": 0,
            },
            **{"subreddit": "reddit.com", "created_utc": "1262304000", "edited": "false", "over_18": "True"},
        },
        {"title": "I & you", "text": "Long text", "is_self": True, "over_18": True, "edited": False, "score": 0},
    ),
    "2014: only ups": (
        {
            **{
                "id": "1uaaaa",
                "author": "[deleted]",
                "title": "T",
                "selftext": "[deleted]",
                "is_self": True,
                "ups": 55,
            },
            **{"subreddit": "reddit.com", "created_utc": 1388534400, "edited": 1388534999.0, "stickied": False},
        },
        {"score": 55, "author": None, "removed": True, "text": "", "edited": True},
    ),
    "2017: contest mode, stickied": (
        {
            **{"id": "5laaaa", "author": "x", "title": "T", "selftext": "Text", "is_self": True, "score": 1},
            **{"subreddit": "reddit.com", "created_utc": 1483228800, "contest_mode": True, "stickied": True},
            **{"distinguished": "moderator", "brand_safe": True, "view_count": None, "suggested_sort": "new"},
        },
        {"contest_mode": True, "stickied": True, "distinguished": True},
    ),
    "2018: cross-posts": (
        {
            **{"id": "7naaaa", "author": "x", "title": "T", "selftext": "", "is_self": False, "score": 12},
            **{"subreddit": "reddit.com", "created_utc": 1514764800, "crosspost_parent": "t3_7mzzzz"},
            **{"crosspost_parent_list": [{"id": "7mzzzz", "subreddit": "elsewhere", "title": "T"}]},
        },
        {"crosspost": True, "is_self": False},
    ),
    "2019-09: upvote_ratio and who removed it": (
        {
            **{"id": "cyaaaa", "author": "x", "title": "T", "selftext": "Text", "is_self": True, "score": 2},
            **{"subreddit": "reddit.com", "created_utc": 1567296000, "upvote_ratio": 0.75},
            **{"removed_by_category": "moderator", "media_metadata": {"a": {"status": "valid"}}},
        },
        {"removed": True, "text": "Text"},
    ),
    "2023-11 and later: ids with prefix, time in milliseconds, seen twice": (
        {
            **{"id": "t3_17laaaa", "name": "t3_17laaaa", "author": "x", "title": "T", "selftext": "Text"},
            **{"is_self": True, "score": "31", "subreddit": "reddit.com", "created_utc": 1698796800000},
            **{"_meta": {"retrieved_2nd_on": 1698926416}, "poll_data": None, "gallery_data": None},
        },
        {"id": "17laaaa", "score": 31, "created_utc": 1698796800, "settled": True},
    ),
}


def cases() -> list[Any]:
    """Each era of each kind, read whole and searched."""
    eras = [("comment", name, *case) for name, case in COMMENTS.items()]
    eras += [("post", name, *case) for name, case in POSTS.items()]
    return [
        pytest.param(kind, record, expected, community, id=f"{kind}, {name}, {community or 'all'}")
        for kind, name, record, expected in eras
        for community in (None, "reddit.com")
    ]


@pytest.mark.parametrize(("kind", "record", "expected", "community"), cases())
def test_a_row_of_every_era_is_read(
    tmp_path: Path, kind: str, record: Fields, expected: Fields, community: str | None
) -> None:
    rows: list[Fields] = [record]
    if community:
        rows = [record | {"subreddit": "elsewhere"}] * PROBE + [record]
    options = ReadOptions(frozenset({community} if community else ()), max_malformed_share=0.0)
    table = pa.concat_tables(read_dump(Dump(kind, str(zst(tmp_path / "dump.zst", rows))), options))
    (row,) = (row for row in table.to_pylist() if row["kind"] == kind and row["dropped"] is None)
    assert {name: row[name] for name in expected} == expected
    assert row["subreddit"] == record["subreddit"]


def test_all_eras_in_one_file_keep_every_value(tmp_path: Path) -> None:
    records = [record for record, _ in COMMENTS.values()]
    path = zst(tmp_path / "RC.zst", records)
    table = pa.concat_tables(read_dump(Dump("comment", str(path)), ReadOptions(frozenset(), 0.0)))
    rows = [row for row in table.to_pylist() if row["kind"] == "comment"]
    assert [row["id"] for row in rows] == [record["id"] for record in records]
    for row, (_, expected) in zip(rows, COMMENTS.values(), strict=True):
        assert {name: row[name] for name in expected} == expected


def test_lines_keep_their_order_of_fields_and_escapes(tmp_path: Path) -> None:
    record, _ = COMMENTS["2018: the author's full name, is_submitter, stickied"]
    other_way = orjson.dumps(dict(reversed(record.items()))).replace(b"/", rb"\/")
    rows = [record | {"subreddit": "elsewhere"}] * PROBE + [other_way]
    options = ReadOptions(frozenset({"reddit.com"}), 0.0)
    table = pa.concat_tables(read_dump(Dump("comment", str(zst(tmp_path / "RC.zst", rows))), options))
    assert table.filter(pa.compute.equal(table["id"], "e0aaaaa")).num_rows == 1
