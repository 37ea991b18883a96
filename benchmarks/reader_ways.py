"""One way to read a dump, in a process that holds nothing else: ``python -m benchmarks.reader_ways WAY FILE NAMES``."""

import io
import json
import sys
import time
from pathlib import Path

import orjson
import zstandard


def stream(path: str) -> zstandard.ZstdDecompressionReader:
    """The file's decoded bytes."""
    decompressor = zstandard.ZstdDecompressor(max_window_size=2**31)
    return decompressor.stream_reader(Path(path).open("rb"), read_across_frames=True)


def decompress(path: str, wanted: list[str]) -> int:
    """Decode into fresh blocks of 8 MiB and do nothing."""
    decoded = stream(path)
    while decoded.read(8 << 20):
        pass
    return 0


def decompress_into(path: str, wanted: list[str]) -> int:
    """Decode into one buffer and do nothing."""
    decoded, buffer = stream(path), memoryview(bytearray(1 << 20))
    while decoded.readinto(buffer):
        pass
    return 0


def json_loads(path: str, wanted: list[str]) -> int:
    """The scripts in use today."""
    return sum(json.loads(line)["subreddit"] in wanted for line in io.TextIOWrapper(stream(path), encoding="utf-8"))


def orjson_loads(path: str, wanted: list[str]) -> int:
    """The same with a faster parser."""
    return sum(orjson.loads(line)["subreddit"] in wanted for line in io.BufferedReader(stream(path), 1 << 20))


def reader(path: str, wanted: list[str]) -> int:
    """The reader that the corpus stage uses: conversion to Arrow included."""
    from pipelines.corpus.reader import Dump, ReadOptions, read_dump

    options = ReadOptions(frozenset(wanted), max_malformed_share=0.01)
    return sum(
        table["post_id"].length() - table["post_id"].null_count for table in read_dump(Dump("comment", path), options)
    )


WAYS = {way.__name__: way for way in (decompress, decompress_into, json_loads, orjson_loads, reader)}


def main(way: str, path: str, names: str) -> None:
    """Print CPU seconds (without imports), rows kept and this process's peak memory as JSON."""
    if way == "reader":
        import pyarrow

        import pipelines.corpus.reader  # noqa: F401

        pyarrow.array([0])  # imports pandas where that is installed
    start = time.process_time()
    kept = WAYS[way](path, [name for name in names.split(",") if name])
    seconds = time.process_time() - start
    status = Path("/proc/self/status").read_text(encoding="ascii")
    peak = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))
    sys.stdout.write(json.dumps({"cpu_s": seconds, "kept": kept, "peak_mb": peak / 1024}))


if __name__ == "__main__":
    main(*sys.argv[1:])
