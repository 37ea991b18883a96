"""Exact search against a plain loop, and the approximate index against exact search."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from configs.retrieval import RetrievalSettings
from pipelines.retrieval import search, store
from pipelines.retrieval.lookup import Lookup, Query
from pipelines.retrieval.schema import ENTRIES, entry
from pipelines.retrieval.search import Approximate, Exact, build_approximate, open_search, recall, scanned
from tests.pipelines.retrieval.making import index_of, settings_for, subject_threads, table

D = 32


def unit(rows: int, seed: int = 0, centres: int = 40) -> np.ndarray:
    """Unit vectors about some centres, as texts on some subjects are."""
    draw = np.random.default_rng(seed)
    middle = np.random.default_rng(99).normal(size=(centres, D))
    vectors = middle[draw.integers(0, centres, rows)] + 1.5 * draw.normal(size=(rows, D))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def stored(folder: Path, vectors: np.ndarray) -> Path:
    """An index of posts that have vectors and nothing else."""
    writer = store.Writer(folder, {ENTRIES: entry(D)})
    ids = pa.array([f"p{i:05}" for i in range(len(vectors))])
    column = pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), D)
    empty = {f.name: pa.nulls(len(ids), f.type) for f in entry(D) if f.name not in ("post_id", "text_key", "vector")}
    for start in range(0, len(ids), 500):
        part = pa.table({"post_id": ids, "text_key": ids, "vector": column, **empty}).slice(start, 500)
        writer.add(ENTRIES, part)
        writer.flush(ENTRIES)
    writer.close()
    return folder


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four thousand posts with an approximate index over them."""
    folder = stored(tmp_path_factory.mktemp("search"), unit(4000))
    build_approximate(folder, 0.9)
    return folder


def plainly(vectors: np.ndarray, query: np.ndarray, k: int) -> list[str]:
    """The nearest by a loop over all of them."""
    similar = [round(float(sum(a * b for a, b in zip(v, query, strict=True))), search.DIGITS) for v in vectors.tolist()]
    return [f"p{i:05}" for i in sorted(range(len(similar)), key=lambda i: (-similar[i], i))[:k]]


def test_exact_search_finds_what_a_plain_loop_finds(index: Path) -> None:
    vectors, queries = unit(4000), unit(3, seed=5)
    found = open_search(index, None).nearest(queries, 7)
    assert [[post_id for post_id, _ in hits] for hits in found] == [plainly(vectors, q, 7) for q in queries.tolist()]


def test_exact_search_gives_the_same_whatever_is_held_at_once(index: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    queries, exact = unit(50, seed=6), open_search(index, None)
    whole = exact.nearest(queries, 9)
    monkeypatch.setattr(search, "CELLS", 10_000)
    assert exact.nearest(queries, 9) == whole


def test_equal_vectors_at_the_edge_are_cut_by_id_and_not_by_order_on_disk() -> None:
    ids = np.array(["d", "b", "a", "c"], dtype=object)
    exact = Exact(ids, np.repeat(unit(1), 4, axis=0))
    assert [post_id for post_id, _ in exact.nearest(unit(1), 2)[0]] == ["a", "b"]


def test_more_hits_than_posts_gives_all_posts(index: Path) -> None:
    assert len(Exact(np.array(["a", "b"], dtype=object), unit(2)).nearest(unit(1), 50)[0]) == 2
    assert Exact(np.array([], dtype=object), np.zeros((0, D), np.float32)).nearest(unit(2), 3) == [[], []]


def test_the_approximate_index_has_the_recall_asked_for_on_posts_it_was_not_tuned_on(index: Path) -> None:
    queries = unit(300, seed=7)
    exact = open_search(index, None).nearest(queries, 10)
    probes = build_probes(index)
    table = store.connect(index).open_table(ENTRIES)
    share = recall(exact, Approximate(table, probes).nearest(queries, 10), [""] * 300)
    assert share >= 0.85
    assert recall(exact, Approximate(table, 1).nearest(queries, 10), [""] * 300) < share


def build_probes(index: Path) -> int:
    """The probes chosen for a recall of 0.9, fewer than there are cells."""
    made = build_approximate(index, 0.9)
    assert made["kind"] == "ivf_flat" and made["recall"] >= 0.9 and made["probes"] < made["cells"] == 63
    return int(made["probes"])


def test_full_recall_is_reached_by_searching_every_cell_if_need_be(index: Path) -> None:
    made = build_approximate(index, 1.0)
    assert made["recall"] == 1.0
    table = store.connect(index).open_table(ENTRIES)
    assert made["probes"] > 4
    queries = unit(40, seed=8)
    every = Approximate(table, made["cells"]).nearest(queries, 10)
    for got, true in zip(every, open_search(index, None).nearest(queries, 10), strict=True):
        assert [post_id for post_id, _ in got] == [post_id for post_id, _ in true]
        assert np.allclose([similar for _, similar in got], [similar for _, similar in true], atol=2e-5)


def test_approximate_search_answers_each_of_many_queries_as_alone(index: Path) -> None:
    queries = unit(300, seed=9)
    approximate = Approximate(store.connect(index).open_table(ENTRIES), 63)
    together = approximate.nearest(queries, 5)
    assert [approximate.nearest(queries[i : i + 1], 5)[0] for i in (0, 255, 256, 299)] == [
        together[i] for i in (0, 255, 256, 299)
    ]


def test_the_truth_for_recall_is_the_exact_answer_read_in_parts(index: Path) -> None:
    queries = unit(20, seed=10)
    table = store.connect(index).open_table(ENTRIES)
    parts, whole = scanned(table, queries, 11), open_search(index, None).nearest(queries, 11)
    assert [[hit[0] for hit in hits] for hits in parts] == [[hit[0] for hit in hits] for hits in whole]


def test_recall_leaves_the_post_itself_aside() -> None:
    truth, half = [[("me", 1.0), ("a", 0.9), ("b", 0.8)]], [[("me", 1.0), ("a", 0.9), ("x", 0.1)]]
    assert recall(truth, truth, ["me"]) == 1.0 and recall(truth, half, ["me"]) == 0.5


@pytest.mark.parametrize(("exact_up_to", "kind"), [(24, "exact"), (23, "ivf_flat")])
def test_the_number_of_posts_decides_how_they_are_searched(tmp_path: Path, exact_up_to: int, kind: str) -> None:
    settings = settings_for(exact_up_to=exact_up_to, min_recall=1.0)
    lookup, _ = index_of(tmp_path, table(*subject_threads()), settings)
    assert type(lookup.search) is {"exact": Exact, "ivf_flat": Approximate}[kind]
    assert {e.post_id[:4] for e in lookup.similar([Query("failed chemistry exam")], most=4)[0]} == {"exam"}


def test_both_searches_show_the_same_examples(tmp_path: Path) -> None:
    rows, queries = table(*subject_threads()), [Query(t["text"], t["post_id"]) for t in subject_threads()]
    answers = []
    for name, bound in (("exact", 100), ("approximate", 0)):
        settings: RetrievalSettings = settings_for(exact_up_to=bound, min_recall=1.0)
        lookup: Lookup = index_of(tmp_path / name, rows, settings)[0]
        answers.append(lookup.similar(queries))
    ids = [[[e.comment_id for e in examples] for examples in answer] for answer in answers]
    assert ids[0] == ids[1] and all(ids[0])
