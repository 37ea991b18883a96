"""What evaluation reads of earlier stages: held-out rows only, in an order that no file layout changes."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipelines.corpus.schema import THREAD
from pipelines.pairs.schema import PAIR, SFT


def test_pairs(folder: Path, model: str, most: int, seed: int) -> pa.Table:
    """At most ``most`` test pairs of a model (schema PAIR), chosen by a seeded shuffle."""
    pairs = read(folder / model / "test", PAIR).sort_by([(name, "ascending") for name in PAIR_KEY])
    return choose(pairs, most, seed)


def test_revisions(folder: Path, most: int, seed: int) -> pa.Table:
    """At most ``most`` of IM's test rows (schema SFT), one a post."""
    rows = read(folder / "im" / "test", SFT).sort_by([(name, "ascending") for name in SFT_KEY])
    posts = rows["post_id"].to_pylist()
    first = [index for index, post in enumerate(posts) if index == 0 or posts[index - 1] != post]
    return choose(rows.take(pa.array(first, pa.int64())), most, seed)


def test_threads(folder: Path) -> pa.Table:
    """The test posts with their replies (schema THREAD), by post_id."""
    files = sorted(folder.glob("*.parquet"))
    parts = [pq.read_table(file, schema=THREAD, filters=[("split", "=", "test")]) for file in files]
    return pa.concat_tables([THREAD.empty_table(), *parts]).sort_by("post_id")


def choose(rows: pa.Table, most: int, seed: int) -> pa.Table:
    """At most ``most`` rows by a seeded shuffle, kept in order."""
    if rows.num_rows <= most:
        return rows
    picked = np.random.default_rng(seed).permutation(rows.num_rows)[:most]
    return rows.take(pa.array(np.sort(picked)))


def read(folder: Path, schema: pa.Schema) -> pa.Table:
    """All Parquet files of a folder; none is an empty table."""
    parts = [pq.read_table(file, schema=schema) for file in sorted(folder.glob("*.parquet"))]
    return pa.concat_tables([schema.empty_table(), *parts])


def reply_texts(threads: pa.Table) -> dict[str, str]:
    """Text of each reply in ``threads`` by comment_id."""
    replies = pc.list_flatten(threads["comments"]).combine_chunks()
    texts = zip(replies.field("comment_id").to_pylist(), replies.field("text").to_pylist(), strict=True)
    return dict(texts)


def first_content(messages: list[dict[str, str]]) -> str:
    """Text of a completion's one message."""
    return messages[0]["content"]


PAIR_KEY = ("post_id", "chosen_id", "rejected_id")
SFT_KEY = ("post_id", "comment_id", "original_id")
