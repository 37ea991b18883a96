"""Comments to measure on: the real ones where they are at hand, else those of the built-in sample."""

import io
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import orjson
import zstandard

from configs.corpus import SampleSettings
from pipelines.sample.build import build


def comments() -> tuple[str, list[str]]:
    """Where the texts come from, and the texts of all comments with more than a placeholder."""
    real = Path(os.environ.get("LLUMI_SHARED", "../shared")) / "data" / "college"
    if real.is_dir():
        return "college comments", texts_of(sorted(real.glob("RC_*.zst")))
    with tempfile.TemporaryDirectory() as folder:
        build(SampleSettings(threads=1500, seed=3), Path(folder) / "sample")
        return "comments of the sample", texts_of(sorted((Path(folder) / "sample").glob("RC_*.zst")))


def texts_of(files: list[Path]) -> list[str]:
    """The bodies of the comments in dumps; lines that do not parse are passed over."""
    texts = []
    for file in files:
        for line in lines_of(file):
            try:
                texts.append(orjson.loads(line)["body"])
            except (orjson.JSONDecodeError, KeyError):
                continue
    return [text for text in texts if len(text) > len("[removed]")]


def lines_of(file: Path) -> Iterator[bytes]:
    """The lines of a dump."""
    with file.open("rb") as raw:
        yield from io.BufferedReader(
            zstandard.ZstdDecompressor(max_window_size=2**31).stream_reader(raw, read_across_frames=True)
        )
