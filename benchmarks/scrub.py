"""Scrubbing: comments a second on one core, as they are and with something to find in every one.

Each column is scrubbed in a process of its own with one thread in polars; CPU seconds,
best of three. The scalar way, plain Python on each text, stands beside it as the baseline.
"""

import multiprocessing
import os
import time
from collections.abc import Callable

import pyarrow as pa

from benchmarks.texts import comments

REPEATS, TIMES, SCALAR_SHARE = 3, 3, 10
"""Passes over the column, repeats of a measurement, and of how many texts the scalar way takes one."""
PLANTED = (
    " mail me at sunny.days@example.org", " or call 415-555-0132 after six", " see https://example.org/a?b=c&d=e",
    " u/quiet_harbor said so", " we meet at 45 Oak Ave, Springfield", " call 1-800-273-8255 any time",
)  # fmt: skip
"""Put at the end of the texts by turns, so that no gate helps."""


def run() -> dict[str, object]:
    """Comments a CPU second of both ways on both columns."""
    source, texts = comments()
    planted = [text + PLANTED[i % len(PLANTED)] for i, text in enumerate(texts)]
    rates = {
        name: {way.__name__: measured(way, column) for way in (column_way, scalar_way)}
        for name, column in (("as they are", texts), ("something in each", planted))
    }
    return {
        "texts": source,
        "comments": len(texts),
        "mean_characters": round(sum(map(len, texts)) / len(texts)),
        "comments_per_cpu_s": rates,
        "column / scalar": {name: round(r["column_way"] / r["scalar_way"], 1) for name, r in rates.items()},
    }


def measured(way: Callable[[list[str]], float], texts: list[str]) -> int:
    """Texts a CPU second, best of ``TIMES``."""
    os.environ["POLARS_MAX_THREADS"] = "1"
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return round(len(texts) / min(pool.apply(way, (texts,)) for _ in range(TIMES)))


def column_way(texts: list[str]) -> float:
    """CPU seconds of ``scrub_column``, a column of each text once."""
    from pipelines.corpus.scrub import scrub_column

    column = pa.array(texts, pa.string())
    scrub_column(column.slice(0, 100))
    start = time.process_time()
    for _ in range(REPEATS):
        scrub_column(column)
    return (time.process_time() - start) / REPEATS


def scalar_way(texts: list[str]) -> float:
    """CPU seconds of ``scrub`` on each text."""
    from pipelines.corpus.scrub import scrub

    scrub(texts[0])
    start = time.process_time()
    few = texts[::SCALAR_SHARE]
    for text in few:
        scrub(text)
    return (time.process_time() - start) * len(texts) / len(few)
