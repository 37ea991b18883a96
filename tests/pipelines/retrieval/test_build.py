"""Threads to index and examples through real Ray: rows conserved, vectors lent, leaks none, failures harmless."""

import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from configs import DataError, Settings
from configs.errors import ModelNotFound
from pipelines import manifest
from pipelines.manifest import Manifest, writing
from pipelines.retrieval.build import STAGE, build, depends
from pipelines.retrieval.examples import FOLDER, examples_for
from pipelines.retrieval.lookup import Query, open_lookup
from pipelines.retrieval.schema import EXAMPLES
from tests.pipelines.retrieval.making import reply, subject_threads, table, thread

SPLITS = ("train", "train", "train", "train", "validation", "test")


def rows() -> list[dict[str, Any]]:
    """Threads on four subjects in all splits; two authors posted and replied more than once."""
    threads = [t | {"split": SPLITS[i % 6]} for i, t in enumerate(subject_threads(12))]
    threads[0] |= {"author_hash": "twice"}
    threads[1] |= {"author_hash": "twice"}
    threads[2]["comments"] = [reply("by-twice", author_hash="twice", score=90), reply("by-other", score=4)]
    threads.append(thread("quiet", "chemistry exam without an answer", []))
    threads.append(thread("disliked", "chemistry exam with a poor answer", [reply("poor", score=-3)]))
    return threads


def written(folder: Path, threads: list[dict[str, Any]], files: int = 3) -> Path:
    """A complete folder of threads in some files."""
    with writing(folder, stage="corpus", settings={}, inputs={}) as draft:
        for number in range(files):
            pq.write_table(table(*threads[number::files]), draft.path / f"part-{number}.parquet")
    return folder


def settings_for(folder: Path, **changes: Any) -> Settings:
    """Two examples a prompt unless told otherwise."""
    return Settings(output=str(folder), retrieval={"examples": 2, **changes})


def made(root: Path, threads: list[dict[str, Any]] | None = None, **changes: Any) -> Manifest:
    """The stage under ``root``, over these threads or those that lie there."""
    if threads is not None:
        written(root / "threads", threads)
    return build(settings_for(root, **changes), {"threads": root / "threads"}, root / "retrieval")


@pytest.fixture(scope="module")
def root(ray_cluster: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished stage."""
    folder = tmp_path_factory.mktemp("retrieval")
    made(folder, rows())
    return folder


def examples(root: Path) -> dict[str, list[dict[str, Any]]]:
    """The stored examples by post."""
    files = sorted((root / "retrieval" / FOLDER).glob("*.parquet"))
    tables = [pq.read_table(file, partitioning=None) for file in files]
    assert tables and all(one.schema.equals(EXAMPLES) for one in tables)
    return {row["post_id"]: row["examples"] for row in pa.concat_tables(tables).to_pylist()}


def test_every_post_and_reply_is_accounted_for(root: Path) -> None:
    counts = manifest.require(root / "retrieval", "test").rows
    threads = rows()
    assert counts["entries"].read == counts["prompts"].read == len(threads)
    assert counts["replies"].read == sum(len(t["comments"]) for t in threads)
    training = [t for t in threads if t["split"] == "train"]
    assert counts["entries"].kept == len(training) - 2
    others = len(threads) - len(training)
    assert counts["entries"].dropped == {"no_reply": 1, "no_well_received_reply": 1, "not_training": others}


def test_no_example_is_of_the_post_its_author_or_another_split(root: Path) -> None:
    by_id = {t["post_id"]: t for t in rows()}
    found = examples(root)
    assert len(found) >= 48 and any(by_id[post]["split"] == "test" for post in found)
    for post_id, shown in found.items():
        asking = by_id[post_id]
        assert 1 <= len(shown) <= 2
        for example in shown:
            source = by_id[example["post_id"]]
            assert source["split"] == "train" and source is not asking
            comment = next(c for c in source["comments"] if c["comment_id"] == example["comment_id"])
            assert comment["text"] == example["reply"] and comment["score"] >= 3
            assert asking["author_hash"] not in (source["author_hash"], comment["author_hash"])


def test_examples_are_on_the_posts_own_subject(root: Path) -> None:
    by_id = {t["post_id"]: t["subreddit"] for t in rows()}
    pairs = [(by_id[post], by_id[e["post_id"]]) for post, shown in examples(root).items() for e in shown]
    assert sum(one == other for one, other in pairs) > 0.9 * len(pairs)


def test_rows_get_their_examples_in_their_order_from_their_own_file_or_any(root: Path) -> None:
    stored = examples(root)
    file = root / "threads" / "part-1.parquet"
    threads = pq.read_table(file).take([5, 0, 9])
    for got in (examples_for(threads, root / "retrieval", file), examples_for(threads, root / "retrieval")):
        for post_id, retrieved in zip(threads["post_id"].to_pylist(), got, strict=True):
            assert retrieved.ids == [example["comment_id"] for example in stored[post_id]]
            assert retrieved.examples == [{"post": e["post"], "reply": e["reply"]} for e in stored[post_id]]
    assert examples_for(threads, None)[0] == ([], None)


def test_the_stored_examples_are_what_a_lookup_finds(root: Path) -> None:
    lookup = open_lookup(root / "retrieval", settings_for(root).retrieval)
    stored = examples(root)
    for asking in rows()[::7]:
        query = Query(asking["text"], asking["post_id"], asking["author_hash"])
        assert [e.row() for e in lookup.similar([query])[0]] == stored.get(asking["post_id"], [])


def copied(root: Path, folder: Path) -> Path:
    """The finished stage once more, to be built over."""
    shutil.copytree(root, folder)
    return folder


def test_a_rebuild_embeds_new_posts_only_and_forgets_removed_ones(root: Path, tmp_path: Path) -> None:
    threads, fresh, tmp_path = rows(), tmp_path / "fresh", copied(root, tmp_path / "again")
    first = manifest.require(tmp_path / "retrieval", "test")
    assert first.figures["vectors"] == {"lent": 0, "embedded": len(threads)}
    leaving = next(t for t in threads if t["split"] == "train")
    changed = [t for t in threads if t is not leaving] + [thread("new", "a word or two on the chemistry exam")]
    second = made(tmp_path, changed)
    assert second.figures["vectors"] == {"lent": len(threads) - 1, "embedded": 1}
    assert leaving["post_id"] not in {e["post_id"] for shown in examples(tmp_path).values() for e in shown}
    content = b"".join(path.read_bytes() for path in (tmp_path / "retrieval").rglob("*") if path.is_file())
    assert f"number{leaving['post_id']}".encode() not in content
    assert made(fresh, changed).rows == second.rows
    assert examples(fresh) == examples(tmp_path)


@pytest.mark.slow
def test_another_embedder_makes_the_index_stale_and_lends_nothing(root: Path, tmp_path: Path) -> None:
    tmp_path = copied(root, tmp_path / "again")
    other = settings_for(tmp_path, embedder={"dimensions": 512})
    inputs = manifest.fingerprints({"threads": tmp_path / "threads"})
    assert manifest.is_current(tmp_path / "retrieval", STAGE, depends(settings_for(tmp_path)), inputs)
    assert not manifest.is_current(tmp_path / "retrieval", STAGE, depends(other), inputs)
    assert made(tmp_path, embedder={"dimensions": 512}).figures["vectors"]["lent"] == 0


@pytest.mark.slow
def test_a_build_that_fails_leaves_the_index_that_was_there(root: Path, tmp_path: Path) -> None:
    tmp_path = copied(root, tmp_path / "again")
    before = (tmp_path / "retrieval" / manifest.FILE).read_bytes()
    with pytest.raises(DataError, match=r"no post of the training split has a reply with a score of 99 .*min_score"):
        made(tmp_path, min_score=99)
    assert (tmp_path / "retrieval" / manifest.FILE).read_bytes() == before
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []
    lookup = open_lookup(tmp_path / "retrieval", settings_for(tmp_path).retrieval)
    assert lookup.similar([Query("failed chemistry exam")])[0]


def test_an_index_for_the_service_alone_holds_no_examples(ray_cluster: None, tmp_path: Path) -> None:
    counts = made(tmp_path, rows()[:12], examples=0, index=True).rows
    assert "prompts" not in counts and not (tmp_path / "retrieval" / FOLDER).exists()
    lookup = open_lookup(tmp_path / "retrieval", settings_for(tmp_path).retrieval)
    assert lookup.similar([Query("failed chemistry exam")], most=3)[0]


def test_an_embedder_that_is_not_there_is_refused_before_ray_is_asked(tmp_path: Path) -> None:
    written(tmp_path / "threads", rows()[:3])
    with pytest.raises(ModelNotFound, match=r"retrieval\.embedder\.model"):
        made(tmp_path, embedder={"model": str(tmp_path / "nothing")})


def test_where_the_model_lies_is_no_matter(tmp_path: Path) -> None:
    one, other = (depends(settings_for(tmp_path, actors=n, index=bool(n - 1))) for n in (1, 2))
    assert one == other and str(tmp_path) not in str(one)


@pytest.mark.slow
def test_a_model_finds_what_words_alone_do_not(ray_cluster: None, tmp_path: Path, minilm: Path) -> None:
    threads = [
        thread("dog", "My dog passed away last night and the house is so silent."),
        thread("rent", "The landlord raised my rent again and I cannot pay."),
        thread("visa", "My visa interview is tomorrow and I am nervous."),
    ]
    figures = made(tmp_path, threads, embedder={"model": str(minilm)}, min_similarity=0.2).figures
    assert figures["vectors"]["embedded"] == 3
    lookup = open_lookup(
        tmp_path / "retrieval", settings_for(tmp_path, embedder={"model": str(minilm)}, min_similarity=0.2).retrieval
    )
    grieving = lookup.similar([Query("I lost my puppy, he was my best friend")], most=1)[0]
    assert [example.post_id for example in grieving] == ["dog"]
