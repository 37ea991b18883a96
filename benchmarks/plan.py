"""What all of Reddit would take: tasks, memory, shuffle volume, hours and cost, from measured rates.

    python -m benchmarks.plan

A plan on paper: rates are those of ``results/corpus.json`` and ``results/reader.json`` on
this machine's cores, sizes of rows are those of the college dumps, and what is not
measured stands in ``Assumed`` and in NODES, to be replaced by your own figures.
"""

import json
import sys
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import Any

from configs.corpus import CorpusSettings
from pipelines.corpus.flow import GROUP_BYTES, MOST, TIMES_HELD

MOST_ASKED = 65_535
"""The most that ``corpus.partitions`` takes."""
RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True)
class Node:
    """A node type and its public on-demand price."""

    name: str
    cores: int
    """Hardware threads, each counted as one core of the measured machine."""
    memory_gb: float
    dollars_an_hour: float


NODES = (Node("m7g.4xlarge", 16, 64, 8 * 0.0816), Node("c5.4xlarge", 16, 32, 0.68))
"""AWS us-east-1, Linux, on demand. m7g: 8 x m7g.large at $0.0816/h as told for June 2026 by factualminds.com
("Amazon EC2 On-Demand Pricing", 2026-06-17); c5.4xlarge: $0.68/h (table in the Auto Scaling user guide)."""


@dataclass(frozen=True)
class Assumed:
    """What no benchmark here can say."""

    stored_tb: float = 4.0
    """All posts and comments 2005-2026 as .zst."""
    decoded_times: float = 12.0
    """Decoded bytes a stored byte."""
    largest_file_gb: float = 30.0
    """Stored size of the largest monthly file; of a single frame it cannot be split, and one task reads it."""
    bytes_a_line: float = 2000.0
    """Decoded bytes of a line with all its 50 to 100 fields; the college rows have 8."""
    nodes: int = 20
    busy: float = 0.7
    """Share of the cores' time that is spent on the work: stragglers, waiting for storage, scheduling."""


@dataclass(frozen=True)
class Wanted:
    """What is kept of the lines."""

    name: str
    share: float


WANTED = (Wanted("30 communities", 0.005), Wanted("one in twenty", 0.05), Wanted("everything", 1.0))


def rates() -> dict[str, float]:
    """Measured rates and sizes: bytes or rows a CPU second, bytes a row, seconds a row."""
    corpus, reader = (
        json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8")) for name in ("corpus", "reader")
    )
    apart, held = corpus["apart, rows/CPU s"], corpus["held"]
    return {
        "search_bytes": search_rate(reader) * 1e6,
        "lines": held["lines read"] / corpus["growth"]["ray"]["cpu_s_per_1x"],
        "kept": held["rows kept by cleaning"] / held["lines read"],
        "held": held["held_bytes_a_row"],
        "key": held["key_bytes_a_row"],
        "row_seconds": sum(1 / apart[name] for name in ("language", "scrubbing", "near duplicates, keys")),
    }


def search_rate(reader: dict[str, Any]) -> float:
    """Decoded MB a CPU second of the reader where few communities are kept, in its slowest case."""
    cases = [case for case in (reader, *reader.values()) if isinstance(case, dict) and "ways" in case]
    return min(float(case["ways"]["reader"]["mb_per_cpu_s"]) for case in cases)


def plan(wanted: Wanted, node: Node, assumed: Assumed, measured: dict[str, float]) -> dict[str, str]:
    """One row of the table; every figure is worked out in one line from those above it."""
    decoded = assumed.stored_tb * 1e12 * assumed.decoded_times
    lines = decoded * wanted.share / assumed.bytes_a_line
    rows = lines * measured["kept"]
    search = decoded / measured["search_bytes"]
    convert = lines / measured["lines"]
    texts = rows * measured["row_seconds"]
    core_seconds = search + convert + texts
    shuffled, keys = rows * measured["held"], rows * measured["key"]
    cores = assumed.nodes * node.cores
    longest_task = assumed.largest_file_gb * 1e9 * assumed.decoded_times / measured["search_bytes"]
    hours = max(core_seconds / cores / assumed.busy, longest_task) / 3600
    settings = CorpusSettings()
    at_once = min(node.cores, int(0.8 * node.memory_gb / settings.reader_memory_gb))
    partitions = min(MOST_ASKED, max(MOST, ceil(shuffled / (1 << 30))))
    return {
        "kept": wanted.name,
        "node": f"{assumed.nodes} x {node.name}",
        "lines": f"{lines / 1e9:,.2f} G",
        "core hours: search + join and pairs + texts": " + ".join(f"{s / 3600:,.0f}" for s in (search, convert, texts)),
        "hours": f"{hours:,.1f}",
        "dollars": f"{hours * assumed.nodes * node.dollars_an_hour:,.0f}",
        "text shuffled, once": f"{shuffled / 1e9:,.0f} GB",
        "keys shuffled": f"{keys / 1e9:,.0f} GB",
        "partitions": f"{partitions:,}",
        "readers a node": str(at_once),
        "memory a later task": f"{max(GROUP_BYTES, shuffled / partitions) * TIMES_HELD / 1e9:.1f} GB",
    }


def table() -> str:
    """The plan as a table in Markdown, what was measured before it."""
    measured, assumed = rates(), Assumed()
    rows = [plan(wanted, node, assumed, measured) for wanted in WANTED for node in NODES]
    names = list(rows[0])
    lines = [f"- {name}: {value:,.3g}" for name, value in measured.items()]
    lines += ["", f"| {' | '.join(names)} |", f"|{'---|' * len(names)}"]
    return "\n".join([*lines, *(f"| {' | '.join(row.values())} |" for row in rows)])


if __name__ == "__main__":
    sys.stdout.write(table() + "\n")
