"""What is removed is gone from the answers and from the disk."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.retrieval import examples, store
from pipelines.retrieval.examples import Finder, examples_for
from pipelines.retrieval.lookup import INDEX, Lookup, Query
from pipelines.retrieval.remove import remove
from pipelines.retrieval.schema import ENTRIES, QUERIES
from tests.pipelines.retrieval.making import index_of, reply, settings_for, table, thread

THREADS = [
    thread("p1", "failed chemistry exam firstpost", [reply("c1", "firstreply to you"), reply("c2", "secondreply")]),
    thread("p2", "failed chemistry midterm otherpost", [reply("c3", "thirdreply to you")], author_hash="leaver"),
    thread("p3", "failed exam about chemistry", [reply("c4", "fourthreply here", author_hash="leaver")]),
    thread("p4", "chemistry grades failed me", [reply("c5", "fifthreply here")]),
    thread("q1", "asking about a failed exam", [], split="test", author_hash="leaver"),
    thread("q2", "asking about a chemistry exam", [], split="test"),
]
ASKING = Query("failed chemistry exam again")


@pytest.fixture(params=["exact", "ivf_flat"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """An output with index and examples, searched either way."""
    settings = settings_for(exact_up_to=100 if request.param == "exact" else 0, min_recall=1.0, replies_per_post=3)
    index_of(tmp_path, table(*THREADS), settings)
    (tmp_path / examples.FOLDER).mkdir()
    file = tmp_path / "threads.parquet"
    pq.write_table(table(*THREADS), file)
    Finder(tmp_path, settings)(pa.table({"file": [str(file)]}))
    file.unlink()
    return tmp_path


def disk(folder: Path) -> bytes:
    """Everything that lies in the folder."""
    return b"".join(path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file())


def shown(folder: Path) -> set[str]:
    """The comments that a query and the stored examples show."""
    found = Lookup(folder, settings_for(), lexical()).similar([ASKING], most=9)[0]
    stored = examples_for(table(*THREADS), folder)
    return {example.comment_id for example in found} | {i for one in stored for i in one.ids or ()}


def lexical():
    """The embedder of these tests."""
    from pipelines.retrieval.embed import load

    return load(settings_for().embedder)


def vectors(folder: Path) -> set[bytes]:
    """All vectors in both tables."""
    database = store.connect(folder / INDEX)
    columns = [database.open_table(name).to_arrow()["vector"].to_pylist() for name in (ENTRIES, QUERIES)]
    return {np.array(v, np.float32).tobytes() for column in columns for v in column}


def test_all_that_is_to_be_removed_is_there_before(folder: Path) -> None:
    assert shown(folder) == {"c1", "c3", "c4", "c5"}
    for word in (b"firstpost", b"secondreply", b"thirdreply", b"leaver"):
        assert word in disk(folder)


def test_a_removed_post_is_gone_with_its_replies_and_its_vector(folder: Path) -> None:
    before = vectors(folder)
    counts = remove(folder, post_ids={"p1", "q2", "unknown"})
    assert counts["entries"] == 1 and counts["queries"] == 1 and counts["replies"] == 0 and counts["examples"] > 0
    assert "c1" not in shown(folder) and shown(folder) == {"c3", "c4", "c5"}
    left = disk(folder)
    for word in (b"firstpost", b"firstreply", b"secondreply"):
        assert word not in left
    assert b"otherpost" in left
    gone = before - vectors(folder)
    assert len(gone) == 2 and not any(vector in left for vector in gone)


def test_a_removed_comment_is_gone_and_the_posts_next_reply_takes_its_place(folder: Path) -> None:
    counts = remove(folder, comment_ids={"c1"})
    assert counts["entries"] == 0 and counts["replies"] == 1
    assert b"firstreply" not in disk(folder) and b"firstpost" in disk(folder)
    found = Lookup(folder, settings_for(), lexical()).similar([ASKING], most=9)[0]
    assert {"c2", "c3"} <= {example.comment_id for example in found}


def test_a_post_whose_only_reply_is_removed_can_no_longer_be_found(folder: Path) -> None:
    counts = remove(folder, comment_ids={"c3"})
    assert counts["entries"] == 1 and counts["replies"] == 0
    assert "c3" not in shown(folder) and b"otherpost" not in disk(folder)


def test_a_removed_author_is_gone_as_poster_as_commenter_and_as_who_asks(folder: Path) -> None:
    counts = remove(folder, author_hashes={"leaver"})
    assert counts["entries"] == 2 and counts["queries"] == 1
    assert shown(folder) == {"c1", "c5"}
    for word in (b"leaver", b"otherpost", b"thirdreply", b"fourthreply"):
        assert word not in disk(folder)


def test_removing_again_finds_nothing_and_breaks_nothing(folder: Path) -> None:
    remove(folder, post_ids={"p1"})
    before = shown(folder)
    assert remove(folder, post_ids={"p1"}) == {"entries": 0, "replies": 0, "queries": 0, "examples": 0}
    assert shown(folder) == before


def test_what_a_killed_removal_left_in_old_versions_goes_with_the_next(folder: Path) -> None:
    """LanceDB's own delete keeps the words on disk; so does a removal killed before its old files went."""
    store.connect(folder / INDEX).open_table(ENTRIES).delete("post_id = 'p1'")
    for path in (folder / examples.FOLDER).glob("*.parquet"):
        path.unlink()
    assert b"firstpost" in disk(folder)
    remove(folder, post_ids={"p1"})
    assert b"firstpost" not in disk(folder)


def test_everything_can_be_removed(folder: Path) -> None:
    counts = remove(folder, post_ids={t["post_id"] for t in THREADS})
    assert counts["entries"] == 4 and counts["queries"] == 2
    assert shown(folder) == set() and not vectors(folder)
    assert all(pq.read_table(path).num_rows == 0 for path in (folder / examples.FOLDER).glob("*.parquet"))
