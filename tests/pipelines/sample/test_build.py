"""The sample as files: real dumps with real dirt, the same each time, counted."""

import time
from collections import Counter
from pathlib import Path

import orjson
import pyarrow.parquet as pq
import pytest
import zstandard

from configs.corpus import CleaningSettings, SampleSettings
from pipelines.manifest import Manifest
from pipelines.sample.build import TRUTH, build
from pipelines.sample.community import OTHER_SUBREDDIT, SUBREDDIT
from pipelines.sample.language import FOREIGN

SAMPLE = SampleSettings(threads=300, seed=7)


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Manifest]:
    """A sample of 300 threads and its manifest."""
    folder = tmp_path_factory.mktemp("sample") / "out"
    return folder, build(SAMPLE, folder)


def text_of(path: Path) -> bytes:
    """The file decoded with the window that it needs."""
    with path.open("rb") as file:
        return zstandard.ZstdDecompressor(max_window_size=2**31).stream_reader(file).read()


def lines(folder: Path, prefix: str) -> tuple[list[dict], int]:
    """The rows of all files of a kind, and the number of lines that are no JSON."""
    rows, malformed = [], 0
    for path in sorted(folder.glob(f"{prefix}_*.zst")):
        for line in text_of(path).splitlines():
            try:
                rows.append(orjson.loads(line))
            except orjson.JSONDecodeError:
                malformed += 1
    return rows, malformed


def test_the_demos_sample_is_made_in_seconds(tmp_path: Path) -> None:
    started = time.process_time()
    build(SampleSettings(threads=1200, seed=7), tmp_path / "out")
    assert time.process_time() - started < 5


def test_each_kind_comes_in_several_files_by_month(sample: tuple[Path, Manifest]) -> None:
    names = {path.name for path in sample[0].glob("*.zst")}
    assert names == {"RS_2019-03.zst", "RS_2019-04.zst", "RC_2019-03.zst", "RC_2019-04.zst"}
    assert not {name[3:10] for name in names} & set(CleaningSettings().frozen_months)


def test_the_files_ask_for_the_long_window_of_the_public_dumps(sample: tuple[Path, Manifest]) -> None:
    path = sample[0] / "RC_2019-03.zst"
    with path.open("rb") as file, pytest.raises(zstandard.ZstdError, match="too much memory"):
        zstandard.ZstdDecompressor().stream_reader(file).read(1)
    assert zstandard.get_frame_parameters(path.read_bytes()[:32]).window_size == 2**31


def test_the_manifest_counts_every_line_that_is_in_the_files(sample: tuple[Path, Manifest]) -> None:
    folder, manifest = sample
    posts, bad_posts = lines(folder, "RS")
    comments, bad_comments = lines(folder, "RC")
    assert manifest.rows["posts"].kept == len(posts)
    assert manifest.rows["comments"].kept == len(comments)
    assert manifest.rows["malformed_lines"].kept == bad_posts + bad_comments > 0
    assert sum(manifest.figures["posts_by_kind"].values()) == len(posts)
    assert sum(manifest.figures["comments_by_kind"].values()) == len(comments)
    assert manifest.figures["posts_by_kind"]["normal"] == 300
    assert any("simulated" in note for note in manifest.notes)


def test_a_search_in_the_files_finds_each_kind_of_dirt_as_often_as_the_truth_says(
    sample: tuple[Path, Manifest],
) -> None:
    folder, manifest = sample
    known = Counter(manifest.figures["comments_by_kind"])
    rows, _ = lines(folder, "RC")
    posts, _ = lines(folder, "RS")
    post_author = {row["id"]: row["author"] for row in posts}
    found = Counter[str]()
    for row in rows:
        body, link = row["body"], row["link_id"].removeprefix("t3_")
        found["deleted"] += body == "[deleted]"
        found["removed"] += body == "[removed]"
        found["bot"] += row["author"] == "AutoModerator"
        found["stickied"] += row["stickied"] and row["distinguished"] == "moderator"
        found["by_poster"] += row["is_submitter"] and row["author"] == post_author[link]
        found["mention"] += " u/" in body
        found["email"] += "@" in body
        found["url"] += "https://" in body
        found["crisis_line"] += "988" in body
        found["foreign"] += body in FOREIGN
        found["nested"] += row["parent_id"].startswith("t1_")
        found["orphan"] += link not in post_author
        found["null_score"] += row["score"] is None
        found["edited"] += row["edited"] is not False
    for kind in found:
        assert found[kind] == known[kind] > 0, kind


def test_some_texts_appear_twice_and_those_are_the_duplicates(sample: tuple[Path, Manifest]) -> None:
    folder, manifest = sample
    truth = {row["comment_id"]: row for row in pq.read_table(folder / "truth.parquet").to_pylist()}
    judged = [row["body"] for row in lines(folder, "RC")[0] if truth[row["id"]]["quality"] is not None]
    assert len(judged) - len(set(judged)) == manifest.figures["comments_by_kind"]["duplicate"]


def test_posts_have_their_dirt_too(sample: tuple[Path, Manifest]) -> None:
    folder, manifest = sample
    known = manifest.figures["posts_by_kind"]
    rows, _ = lines(folder, "RS")
    assert sum(row["over_18"] for row in rows) == known["over_18"] > 0
    assert sum(row["selftext"] == "[deleted]" for row in rows) == known["deleted_post"] > 0
    assert sum(row["selftext"] == "[removed]" for row in rows) == known["removed_post"] > 0
    assert sum(row["edited"] is not False for row in rows) == known["edited_post"] > 0
    assert (
        len(rows) - len({row["selftext"] for row in rows if row["selftext"][0] != "["}) >= known["duplicate_post"] > 0
    )
    assert sum(row["subreddit"] == OTHER_SUBREDDIT for row in rows) == known["other_subreddit"] > 0
    assert {row["subreddit"] for row in rows} == {SUBREDDIT, OTHER_SUBREDDIT}


def test_timestamps_are_now_numbers_and_now_strings(sample: tuple[Path, Manifest]) -> None:
    for prefix in ("RS", "RC"):
        kinds = Counter(type(row["created_utc"]) for row in lines(sample[0], prefix)[0])
        assert set(kinds) == {int, str}


def test_the_truth_knows_every_comment_once(sample: tuple[Path, Manifest]) -> None:
    folder, _ = sample
    table = pq.read_table(folder / "truth.parquet")
    assert table.schema.equals(TRUTH)
    rows, _ = lines(folder, "RC")
    truth = {row["comment_id"]: row for row in table.to_pylist()}
    assert len(truth) == table.num_rows == len(rows)
    for row in rows:
        own = truth[row["id"]]
        assert own["post_id"] == row["link_id"].removeprefix("t3_")
        assert own["created_utc"] == int(row["created_utc"])
        if own["kind"] == "normal":
            assert own["arrival_rank"] >= 1
            assert all(1 <= own[d] <= 5 for d in ("readability", "empathy", "connection", "actionability", "safety"))
        if own["kind"] in {"bot", "deleted", "removed", "stickied", "foreign", "by_poster"}:
            assert own["quality"] is None and own["arrival_rank"] == 0


def test_the_same_seed_gives_the_same_rows_and_another_seed_others(
    sample: tuple[Path, Manifest], tmp_path: Path
) -> None:
    build(SAMPLE, tmp_path / "again")
    build(SampleSettings(threads=300, seed=8), tmp_path / "other")
    for path in sample[0].glob("*.zst"):
        assert text_of(path) == text_of(tmp_path / "again" / path.name)
        assert text_of(path) != text_of(tmp_path / "other" / path.name)


def test_even_the_smallest_sample_shows_every_kind_of_dirt(sample: tuple[Path, Manifest], tmp_path: Path) -> None:
    small = build(SampleSettings(threads=10, seed=1), tmp_path / "small")
    assert set(small.figures["comments_by_kind"]) == set(sample[1].figures["comments_by_kind"])
    assert set(small.figures["posts_by_kind"]) == set(sample[1].figures["posts_by_kind"])
