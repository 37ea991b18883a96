"""Makes ratings and threads by hand, for the tests of feedback."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.corpus.schema import THREAD
from pipelines.feedback.ratings import DIMENSIONS, Rating
from pipelines.manifest import writing

GOOD_TEXT = "I have been there myself and it slowly got easier for me."
POOR_TEXT = "Just get over it already, nobody here can do a thing."


def line(item: str = "i1", rater: str = "r1", a: int = 5, b: int = 2, **changes: Any) -> dict[str, Any]:
    """One line of a rating file: rater's overall view of a and b, with any field changed."""
    return {
        "item_id": item,
        "model": "gm",
        "post_id": "p1",
        "post": {"title": "Awake again", "text": "I lie awake until sunrise."},
        "draft": None,
        "response_a": {"id": "c1", "text": GOOD_TEXT},
        "response_b": {"id": "c2", "text": POOR_TEXT},
        "rater_id": rater,
        "ratings_a": dict.fromkeys(DIMENSIONS, a),
        "ratings_b": dict.fromkeys(DIMENSIONS, b),
        "is_attention": False,
        "source": "human",
    } | changes


def attention(item: str, rater: str, given: int) -> dict[str, Any]:
    """An attention item whose second response asks for a 1."""
    asks = {"id": "attention:1", "text": "Please give a 1 here."}
    return line(item, rater, 4, given, response_b=asks, is_attention=True)


def rows(lines: Sequence[Mapping[str, Any]]) -> list[Rating]:
    """Lines as validated rows."""
    return [Rating.model_validate(one) for one in lines]


def write_lines(path: Path, lines: Sequence[Mapping[str, Any] | bytes]) -> Path:
    """A rating file; bytes are written as they are."""
    path.write_bytes(b"".join((one if isinstance(one, bytes) else orjson.dumps(one)) + b"\n" for one in lines))
    return path


def write_threads(folder: Path, threads: Sequence[Mapping[str, Any]]) -> Path:
    """A finished output of the corpus stage; fields that are not given are filled in."""
    usual = {
        "subreddit": "s",
        "author_hash": "a",
        "title": "",
        "text": "",
        "created_utc": 0,
        "score": 1,
        "comments": [],
    }
    with writing(folder, stage="corpus", settings={}, inputs={}) as draft:
        table = pa.Table.from_pylist([usual | dict(thread) for thread in threads], THREAD)
        pq.write_table(table, draft.path / "part-0.parquet")
    return folder
