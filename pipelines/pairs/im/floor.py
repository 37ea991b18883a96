"""The content-preservation floor: how alike a draft and its revision have to be, measured on the corpus itself.

A cosine means nothing by itself: two replies to the same post have a median of .37 by
all-MiniLM-L6-v2 and of .07 by hashed words (college data), so one number cannot serve both.
What can be said of any embedder is how alike replies are that answer *different* posts.
The floor is a high quantile of these: at the default of 0.9, one in ten couples of unrelated
replies would pass for draft and revision. Of two replies to the same post 55% pass it by the
model and 31% by hashed words there, 85% and 48% on counselling answers: what a weaker
embedder cannot tell from chance it loses, and the loss shows in the figures, not in the rows.
"""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from configs.errors import DataError
from configs.improvement import ImprovementSettings
from pipelines.pairs.im.joining import Encode
from pipelines.pairs.replies import Floats, hashed

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95, 0.99)
FILES = 32
"""Most files of threads that the baseline is drawn from; their order says nothing about their content."""
COLUMNS = ["post_id", "split", "comments"]


@dataclass(frozen=True)
class Floor:
    """The floor and where it comes from."""

    value: float
    """Least cosine similarity of a revision to its draft."""
    quantile: float | None
    """Of the similarities of replies to different posts; None where the settings give the value."""
    replies: int
    """Replies that were compared with each other."""
    unrelated: dict[str, float]
    """Quantiles of the similarities of replies to different posts."""

    def figures(self) -> dict[str, Any]:
        """For the manifest."""
        return asdict(self)


def floor_of(files: list[Path], settings: ImprovementSettings, encode: Encode) -> Floor:
    """The floor that the settings ask for, of the threads in ``files``."""
    texts = baseline(files, settings.baseline_replies)
    similarities = unrelated(texts, encode)
    if settings.floor is None and not len(similarities):
        raise DataError(
            "fewer than two posts of the training split have replies, so there is nothing to measure the"
            " content-preservation floor by; set improvement.floor, or read more dumps"
        )
    value = np.quantile(similarities, settings.floor_quantile) if settings.floor is None else settings.floor
    return Floor(
        round(float(value), 4),
        settings.floor_quantile if settings.floor is None else None,
        len(texts),
        quantiles(similarities),
    )


def baseline(files: list[Path], most: int) -> list[str]:
    """One reply a post of the training split, drawn by hashes of the ids: at most ``most``."""
    found: list[tuple[int, str]] = []
    for path in files[:: -(-len(files) // FILES)]:
        found += drawn(path)
    return [text for _, text in sorted(found)[:most]]


def drawn(path: Path) -> Iterator[tuple[int, str]]:
    """Of each post of the training split in one file the reply with the least hash, with that hash."""
    for batch in pq.ParquetFile(path).iter_batches(1000, columns=COLUMNS):
        table = pa.Table.from_batches([batch])
        table = table.filter(pc.equal(table["split"], "train"))
        comments = table["comments"].combine_chunks()
        flat, posts = pc.list_flatten(comments), pc.list_parent_indices(comments).to_numpy()
        hashes = hashed(pc.struct_field(flat, "comment_id"))
        order = np.lexsort((hashes, posts))
        first = order[np.append(True, posts[order][1:] != posts[order][:-1])] if len(order) else order
        texts = pc.struct_field(flat, "text").take(pa.array(first)).to_pylist()
        yield from zip(hashes[first].tolist(), texts, strict=True)


def unrelated(texts: list[str], encode: Encode) -> Floats:
    """Similarities of every two of the replies, which answer different posts."""
    if len(texts) < 2:
        return np.zeros(0)
    vectors = encode(texts)
    found: Floats = (vectors @ vectors.T)[np.triu_indices(len(texts), 1)].astype(np.float64)
    return found


def quantiles(values: Floats) -> dict[str, float]:
    """QUANTILES of the values, by name; none of no values."""
    if not len(values):
        return {}
    return {f"{q:g}": round(float(v), 4) for q, v in zip(QUANTILES, np.quantile(values, QUANTILES), strict=True)}
