"""Filter, join and pairs through the stages, against a DuckDB and a polars script in one process.

The college dumps (``LLUMI_SHARED``; the built-in sample where they are not at hand) are
repeated with new ids to 1, 2, 4 and 8 times their size; every way is run REPEATS times on
each, the median counts. All ways must count the same posts, comments and pairs. What only
our stages do (scrubbing, language, near duplicates) is switched off in the timed runs and
timed by itself, one thread, in rows a CPU second.
"""

import os
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.compute as pc
import zstandard

from benchmarks.corpus_ways import SETTINGS
from benchmarks.tree import measured
from configs.corpus import CleaningSettings, SampleSettings
from pipelines.corpus import duplicates, fields
from pipelines.corpus.cleaning import clean
from pipelines.corpus.reader import Dump, ReadOptions, read_dump
from pipelines.corpus.schema import COMMENT, POST
from pipelines.corpus.scrub import scrub_column
from pipelines.sample.build import build as build_sample

SCALES = (1, 2, 4, 8)
WAYS = ("duckdb", "polars", "ray")
REPEATS = 3
COUNTED = ("posts", "comments", "pairs")
PLOT = Path(__file__).parent / "results" / "corpus.png"


def run() -> dict[str, object]:
    """CPU seconds and peak memory by way and scale, ratios, growth, and the rates of what is timed apart."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        data, source = source_dumps(folder)
        scales = {}
        for scale in SCALES:
            dumps = repeated(source, scale, folder / f"dumps{scale}")
            scales[scale] = {way: median_of(way, dumps, folder / f"{way}{scale}") for way in WAYS}
            agree(scale, scales[scale])
        apart, sizes = rates_apart(folder / "dumps1")
    figures = {
        "data": data,
        "repeats": REPEATS,
        "scales": {f"{scale}x": ways for scale, ways in scales.items()},
        "ray / duckdb, CPU": {f"{scale}x": ratio(ways, "ray", "duckdb") for scale, ways in scales.items()},
        "ray / polars, CPU": {f"{scale}x": ratio(ways, "ray", "polars") for scale, ways in scales.items()},
        "peak memory 8x / 1x": {way: round(scales[8][way]["peak_mb"] / scales[1][way]["peak_mb"], 2) for way in WAYS},
        "growth": {way: growth(scales, way) for way in WAYS},
        "apart, rows/CPU s": apart,
        "held": sizes,
    }
    plot(scales, PLOT)
    return figures


def source_dumps(folder: Path) -> tuple[str, dict[str, list[Path]]]:
    """What is measured on, and its files by kind."""
    college = Path(os.environ.get("LLUMI_SHARED", "../shared")) / "data" / "college"
    if college.is_dir():
        return "college dumps", {"RS": sorted(college.glob("RS_*.zst")), "RC": sorted(college.glob("RC_*.zst"))}
    build_sample(SampleSettings(threads=3000), folder / "sample")
    found = {kind: sorted((folder / "sample").glob(f"{kind}_*.zst")) for kind in ("RS", "RC")}
    return "the built-in sample of 3,000 threads (the college dumps are not at LLUMI_SHARED)", found


def repeated(source: dict[str, list[Path]], scale: int, folder: Path) -> Path:
    """The dumps ``scale`` times, a file a copy and kind, with ids and texts of their own.

    Texts are as our reader gives them (entities resolved), since the scripts have no step for
    that; a copy's number is put behind each, so that no copy is an exact duplicate of another.
    """
    folder.mkdir()
    for kind, files in source.items():
        rows = [row for file in files for row in rows_of(file)]
        for copy in range(scale):
            with (
                (folder / f"{kind}_{copy}.zst").open("wb") as raw,
                zstandard.ZstdCompressor(3).stream_writer(raw) as out,
            ):
                for row in rows:
                    out.write(orjson.dumps(renewed(row, copy)) + b"\n")
    return folder


def rows_of(file: Path) -> list[dict[str, Any]]:
    """The JSON objects of a dump whose scores and times are numbers, as the scripts need them."""
    with file.open("rb") as raw:
        stream = zstandard.ZstdDecompressor(max_window_size=2**31).stream_reader(raw, read_across_frames=True)
        lines = stream.read().splitlines()
    rows = []
    for line in lines:
        try:
            row = orjson.loads(line)
        except orjson.JSONDecodeError:
            continue
        if isinstance(row.get("created_utc"), int) and isinstance(row.get("score"), int):
            rows.append({name: fields.text(v) if name in TEXTS else v for name, v in row.items()})
    return rows


TEXTS = frozenset({"title", "selftext", "body"})


def renewed(row: dict[str, Any], copy: int) -> dict[str, Any]:
    """The row under the ids of a copy."""
    if not copy:
        return row
    ids = {name: f"{row[name]}k{copy}" for name in ("id", "link_id", "parent_id") if row.get(name)}
    texts = {name: f"{row[name]} k{copy}" for name in TEXTS - {"title"} if row.get(name) and row[name][0] != "["}
    return row | ids | texts


def median_of(way: str, dumps: Path, output: Path) -> dict[str, Any]:
    """The run of median CPU time of ``REPEATS``, each in a process of its own."""
    runs = []
    for number in range(REPEATS):
        runs.append(measured("benchmarks.corpus_ways", way, str(dumps), str(output / str(number))))
    runs.sort(key=lambda figures: float(figures["cpu_s"]))
    middle = runs[len(runs) // 2]
    rounded = {name: round(v, 2) if isinstance(v, float) else v for name, v in middle.items()}
    return rounded | {"peak_mb": statistics.median(figures["peak_mb"] for figures in runs)}


def agree(scale: int, ways: dict[str, dict[str, Any]]) -> None:
    """Raises AssertionError where two ways count differently."""
    counts = {way: [figures[name] for name in COUNTED] for way, figures in ways.items()}
    if len({tuple(found) for found in counts.values()}) > 1:
        raise AssertionError(f"the ways disagree at {scale}x on {', '.join(COUNTED)}: {counts}")


def ratio(ways: dict[str, dict[str, Any]], one: str, other: str) -> float:
    """CPU seconds of one way over those of another."""
    return round(ways[one]["cpu_s"] / ways[other]["cpu_s"], 2)


def growth(scales: dict[int, dict[str, dict[str, Any]]], way: str) -> dict[str, float]:
    """Least-squares line of CPU seconds over the scale, and the largest distance from it as a share."""
    seconds = [scales[scale][way]["cpu_s"] for scale in SCALES]
    slope, start = statistics.linear_regression(SCALES, seconds)
    off = max(abs(start + slope * scale - spent) / spent for scale, spent in zip(SCALES, seconds, strict=True))
    return {"cpu_s_per_1x": round(slope, 3), "cpu_s_at_0x": round(start, 3), "largest_deviation": round(off, 3)}


def rates_apart(dumps: Path) -> tuple[dict[str, int], dict[str, float]]:
    """Rows a CPU second of one thread (what the timed runs leave out, and cleaning without it), and sizes of rows."""
    options = ReadOptions(subreddits=frozenset(), max_malformed_share=0.01)
    records = pa.concat_tables(
        table
        for kind, prefix in ((POST, "RS"), (COMMENT, "RC"))
        for file in sorted(dumps.glob(f"{prefix}_*"))
        for table in read_dump(Dump(kind, str(file)), options)
    )
    off, every = SETTINGS.cleaning, CleaningSettings()
    language = off.model_copy(update={"drop_not_english": True})
    rows = clean(records, off)
    live = rows.filter(pc.is_null(rows["dropped"])).combine_chunks()
    cleaning, with_language = (seconds(lambda s=s: clean(records, s)) for s in (off, language))  # type: ignore[misc]
    near = every.model_copy(update={"drop_duplicate": False})
    spent = {
        "cleaning": (records.num_rows, cleaning),
        "language": (live.num_rows, with_language - cleaning),
        "scrubbing": (live.num_rows, seconds(lambda: scrub_column(live["text"].combine_chunks()))),
        "exact duplicates, keys": (live.num_rows, seconds(lambda: duplicates.keys(live, off))),
        "near duplicates, keys": (live.num_rows, seconds(lambda: duplicates.keys(live, near))),
    }
    sizes = {
        "lines read": records.num_rows,
        "rows kept by cleaning": live.num_rows,
        "decoded_bytes_a_line": sum(map(decoded_size, sorted(dumps.glob("R*")))) / records.num_rows,
        "held_bytes_a_row": live.nbytes / live.num_rows,
        "key_bytes_a_row": duplicates.keys(live, every).nbytes / live.num_rows,
    }
    return (
        {name: round(count / max(taken, 1e-3)) for name, (count, taken) in spent.items()},
        {name: round(size, 1) for name, size in sizes.items()},
    )


def decoded_size(file: Path) -> int:
    """Bytes of a dump as JSON lines."""
    with file.open("rb") as raw:
        return len(zstandard.ZstdDecompressor().stream_reader(raw).read())


def seconds(step: Callable[[], object]) -> float:
    """CPU seconds of the process, the best of three."""
    found = []
    for _ in range(3):
        start = time.process_time()
        step()
        found.append(time.process_time() - start)
    return min(found)


def plot(scales: dict[int, dict[str, dict[str, Any]]], path: Path, ways: Sequence[str] = WAYS) -> None:
    """CPU seconds and peak memory over the scale."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 2, figsize=(9, 3.6))
    for axis, what, title in zip(axes, ("cpu_s", "peak_mb"), ("CPU seconds", "peak memory, MB"), strict=True):
        for way in ways:
            axis.plot(SCALES, [scales[scale][way][what] for scale in SCALES], marker="o", label=way)
        axis.set(xlabel="college dumps, times", title=title, ylim=(0, None), xticks=SCALES)
    axes[0].legend()
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    pyplot.close(figure)
