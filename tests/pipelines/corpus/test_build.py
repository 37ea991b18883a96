"""Dumps to threads through real Ray: dirty dumps, real dumps, and dumps that must be refused."""

import logging
from collections import Counter
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from configs import DataError, MissingInput, Settings, UsageError
from pipelines.corpus import flow
from pipelines.corpus.build import build, read_memory
from pipelines.corpus.reader import Dump
from pipelines.corpus.schema import THREAD
from pipelines.manifest import Manifest, fingerprints, is_current
from tests.pipelines.corpus.dumps import APRIL_2021, comment, post, zst

GERMAN = "Ich weiß genau, wie du dich fühlst, und es tut mir sehr leid, dass es dir so schlecht geht."


def settings_for(folder: Path, **corpus: Any) -> Settings:
    """Settings with the output in ``folder`` and room for a few bad lines in small files."""
    return Settings(output=str(folder / "run"), corpus={"max_malformed_share": 0.2} | corpus)


def run(folder: Path, posts: Any, comments: Any, **corpus: Any) -> tuple[Manifest, list[dict[str, Any]]]:
    """The manifest and the threads."""
    output = folder / "run" / "threads"
    manifest = build(settings_for(folder, **corpus), {"posts": posts, "comments": comments}, output)
    tables = [pq.read_table(file, partitioning=None) for file in sorted(output.glob("*.parquet"))]
    assert all(table.schema.equals(THREAD) for table in tables)
    return manifest, sorted(pa.concat_tables(tables).to_pylist(), key=lambda thread: str(thread["post_id"]))


@pytest.fixture
def dirty(tmp_path: Path) -> dict[str, list[Path]]:
    """Dumps of two months with one row or two of everything that dumps contain."""
    posts = [post("p1", author="Poster"), post("p2", created_utc=str(APRIL_2021)), post("p3", over_18=True)]
    more = [post("p1", author="Poster"), post("p4", selftext="[removed]"), post("p5", subreddit="Loud")]
    march = [
        comment("a", "p1"),
        comment("b", "p1", created_utc=APRIL_2021 + 5, score="7", body="see www.example.org &amp; u/someone there"),
        comment("c", "p1", author="Poster"),
        comment("d", "p1", author="AutoModerator"),
        comment("e", "p1", body="[deleted]", author="[deleted]"),
        b"<html>502 Bad Gateway</html>",
        comment("f", "p2", stickied=True, distinguished="moderator"),
        comment("g", "p2", score=None),
        comment("h", "p2", parent_id="t1_g"),
        comment("i", "p2", body="too short"),
    ]
    april = [
        comment("j", "p2", body=GERMAN),
        comment("k", "p2"),
        comment("l", "p3"),
        comment("m", "p9"),
        comment("n", "p2", body=comment("a", "p1")["body"].upper(), created_utc=APRIL_2021 + 9999),
        comment("k", "p2"),
        {"subreddit": "Quiet", "id": "o"},
        comment("q", "p5", subreddit="Loud"),
        comment("r", "p1", created_utc="1690000000"),
        b"",
    ]
    return {
        "posts": [zst(tmp_path / "RS_1.zst", posts, window_log=28), zst(tmp_path / "RS_2.zst", more)],
        "comments": [zst(tmp_path / "RC_1.zst", march, frames=3), zst(tmp_path / "RC_2.zst", april)],
    }


def test_every_line_of_dirty_dumps_is_kept_or_counted_under_its_reason(
    ray_cluster: None, dirty: dict[str, list[Path]], tmp_path: Path
) -> None:
    manifest, threads = run(tmp_path, **dirty, subreddits=["r/quiet"], partitions=3)
    posts, comments = manifest.rows["posts"], manifest.rows["comments"]
    assert (posts.read, posts.kept) == (6, 2)
    assert posts.dropped == {"over_18": 1, "deleted": 1, "other_subreddit": 1, "same_id": 1}
    assert (comments.read, comments.kept) == (20, 3)
    assert comments.dropped == {
        "own_reply": 1, "bot": 1, "deleted": 1, "malformed": 1, "moderator": 1, "score_missing": 1,
        "not_top_level": 1, "too_short": 1, "not_english": 1, "post_dropped": 1, "post_missing": 1,
        "duplicate": 1, "same_id": 1, "incomplete": 1, "other_subreddit": 1, "frozen_month": 1, "blank": 1,
    }  # fmt: skip
    assert [(t["post_id"], [c["comment_id"] for c in t["comments"]]) for t in threads] == [
        ("p1", ["b", "a"]),
        ("p2", ["k"]),
    ]
    assert threads[0]["comments"][0]["text"] == "see [URL] & [USER] there"
    assert threads[0]["comments"][0]["score"] == 7
    quarantine = tmp_path / "run" / "threads" / "quarantine"
    bad = [orjson.loads(line) for file in quarantine.glob("*.jsonl") for line in file.read_bytes().splitlines()]
    assert {(Path(row["file"]).name, row["line"], row["reason"]) for row in bad} == {
        ("RC_1.zst", 6, "malformed"),
        ("RC_2.zst", 7, "incomplete"),
    }
    assert manifest.figures["subreddits"] == {"Quiet": {"posts": 2, "comments": 3}}
    assert manifest.figures["dates"] == {"first_post": "2021-04-01", "last_post": "2021-04-01"}
    assert sum(split["posts"] for split in manifest.figures["splits"].values()) == 2


def test_a_second_build_writes_the_same_bytes_and_is_known_as_current(
    ray_cluster: None, dirty: dict[str, list[Path]], tmp_path: Path
) -> None:
    inputs = dict(dirty)
    first, _ = run(tmp_path, **dirty)
    output = tmp_path / "run" / "threads"
    before = {path.name: path.read_bytes() for path in output.glob("*.parquet")}
    second, _ = run(tmp_path, **dirty)
    assert {path.name: path.read_bytes() for path in output.glob("*.parquet")} == before
    assert second.key == first.key
    assert is_current(output, "corpus", first.settings, fingerprints(inputs))
    assert (tmp_path / "run" / "author.key").is_file()


def test_all_communities_are_kept_where_none_is_named(
    ray_cluster: None, dirty: dict[str, list[Path]], tmp_path: Path
) -> None:
    manifest, threads = run(tmp_path, **dirty, cleaning={"drop_duplicate": False})
    assert [thread["post_id"] for thread in threads] == ["p1", "p2", "p5"]
    assert manifest.rows["posts"].dropped["same_id"] == 1
    assert manifest.rows["comments"].dropped["same_id"] == 1
    assert "duplicate" not in manifest.rows["comments"].dropped


def test_real_dumps_of_a_college_forum(ray_cluster: None, shared_data: Path, tmp_path: Path) -> None:
    folder = shared_data / "college"
    manifest, threads = run(tmp_path, [f"{folder}/RS_*.zst"], [f"{folder}/RC_*.zst"], subreddits=["CollegeAdvice"])
    assert manifest.rows["posts"].read == 3298
    assert manifest.rows["posts"].dropped["other_subreddit"] == 3298 - 818
    assert manifest.rows["comments"].read == 24_227
    assert manifest.rows["comments"].dropped["other_subreddit"] == 22_825
    assert "post_missing" not in manifest.rows["comments"].dropped
    assert manifest.rows["comments"].kept == sum(len(thread["comments"]) for thread in threads) > 600
    assert manifest.figures["usable_timestamps"]
    splits: dict[str, set[str]] = {}
    for thread in threads:
        if thread["author_hash"]:
            splits.setdefault(thread["author_hash"], set()).add(thread["split"])
    assert Counter(len(found) for found in splits.values()) == {1: len(splits)}


def test_dumps_without_an_order_of_arrival_are_recognised(ray_cluster: None, shared_data: Path, tmp_path: Path) -> None:
    folder = shared_data / "counselchat"
    manifest, _ = run(tmp_path, [f"{folder}/RS_*.zst"], [f"{folder}/RC_*.zst"])
    assert manifest.rows["posts"].read == manifest.rows["posts"].kept == 815
    assert manifest.figures["usable_timestamps"] is False
    assert "do not tell the order of arrival" in manifest.notes[0]


def refused(folder: Path, posts: Any, comments: Any, **corpus: Any) -> str:
    """The message with which the stage refuses its input; nothing may be left of the output."""
    with pytest.raises(DataError) as caught:
        run(folder, posts, comments, **corpus)
    assert type(caught.value) in {DataError, MissingInput}
    assert not list((folder / "run").glob("*threads*"))
    return str(caught.value)


def test_a_truncated_dump_is_one_message_without_a_stack_trace(
    ray_cluster: None, tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    rows = [comment(f"c{i}", "p1", body=f"{'many words ' * 9} {i * 7919}") for i in range(3000)]
    comments = zst(tmp_path / "RC_cut.zst", rows)
    size = comments.stat().st_size - 200
    comments.write_bytes(comments.read_bytes()[:size])
    with caplog.at_level(logging.ERROR):
        message = refused(tmp_path, [zst(tmp_path / "RS.zst", [post("p1")])], [comments])
    assert f"RC_cut.zst: cut off at byte {size:,}" in message
    assert "\n" not in message
    assert "Traceback" not in caplog.text + capfd.readouterr().err


def test_a_file_that_is_no_json_is_named_with_its_first_bad_line(ray_cluster: None, tmp_path: Path) -> None:
    comments = zst(tmp_path / "RC.zst", [b"not json at all"] * 30)
    message = refused(tmp_path, [zst(tmp_path / "RS.zst", [post("p1")])], [comments])
    assert "RC.zst: 30 of 30 lines" in message
    assert "the first is line 1" in message


def test_a_community_without_rows_is_named_beside_those_seen(ray_cluster: None, tmp_path: Path) -> None:
    posts = zst(tmp_path / "RS.zst", [post("p1"), post("p2", subreddit="Loud")])
    message = refused(
        tmp_path, [posts], [zst(tmp_path / "RC.zst", [comment("a", "p1")])], subreddits=["Quiet", "Quite"]
    )
    assert "no posts of Quite (corpus.subreddits)" in message
    assert "Quiet" in message
    assert "Loud" in message


def test_comments_that_all_lack_their_posts_are_refused(ray_cluster: None, tmp_path: Path) -> None:
    comments = zst(tmp_path / "RC.zst", [comment(f"c{i}", f"x{i}") for i in range(5)])
    message = refused(tmp_path, [zst(tmp_path / "RS.zst", [post("p1")])], [comments])
    assert "none of 5 comments has its post in the dumps" in message


def test_nothing_left_says_what_was_dropped(ray_cluster: None, tmp_path: Path) -> None:
    posts = zst(tmp_path / "RS.zst", [post(f"p{i}", over_18=True) for i in range(4)])
    message = refused(tmp_path, [posts], [zst(tmp_path / "RC.zst", [comment("a", "p1")])])
    way_out = "(corpus.cleaning.drop_over_18=false keeps those)"
    assert message == f"no post is left of 4 lines read; dropped: over_18 4 {way_out}"


def test_a_comment_dump_given_as_posts_is_named(ray_cluster: None, tmp_path: Path) -> None:
    comments = zst(tmp_path / "RC.zst", [comment("a", "p1")])
    message = refused(tmp_path, [comments], [zst(tmp_path / "RC2.zst", [comment("b", "p1")])])
    assert "RC.zst: line 1 is a comment" in message
    assert "corpus.posts" in message


def test_missing_files_empty_globs_and_one_file_as_both_are_refused_before_ray_starts(tmp_path: Path) -> None:
    posts = zst(tmp_path / "RS.zst", [post("p1")])
    assert "RC_9.zst: no such file" in refused(tmp_path, [posts], [tmp_path / "RC_9.zst"])
    assert "RC_*.zst: the glob matches no file" in refused(tmp_path, [posts], [f"{tmp_path}/RC_*.zst"])
    assert "given under corpus.posts and corpus.comments" in refused(tmp_path, [posts], [f"{tmp_path}/R*.zst"])
    with pytest.raises(UsageError, match=r"corpus\.posts names no dump files"):
        build(settings_for(tmp_path), {"posts": [], "comments": [posts]}, tmp_path / "run" / "threads")


def test_memory_is_asked_for_long_windows_only_and_never_more_than_a_node_has(
    ray_cluster: None, tmp_path: Path
) -> None:
    long = Dump("comment", str(zst(tmp_path / "RC.zst", [comment("a", "p1")], window_log=28)))
    short = Dump("post", str(zst(tmp_path / "RS.zst", [post("p1")])))
    assert read_memory(settings_for(tmp_path).corpus, [short]) is None
    assert read_memory(settings_for(tmp_path, reader_memory_gb=0.5).corpus, [short, long]) == 0.5e9
    asked = read_memory(settings_for(tmp_path, reader_memory_gb=1e6).corpus, [long])
    assert asked is not None
    assert 0 < asked < 1e15


def test_tasks_with_more_rows_than_a_node_has_memory_still_run_one_after_the_other(ray_cluster: None) -> None:
    groups = [range(0, 1), range(1, 3)]
    dataset = flow.each(groups, 1 << 40, lambda group: pa.table({"kind": ["k"], "name": ["n"], "count": [len(group)]}))
    assert sorted(row["count"] for row in dataset.take_all()) == [1, 2]
