"""The dump reader against ``json.loads`` on each line and against decompression alone.

One core and one file a case, written here: comments repeated under a hundred names of
communities, of which one is asked for (and, once, all). The rows are as short as those of
2010, or have the 60 fields of those since 2020; the texts are the sample's and, where
``LLUMI_SHARED`` has them, real ones, which decompress more slowly. Each way runs in a
process of its own (``reader_ways``), so that its memory is its own. Rates are decoded MB a
CPU second; the limit is the fastest plain decompression known, into one buffer that is
used again.
"""

import os
import random
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import zstandard

from configs.corpus import SampleSettings
from pipelines.sample.build import build

NAMES = ("quiet", "Garden", "help", "morning", "Parents", "night", "stories", "first", "Advice", "corner")
COMMUNITIES = [a + b for a in NAMES for b in NAMES]
"""A hundred names, as different from each other as names are; some are parts of others' texts."""
WANTED, MEGABYTES, REPEATS = COMMUNITIES[42], 200, 4
LATER: dict[str, Any] = {
    **{key: [] for key in ("all_awardings", "author_flair_richtext", "awarders", "mod_reports", "treatment_tags")},
    **dict.fromkeys(("approved_at_utc", "approved_by", "associated_award", "author_flair_background_color")),
    **dict.fromkeys(("author_flair_css_class", "author_flair_template_id", "author_flair_text", "banned_by")),
    **dict.fromkeys(("author_flair_text_color", "banned_at_utc", "collapsed_because_crowd_control", "likes")),
    **dict.fromkeys(("collapsed_reason", "comment_type", "mod_note", "mod_reason_by", "mod_reason_title")),
    **dict.fromkeys(("num_reports", "removal_reason", "report_reasons", "top_awarded_type")),
    **dict.fromkeys(("archived", "author_patreon_flair", "author_premium", "can_mod_post", "collapsed"), False),
    **dict.fromkeys(("locked", "saved"), False),
    **dict.fromkeys(("can_gild", "no_follow", "send_replies"), True),
    **{"author_flair_type": "text", "gilded": 0, "gildings": {}, "replies": "", "subreddit_type": "public"},
    **{"total_awards_received": 0, "user_reports": []},
}
"""Fields that comments got by 2020, as most rows have them."""


def run() -> dict[str, object]:
    """Decoded MB a CPU second and peak memory of each way, and the reader's ratios, by case."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rows = list(sample_rows(folder / "sample"))
        cases = {"short rows": (rows, False), "60-field rows": (rows, True)}
        if real := list(real_rows()):
            cases["60-field rows, real texts"] = (real, True)
        return {case: measured(folder / "RC_many.zst", rows, wide) for case, (rows, wide) in cases.items()}


def sample_rows(folder: Path) -> Iterator[dict[str, Any]]:
    """Comments of the built-in sample."""
    build(SampleSettings(threads=1500, seed=3), folder)
    for source in sorted(folder.glob("RC_*.zst")):
        yield from rows_of(source)


def real_rows() -> Iterator[dict[str, Any]]:
    """Comments of a real forum, where they are at hand."""
    for source in (Path(os.environ.get("LLUMI_SHARED", "../shared")) / "data").glob("college/RC_*.zst"):
        yield from rows_of(source)


def rows_of(path: Path) -> Iterator[dict[str, Any]]:
    """The lines of a dump that are JSON."""
    with path.open("rb") as raw:
        text = zstandard.ZstdDecompressor(max_window_size=2**31).stream_reader(raw, read_across_frames=True)
        for line in text.read().splitlines():
            try:
                yield orjson.loads(line)
            except orjson.JSONDecodeError:
                continue


def make_dump(path: Path, rows: list[dict[str, Any]], wide: bool) -> float:
    """Write the rows again and again as a dump of ``MEGABYTES``; returns its decoded size in MB."""
    chance, size, number = random.Random(5), 0, 0
    with path.open("wb") as file, zstandard.ZstdCompressor(level=3).stream_writer(file) as out:
        while size < MEGABYTES * 1e6:
            for row in rows:
                name, community = f"c{number}", COMMUNITIES[number % len(COMMUNITIES)]
                made = row | {"id": name, "subreddit": community}
                if wide:
                    made |= LATER | later(chance, name, community, str(row["link_id"])[3:])
                    made = {key: made[key] for key in sorted(made)}
                size += out.write(orjson.dumps(made) + b"\n")
                number += 1
    return size / 1e6


def later(chance: random.Random, name: str, community: str, post: str) -> dict[str, Any]:
    """Fields of later comments that differ from row to row."""
    return {
        "name": f"t1_{name}",
        "author_fullname": f"t2_{chance.getrandbits(36):x}",
        "author_created_utc": chance.randrange(1_200_000_000, 1_500_000_000),
        "permalink": f"/r/{community}/comments/{post}/some_words_of_a_title/{name}/",
        "subreddit_id": f"t5_{chance.getrandbits(20):x}",
        "subreddit_name_prefixed": f"r/{community}",
    }


def measured(path: Path, rows: list[dict[str, Any]], wide: bool) -> dict[str, object]:
    """All ways of one case, best of some runs each, in turns; their ratios."""
    megabytes = make_dump(path, rows, wide)
    few, many = WANTED, ",".join(COMMUNITIES[::4])
    ways = {
        "decompression, one buffer": ("decompress_into", ""),
        "decompression, fresh blocks": ("decompress", ""),
        "json.loads a line": ("json_loads", few),
        "orjson a line": ("orjson_loads", few),
        "reader": ("reader", few.lower()),
        "reader, 25 names": ("reader", many.lower()),
        "reader, everything kept": ("reader", ""),
    }
    runs = [{name: one(way, path, wanted) for name, (way, wanted) in ways.items()} for _ in range(REPEATS)]
    figures = {name: min((run[name] for run in runs), key=lambda figure: figure["cpu_s"]) for name in ways}
    if len({figures[name]["kept"] for name in ("json.loads a line", "orjson a line", "reader")}) > 1:
        raise AssertionError(f"the ways keep different rows: {figures}")
    rates = {name: megabytes / figure["cpu_s"] for name, figure in figures.items()}
    limit = max(rates["decompression, one buffer"], rates["decompression, fresh blocks"])
    return {
        "decoded_mb": round(megabytes, 1),
        "stored_mb": round(path.stat().st_size / 1e6, 1),
        "rows_kept": figures["reader"]["kept"],
        "ways": {
            name: {"mb_per_cpu_s": round(rates[name], 1), "peak_mb": round(figures[name]["peak_mb"])} for name in ways
        },
        "reader / json.loads": round(rates["reader"] / rates["json.loads a line"], 2),
        "reader / decompression": round(rates["reader"] / limit, 2),
        "reader / decompression into fresh blocks": round(rates["reader"] / rates["decompression, fresh blocks"], 2),
    }


def one(way: str, path: Path, wanted: str) -> dict[str, Any]:
    """CPU seconds, rows kept and peak memory of one way in a process of its own."""
    told = subprocess.run(
        [sys.executable, "-m", "benchmarks.reader_ways", way, path, wanted], capture_output=True, check=True
    )
    figures: dict[str, Any] = orjson.loads(told.stdout)
    return figures
