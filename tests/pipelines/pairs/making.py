"""Tables of threads made of scores and times, and a plain exposure model, for tests without Ray."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from hypothesis import strategies as st

from pipelines.corpus.schema import THREAD
from pipelines.pairs.exposure_model import Curve, Exposure, Kept
from pipelines.pairs.replies import Replies
from pipelines.pairs.select import Selection

Votes = Sequence[tuple[int, int]] | Sequence[tuple[int, int, int]]
"""Score and time of each reply of a thread, and the length of its text where it matters."""


def row(post: str, votes: Votes, score: int | None = 20, split: str = "train") -> dict[str, Any]:
    """A row of THREAD; reply i has the id ``<post>c<i>``."""
    comments = [
        {
            "comment_id": f"{post}c{i}",
            "author_hash": "a",
            "text": "x" * (vote[2] if len(vote) > 2 else 5),
            "created_utc": vote[1],
            "score": vote[0],
        }
        for i, vote in enumerate(votes)
    ]
    return {
        "post_id": post, "subreddit": "r", "author_hash": "p", "title": f"Title of {post}", "text": "What worries me.",
        "created_utc": 0, "score": score, "split": split, "comments": comments,
    }  # fmt: skip


def table(*threads: dict[str, Any]) -> pa.Table:
    """Rows of THREAD as a table."""
    return pa.Table.from_pylist(list(threads), schema=THREAD)


def exposure(fall: Sequence[float] = (0.0, -1.0, -2.0), kept: Sequence[Kept] = (), **changes: Any) -> Exposure:
    """A model with one curve for all threads."""
    values: dict[str, Any] = {
        "threads": 9, "replies": 99, "usable_timestamps": True, "top_score": 20, "bottom_score": 1, "kept": list(kept),
        "curves": [Curve(size_from=2, threads=9, pooled=False, noise=1.0, fall=list(fall))],
    }  # fmt: skip
    return Exposure.model_validate(values | changes)


def ids(threads: pa.Table, found: Selection) -> list[tuple[str, str]]:
    """Ids of chosen and rejected, in the selection's order."""
    names = [comment["comment_id"] for comments in threads["comments"].to_pylist() for comment in comments]
    return [(names[a], names[b]) for a, b in zip(found.chosen, found.rejected, strict=True)]


def shuffled(threads: list[dict[str, Any]], rng: Any) -> list[dict[str, Any]]:
    """The same threads and replies in another order."""
    mixed = [dict(thread, comments=rng.sample(thread["comments"], len(thread["comments"]))) for thread in threads]
    return rng.sample(mixed, len(mixed))


def random_table(seed: int, threads: int, most: int = 12) -> pa.Table:
    """Threads whose scores fall with arrival as in real ones, with noise and some downvotes."""
    rng = np.random.default_rng(seed)
    rows = []
    for number in range(threads):
        size = int(rng.integers(1, most + 1))
        scores = np.round(60 * np.arange(1, size + 1) ** -0.8 * np.exp(rng.normal(0, 0.7, size))).astype(int)
        scores[rng.random(size) < 0.05] = -3
        times = np.cumsum(rng.integers(0, 7200, size))
        lengths = rng.integers(5, 40, size)
        rows.append(row(f"p{number}", list(zip(scores.tolist(), times.tolist(), lengths.tolist(), strict=True))))
    return table(*rows)


def of(threads: pa.Table, model: Exposure | None = None) -> Replies:
    """The replies, with a model or without."""
    return Replies.of(threads, model)


VOTES = st.lists(st.tuples(st.integers(-20, 300), st.integers(0, 200_000), st.integers(0, 9)), max_size=14)
"""Threads with many ties; times within some two days."""
THREADS = st.lists(VOTES, min_size=1, max_size=5).map(
    lambda threads: [row(f"p{i}", votes, score=5 * i) for i, votes in enumerate(threads)]
)
