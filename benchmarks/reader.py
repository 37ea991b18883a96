"""The dump reader against ``json.loads`` on each line and against decompression alone.

One core, one file, few communities kept: the sample's comments repeated under many
community names, of which one in a hundred is asked for. Each way runs in a process of
its own, so that its memory is its own. Rates are decoded MB a CPU second.
"""

import io
import json
import multiprocessing
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import orjson
import zstandard

from configs.corpus import SampleSettings
from pipelines.corpus.reader import Dump, ReadOptions, read_dump
from pipelines.corpus.schema import COMMENT
from pipelines.sample.build import build

COMMUNITIES, COPIES, WANTED = 100, 6, "community7"


def run() -> dict[str, object]:
    """Decoded MB a CPU second and peak memory of each way, and the reader's ratios."""
    with tempfile.TemporaryDirectory() as folder:
        path, megabytes = make_dump(Path(folder))
        ways = {"decompression": decompress, "json.loads a line": loads_each_line, "reader": ours}
        rates = {name: measured(way, path, megabytes) for name, way in ways.items()}
    kept = {name: figures.pop("kept") for name, figures in rates.items()}
    if kept["reader"] != kept["json.loads a line"]:
        raise AssertionError(f"the ways keep different rows: {kept}")
    speed = {name: figures["mb_per_cpu_s"] for name, figures in rates.items()}
    return {
        "decoded_mb": round(megabytes, 1),
        "rows_kept": kept["reader"],
        "ways": rates,
        "reader / json.loads": round(speed["reader"] / speed["json.loads a line"], 2),
        "reader / decompression": round(speed["reader"] / speed["decompression"], 2),
    }


def make_dump(folder: Path) -> tuple[Path, float]:
    """A comment dump in which one row in a hundred is of ``WANTED``; its decoded size in MB."""
    build(SampleSettings(threads=1500, seed=3), folder / "sample")
    rows = []
    for source in sorted((folder / "sample").glob("RC_*.zst")):
        with source.open("rb") as raw:
            text = zstandard.ZstdDecompressor(max_window_size=2**31).stream_reader(raw, read_across_frames=True)
            for line in text.read().splitlines():
                try:
                    rows.append(orjson.loads(line))
                except orjson.JSONDecodeError:
                    continue
    path, size = folder / "RC_many.zst", 0
    with path.open("wb") as file, zstandard.ZstdCompressor(level=3).stream_writer(file) as out:
        for copy in range(COPIES):
            for number, row in enumerate(rows):
                row["id"], row["subreddit"] = f"c{copy}n{number}", f"community{number % COMMUNITIES}"
                size += out.write(orjson.dumps(row) + b"\n")
    return path, path_size(path)


def path_size(path: Path) -> float:
    """Decoded size of a .zst file in MB."""
    return sum(len(chunk) for chunk in chunks(path)) / 1e6


def chunks(path: Path):  # type: ignore[no-untyped-def]
    """The file's decoded bytes, 8 MiB at a time."""
    with path.open("rb") as raw:
        stream = zstandard.ZstdDecompressor(max_window_size=2**31).stream_reader(raw, read_across_frames=True)
        while chunk := stream.read(8 << 20):
            yield chunk


def decompress(path: Path) -> int:
    """The limit: decode and do nothing."""
    for _ in chunks(path):
        pass
    return 0


def loads_each_line(path: Path) -> int:
    """The scripts in use today."""
    kept = 0
    with path.open("rb") as raw:
        stream = zstandard.ZstdDecompressor(max_window_size=2**31).stream_reader(raw, read_across_frames=True)
        for line in io.TextIOWrapper(stream, encoding="utf-8"):
            kept += json.loads(line)["subreddit"] == WANTED
    return kept


def ours(path: Path) -> int:
    """The reader that the corpus stage uses."""
    options = ReadOptions(subreddits=frozenset({WANTED}), max_malformed_share=0.01)
    return sum(
        dropped is None and kind == COMMENT
        for table in read_dump(Dump(COMMENT, str(path)), options)
        for dropped, kind in zip(table["dropped"].to_pylist(), table["kind"].to_pylist(), strict=True)
    )


def measured(way: Callable[[Path], int], path: Path, megabytes: float) -> dict[str, float]:
    """Rate and peak memory of one way in a fresh process, best of three."""
    results = []
    for _ in range(3):
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            results.append(pool.apply(timed, (way, path)))
    seconds, peak, kept = min(results)
    return {"mb_per_cpu_s": round(megabytes / seconds, 1), "peak_mb": round(peak), "kept": kept}


def timed(way: Callable[[Path], int], path: Path) -> tuple[float, float, int]:
    """CPU seconds, peak resident MB of this process, rows kept."""
    start = time.process_time()
    kept = way(path)
    return time.process_time() - start, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, kept
