"""Writes the simulated community as dump files: a post or comment a line, .zst, long window.

The files are like the public ones in what makes those hard to read: a decoding window of
2^31 bytes, timestamps that are now numbers and now strings, lines that are no JSON. Rows
stand in files by their month (``RS_2019-03.zst``).
"""

import random
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson
import zstandard

from pipelines.sample.community import Comment, Thread

WINDOW_LOG = 31
"""log2 of the decoding window in bytes that the files ask for, as in the public dumps."""
STRING_TIMES = 0.15
"""Share of rows whose timestamp is a string."""
ROWS_PER_MALFORMED = 250
"""A file gets one malformed line for so many rows, at most three."""
_MALFORMED = (b'{"id": "broken1", "author": "SoftOtter11", "body', b"<html>502 Bad Gateway</html>", b'{"id": broken3}')

Row = dict[str, Any]


def post_row(rng: random.Random, thread: Thread) -> Row:
    """A post as the dumps spell it."""
    return {
        "id": thread.post_id,
        "name": f"t3_{thread.post_id}",
        "subreddit": thread.subreddit,
        "author": thread.author,
        "title": thread.title,
        "selftext": thread.text,
        "created_utc": timestamp(rng, thread.created_utc),
        "retrieved_on": thread.created_utc + 2_600_000,
        "score": thread.score,
        "num_comments": len(thread.comments),
        "is_self": True,
        "over_18": False,
        "edited": False,
        "stickied": False,
        "distinguished": None,
        "contest_mode": False,
        "permalink": f"/r/{thread.subreddit}/comments/{thread.post_id}/",
    } | thread.fields


def comment_row(rng: random.Random, thread: Thread, comment: Comment) -> Row:
    """A comment as the dumps spell it."""
    link = f"t3_{comment.post_id or thread.post_id}"
    return {
        "id": comment.comment_id,
        "link_id": link,
        "parent_id": link if comment.parent is None else f"t1_{comment.parent}",
        "subreddit": thread.subreddit,
        "author": comment.author,
        "body": comment.text,
        "created_utc": timestamp(rng, comment.created_utc),
        "retrieved_on": comment.created_utc + 2_600_000,
        "score": comment.score,
        "edited": False,
        "stickied": False,
        "distinguished": None,
        "is_submitter": False,
        "score_hidden": False,
        "controversiality": 0,
    } | comment.fields


def timestamp(rng: random.Random, seconds: int) -> int | str:
    """A timestamp as a number, or as the string that older months hold."""
    return str(seconds) if rng.random() < STRING_TIMES else seconds


def by_month(prefix: str, rows: Iterable[Row]) -> dict[str, list[Row]]:
    """Rows in order of time by the name of the file that they belong to."""
    files: dict[str, list[Row]] = defaultdict(list)
    for row in sorted(rows, key=lambda row: (int(row["created_utc"]), row["id"])):
        month = datetime.fromtimestamp(int(row["created_utc"]), UTC).strftime("%Y-%m")
        files[f"{prefix}_{month}.zst"].append(row)
    return files


def write_files(rng: random.Random, folder: Path, files: Mapping[str, Sequence[Row]]) -> int:
    """Write each file with a few malformed lines; the number of those."""
    malformed = 0
    for name, rows in files.items():
        lines = [orjson.dumps(row) for row in rows]
        broken = _MALFORMED[: len(rows) // ROWS_PER_MALFORMED]
        for line in broken:
            lines.insert(rng.randrange(len(lines)), line)
        write_lines(folder / name, lines)
        malformed += len(broken)
    return malformed


def write_lines(path: Path, lines: Iterable[bytes]) -> None:
    """Write lines as one zstd frame that, as its size is not announced, asks for the whole window."""
    parameters = zstandard.ZstdCompressionParameters.from_level(3, window_log=WINDOW_LOG, hash_log=17, chain_log=17)
    compressor = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    with path.open("wb") as file:
        for line in lines:
            file.write(compressor.compress(line + b"\n"))
        file.write(compressor.flush())
