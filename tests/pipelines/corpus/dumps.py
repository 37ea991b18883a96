"""Small dumps written by hand: rows as the public files spell them."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import orjson
import zstandard

APRIL_2021 = 1_617_235_200
LONG = "this is a reply in plain English words"


def post(name: str, **fields: Any) -> dict[str, Any]:
    """A post that every rule keeps."""
    return {
        "id": name,
        "subreddit": "Quiet",
        "author": f"poster_{name}",
        "title": f"My worry number {name}",
        "selftext": f"I cannot sleep and think about {name} all night long",
        "created_utc": APRIL_2021,
        "score": 12,
        "is_self": True,
        "over_18": False,
    } | fields


def comment(name: str, link: str, **fields: Any) -> dict[str, Any]:
    """A comment that every rule keeps, where the post ``link`` exists."""
    return {
        "id": name,
        "link_id": f"t3_{link}",
        "parent_id": f"t3_{link}",
        "subreddit": "Quiet",
        "author": f"helper_{name}",
        "body": f"{LONG} and its number is {name}",
        "created_utc": APRIL_2021 + 600,
        "score": 3,
    } | fields


def lines(rows: Iterable[dict[str, Any] | bytes]) -> bytes:
    """Rows as JSON lines; bytes stand as they are."""
    return b"".join((row if isinstance(row, bytes) else orjson.dumps(row)) + b"\n" for row in rows)


def zst(path: Path, rows: Iterable[dict[str, Any] | bytes], frames: int = 1, window_log: int = 0) -> Path:
    """Write the rows as a .zst of so many frames, cut anywhere."""
    data = lines(rows)
    parameters = zstandard.ZstdCompressionParameters(window_log=window_log) if window_log else None
    step = max(1, -(-len(data) // frames))
    with path.open("wb") as file:
        for start in range(0, max(len(data), 1), step):
            compressor = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
            file.write(compressor.compress(data[start : start + step]) + compressor.flush())
    return path


def zst_of_frames(path: Path, data: bytes, size: int, skippable: bool = False) -> Path:
    """Write the bytes as a .zst of frames of ``size`` bytes each, with skippable frames between them if asked."""
    with path.open("wb") as file:
        for number, start in enumerate(range(0, max(len(data), 1), size)):
            compressor = zstandard.ZstdCompressor(write_checksum=number % 2 == 0, write_content_size=number % 3 == 0)
            file.write(compressor.compress(data[start : start + size]))
            if skippable:
                file.write(bytes([0x50 + number % 16]) + b"\x2a\x4d\x18\x06\0\0\0\x28\xb5\x2f\xfd\0\0")
    return path
