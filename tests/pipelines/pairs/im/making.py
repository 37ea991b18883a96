"""Threads whose replies are about something: what is alike is known."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from configs import Settings
from pipelines.corpus.schema import THREAD
from pipelines.manifest import writing
from pipelines.pairs.exposure_model import FILE, Exposure

TOPICS = ("garden tomatoes watering soil", "bicycle brakes wheel chain", "piano scales practice rhythm",
          "kitchen bread flour oven", "river canoe paddle current", "chess opening knight endgame")  # fmt: skip
"""Words that replies about one thing share and replies about another do not."""
Reply = tuple[int, int, str]
"""Score, time of posting, text."""


def about(topic: int, *more: str) -> str:
    """A text about a topic."""
    return " ".join([TOPICS[topic % len(TOPICS)], *more])


def thread(name: str, replies: Sequence[Reply], split: str = "train", score: int = 20) -> dict[str, Any]:
    """A row of THREAD; reply i has the id ``<name>c<i>``."""
    keys = ("comment_id", "author_hash", "text", "created_utc", "score")
    rows = [(f"{name}c{i}", f"h{i}", text, time, votes) for i, (votes, time, text) in enumerate(replies)]
    return {
        "post_id": name,
        "subreddit": "s",
        "author_hash": f"author-{name}",
        "title": f"Title {name}",
        "text": f"What {name} worries about.",
        "created_utc": 0,
        "score": score,
        "split": split,
        "comments": [dict(zip(keys, row, strict=True)) for row in rows],
    }


def table(*threads: Mapping[str, Any]) -> pa.Table:
    """The threads as a table."""
    return pa.Table.from_pylist(list(threads), schema=THREAD)


def plain_exposure() -> Exposure:
    """A model that takes nothing off."""
    return Exposure(threads=0, replies=0, usable_timestamps=True, top_score=10, bottom_score=2, curves=[], kept=[])


def corpus(threads: int, drafts: int = 1) -> list[dict[str, Any]]:
    """Threads of one topic each: so many drafts, then a reply on the topic that is liked better and came later."""
    found = []
    for i in range(threads):
        low = [(2 + k, 10 + k, about(i, f"draft{i}x{k}")) for k in range(drafts)]
        split = ("train", "train", "validation", "test")[i % 4]
        found.append(thread(f"p{i}", [*low, (40, 100, about(i, f"better{i}"))], split))
    return found


def written(folder: Path, threads: Sequence[Mapping[str, Any]], files: int = 2) -> dict[str, Path]:
    """The inputs of the stage: the threads in so many files, and the exposure model."""
    with writing(folder / "threads", stage="corpus", settings={}, inputs={}) as draft:
        for at in range(files):
            pq.write_table(table(*threads[at::files]), draft.path / f"part-{at}.parquet")
    with writing(folder / "exposure", stage="exposure", settings={}, inputs={}) as draft:
        (draft.path / FILE).write_text(plain_exposure().model_dump_json())
    return {name: folder / name for name in ("threads", "exposure")}


def settings_for(folder: Path, **improvement: Any) -> Settings:
    """Settings by the rule ``shp``, with the output in ``folder``."""
    return Settings(output=str(folder), pairs={"rule": "shp"}, improvement={"floor": 0.3, **improvement})


def rows(folder: Path, source: str) -> list[dict[str, Any]]:
    """The rows of the stage's output, by the original's id."""
    files = sorted((folder / source).glob("*.parquet"))
    found = [row for file in files for row in pq.read_table(file, partitioning=None).to_pylist()]
    return sorted(found, key=lambda row: str(row["original_id"]))
