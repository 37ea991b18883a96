"""The nearest posts to a vector: all compared, or through an approximate index, and how much that one misses.

Both order by similarity rounded to five digits, then by post id, so that neither the batch
a query came in nor the order on disk decides. ``Approximate`` is
LanceDB's IVF_FLAT: rows in √n cells, of which the ``probes`` nearest to the query are
compared exactly. HNSW and product quantisation took 45 and 16 times as long to build for
200,000 rows and answered about as quickly at like recall.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa

from pipelines.retrieval import store
from pipelines.retrieval.embed import Vectors
from pipelines.retrieval.schema import ENTRIES

DIGITS = 5
"""Digits of a similarity that count."""
CELLS = 1 << 22
"""Similarities held at once (16 MB)."""
TIES = 8
"""Hits beyond those asked for, among which the last places are decided by id."""
FIRST_PROBES = 4
MOST_CELLS = 4096
SAMPLE, SAMPLE_K = 400, 20
"""Posts by which recall is measured, and nearest posts of each."""
Hit = tuple[str, float]
"""A post's id and its cosine similarity."""


class Search(Protocol):
    """What finds the nearest posts."""

    def nearest(self, queries: Vectors, k: int) -> list[list[Hit]]:
        """At most ``k`` hits for each of the n x d unit vectors, most similar first."""
        ...


@dataclass
class Exact:
    """Every post compared with every query: one matrix product, the vectors in memory."""

    ids: np.ndarray
    vectors: Vectors

    def nearest(self, queries: Vectors, k: int) -> list[list[Hit]]:
        """Exact."""
        if not len(self.ids):
            return [[] for _ in queries]
        step = max(1, CELLS // len(self.ids))
        starts = range(0, len(queries), step)
        return [hits for start in starts for hits in self._some(queries[start : start + step], k)]

    def _some(self, queries: Vectors, k: int) -> Iterator[list[Hit]]:
        similar = np.round(queries @ self.vectors.T, DIGITS)
        k = min(k, len(self.ids))
        bound = np.partition(similar, -k, axis=1)[:, -k]
        for row, least in zip(similar, bound, strict=True):
            near = np.flatnonzero(row >= least)
            yield ordered(self.ids[near].tolist(), np.round(row[near].astype(np.float64), DIGITS).tolist(), k)


@dataclass
class Approximate:
    """LanceDB's IVF index on disk."""

    table: Any
    probes: int

    def nearest(self, queries: Vectors, k: int) -> list[list[Hit]]:
        """Those of the true nearest that lie in the cells searched."""
        found: list[tuple[list[str], list[float]]] = [([], []) for _ in queries]
        step = 256
        for start in range(0, len(queries), step):
            asked = list(queries[start : start + step])
            rows = self.table.search(asked, vector_column_name="vector").distance_type("dot").nprobes(self.probes)
            hits = rows.select(["post_id", "_distance"]).limit(k + TIES).to_arrow()
            place = hits["query_index"].to_pylist() if "query_index" in hits.column_names else [0] * len(hits)
            similar = np.round(1 - hits["_distance"].to_numpy().astype(np.float64), DIGITS)
            for at, post_id, value in zip(place, hits["post_id"].to_pylist(), similar.tolist(), strict=True):
                found[start + at][0].append(post_id)
                found[start + at][1].append(value)
        return [ordered(ids, similar, k) for ids, similar in found]


def ordered(ids: Sequence[str], similar: Sequence[float], k: int) -> list[Hit]:
    """The ``k`` most similar, equal ones by id."""
    return sorted(zip(ids, similar, strict=True), key=lambda hit: (-hit[1], hit[0]))[:k]


def open_search(index: Path, probes: int | None) -> Search:
    """The search over the entries in ``index``; exact where ``probes`` is None."""
    table = store.connect(index).open_table(ENTRIES)
    if probes is not None:
        return Approximate(table, probes)
    ids: list[str] = []
    parts: list[Vectors] = []
    for batch in store.batches(table, ["post_id", "vector"]):
        ids += batch["post_id"].to_pylist()
        parts.append(matrix(batch["vector"]))
    dimensions = table.schema.field("vector").type.list_size
    vectors = np.concatenate(parts) if parts else np.zeros((0, dimensions), np.float32)
    return Exact(np.array(ids, dtype=object), vectors)


def matrix(column: pa.Array | pa.ChunkedArray) -> Vectors:
    """A column of vectors as n x d."""
    whole = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    flat = np.asarray(whole.flatten(), dtype=np.float32)
    return np.ascontiguousarray(flat.reshape(len(whole), whole.type.list_size))


def build_approximate(index: Path, min_recall: float) -> dict[str, Any]:
    """Index the entries and search as many cells as ``min_recall`` asks; returns what was measured.

    Searching all cells is exact, so there is always a number of probes that suffices. Nothing may be
    compacted afterwards: LanceDB's ``optimize`` joins small cells, here all 63 of a test into one.
    """
    from lancedb.index import IvfFlat

    table = store.connect(index).open_table(ENTRIES)
    cells = min(MOST_CELLS, max(1, round(table.count_rows() ** 0.5)))
    table.create_index("vector", config=IvfFlat(distance_type="dot", num_partitions=cells), replace=True)
    queries, own = sample(table)
    truth = scanned(table, queries, SAMPLE_K + 1)
    probes = min(FIRST_PROBES, cells)
    while True:
        share = recall(truth, Approximate(table, probes).nearest(queries, SAMPLE_K + 1), own)
        if share >= min_recall or probes == cells:
            measured = {"recall": round(share, 4), "min_recall": min_recall}
            return {"kind": "ivf_flat", "cells": cells, "probes": probes, **measured}
        probes = min(2 * probes, cells)


def sample(table: Any) -> tuple[Vectors, list[str]]:
    """Vectors and ids of posts spread over the table."""
    rows = table.count_rows()
    places = sorted({int(place) for place in np.linspace(0, rows - 1, min(SAMPLE, rows))})
    taken = table.take_offsets(places).select(["post_id", "vector"]).to_arrow()
    return matrix(taken["vector"]), taken["post_id"].to_pylist()


def scanned(table: Any, queries: Vectors, k: int) -> list[list[Hit]]:
    """The exact answer for few queries without holding the vectors in memory."""
    best: list[list[Hit]] = [[] for _ in queries]
    for batch in store.batches(table, ["post_id", "vector"]):
        part = Exact(np.array(batch["post_id"].to_pylist(), dtype=object), matrix(batch["vector"]))
        for at, hits in enumerate(part.nearest(queries, k)):
            both = [*best[at], *hits]
            best[at] = ordered([hit[0] for hit in both], [hit[1] for hit in both], k)
    return best


def recall(truth: Sequence[Sequence[Hit]], found: Sequence[Sequence[Hit]], own: Sequence[str]) -> float:
    """Mean share of a query's true nearest posts, itself aside, that were found (0-1)."""
    shares = []
    for true, got, itself in zip(truth, found, own, strict=True):
        wanted = {post_id for post_id, _ in true} - {itself}
        if wanted:
            shares.append(len(wanted & {post_id for post_id, _ in got}) / len(wanted))
    return float(np.mean(shares)) if shares else 1.0
