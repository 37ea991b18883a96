"""The corpus stage under the list: dumps still hold everything, and what was forgotten does not come back."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from configs import Settings
from configs.errors import DataError
from pipelines.corpus.build import STAGE, build, depends
from pipelines.forgetting.forget import forget
from pipelines.forgetting.requests import Requests
from pipelines.manifest import Manifest, fingerprints, is_current
from tests.pipelines.corpus.dumps import APRIL_2021, comment, post, zst
from tests.pipelines.forgetting.world import files_with

POST, COPY = "I wrote this post once and lie awake over it", "and this sentence was written by one member only"


@pytest.fixture
def dumps(tmp_path: Path) -> dict[str, Any]:
    """Posts with a copy under another id, a full thread, a bot, and torn lines of two members."""
    posts = [
        post("p1", author="Ann", selftext=POST, title="A title"),
        post("p2", author="Ann", selftext=POST, title="A title", created_utc=APRIL_2021 + 60),
        post("p3", author="Ben"),
    ]
    comments = [
        *(comment(f"a{i}", "p1", body=f"{COPY}, as number {i} of them all") for i in range(3)),
        *(comment(f"b{i}", "p3", created_utc=APRIL_2021 + i) for i in range(6)),
        comment("b9", "p3", author="Cem", body=COPY),
        comment("x1", "p3", author="AutoModerator"),
        b'{"id": "t1", "author": "Cem", "link_id": "t3_p3", "body": "torn words of Cem',
        b'{"id": "t2", "author": "Dee", "link_id": "t3_p3", "body": "torn words of Dee',
        b'{"id": "t3", "author": "Eve", "link_id": "t3_p1", "body": "torn words under p1',
    ]
    return {"posts": [zst(tmp_path / "RS.zst", posts)], "comments": [zst(tmp_path / "RC.zst", comments)]}


def settings_for(tmp_path: Path) -> Settings:
    corpus = {"max_malformed_share": 0.5, "max_comments_per_post": 5, "cleaning": {"drop_near_duplicate": False}}
    return Settings(output=str(tmp_path / "run"), corpus=corpus)


def threads(folder: Path) -> list[dict[str, Any]]:
    tables = [pq.read_table(path) for path in sorted(folder.glob("*.parquet"))]
    return pa.concat_tables(tables).sort_by("post_id").to_pylist()


def make(settings: Settings, dumps: dict[str, Any]) -> Manifest:
    return build(settings, dumps, Path(settings.output) / "threads")


def test_what_was_forgotten_stays_out_with_its_dropped_copies_and_torn_lines(
    ray_cluster: None, dumps: dict[str, Any], tmp_path: Path
) -> None:
    settings = settings_for(tmp_path)
    folder = tmp_path / "run" / "threads"
    before = make(settings, dumps)
    assert before.rows["posts"].dropped == {"duplicate": 1}
    assert len(threads(folder)[-1]["comments"]) == 5
    assert files_with(folder, POST) and files_with(folder, "torn words of Cem") and files_with(folder, COPY)
    capped = threads(folder)[-1]["comments"][0]["comment_id"]
    forget(settings, Requests(frozenset({"p1"}), frozenset({capped}), frozenset({"cem"})))
    assert is_current(folder, STAGE, depends(settings), fingerprints(dumps))
    in_place, left = threads(folder), files_with(tmp_path / "run", "torn words of Dee")
    after = make(settings, dumps)
    for text in (POST, "torn words of Cem", "torn words under p1", COPY):
        assert files_with(tmp_path / "run", text) == []
    assert files_with(tmp_path / "run", "torn words of Dee") == left != []
    assert threads(folder) == in_place
    assert [thread["post_id"] for thread in in_place] == ["p3"], "the copy p2 was dropped for p1 and does not come back"
    assert len(in_place[0]["comments"]) < 5, "none of those over the cap comes in for one that left"
    assert after.rows["posts"].dropped == {"duplicate": 1, "forgotten": 1}
    assert after.rows["comments"].dropped["forgotten"] >= 4
    assert after.rows["comments"].read == before.rows["comments"].read


def test_a_list_whose_key_is_lost_stops_the_build_and_nothing_is_written(
    ray_cluster: None, dumps: dict[str, Any], tmp_path: Path
) -> None:
    settings = settings_for(tmp_path)
    forget(settings, Requests(frozenset({"p1"}), frozenset(), frozenset()))
    (tmp_path / "run" / "author.key").unlink()
    with pytest.raises(DataError, match=r"restore .*author\.key"):
        make(settings, dumps)
    assert not (tmp_path / "run" / "threads").exists()
    assert not (tmp_path / "run" / "author.key").exists(), "no new key, which would hide that the old one is lost"
