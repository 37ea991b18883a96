"""CPU time and peak memory of a process and everything below it, Ray's daemons and workers included.

    figures = measured("benchmarks.corpus_ways", "ray", ...)    # runs the module in a process of its own

The tree is looked at from outside, every ``EVERY_S``, so that looking is not measured. A
process that has ended keeps what it had spent when last seen: workers come and go during a
run, and their parent is not told what they used. Pages that several processes share, as
Ray's object store, are counted once (proportional set size).
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from bisect import bisect
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

EVERY_S = 0.05
"""Seconds between two looks at CPU times; memory, dearer to ask for, is looked at every fourth time."""


class Tree:
    """What a process and its descendants have used so far."""

    def __init__(self, pid: int):
        self.root = psutil.Process(pid)
        self.spent: dict[tuple[int, float], float] = {}
        self.times: list[float] = []
        self.totals: list[float] = []
        self.peak = 0

    def look(self, memory: bool) -> None:
        """Add up what is there now."""
        held = 0
        with suppress(psutil.NoSuchProcess):
            for process in (self.root, *self.root.children(recursive=True)):
                with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
                    self.spent[process.pid, process.create_time()] = sum(process.cpu_times()[:2])
                    held += process.memory_full_info().pss if memory else 0
        self.peak = max(self.peak, held)
        self.times.append(time.time())
        self.totals.append(sum(self.spent.values()))

    def cpu_until(self, moment: float) -> float:
        """CPU seconds spent until then (seconds since 1970), between two looks in proportion."""
        after = min(max(bisect(self.times, moment), 1), len(self.times) - 1)
        early, late = self.times[after - 1], self.times[after]
        share = min(max((moment - early) / max(late - early, 1e-9), 0.0), 1.0)
        return self.totals[after - 1] + share * (self.totals[after] - self.totals[after - 1])


def measured(module: str, *arguments: str) -> dict[str, Any]:
    """Run ``python -m module arguments RESULT.json``; what it wrote there, with what its tree used.

    The module reports the moments ``began`` and ``ended`` (seconds since 1970). In their place
    come ``cpu_s`` and ``wall_s`` between them, ``fixed_cpu_s`` before, and ``peak_mb`` over the whole run.
    """
    with tempfile.NamedTemporaryFile(suffix=".json") as result:
        environment = os.environ | {"OMP_NUM_THREADS": "1", "RAY_USAGE_STATS_ENABLED": "0"}
        command = [sys.executable, "-m", module, *arguments, result.name]
        child = subprocess.Popen(command, env=environment)
        tree, looks = Tree(child.pid), 0
        while child.poll() is None:
            tree.look(memory=looks % 4 == 0)
            looks += 1
            time.sleep(EVERY_S)
        if child.returncode:
            raise RuntimeError(f"{' '.join(command[1:-1])} ended with {child.returncode}")
        figures: dict[str, Any] = json.loads(Path(result.name).read_text(encoding="utf-8"))
    began, ended = figures.pop("began"), figures.pop("ended")
    before = tree.cpu_until(began)
    return figures | {
        "cpu_s": round(tree.cpu_until(ended) - before, 2),
        "wall_s": round(ended - began, 2),
        "fixed_cpu_s": round(before, 2),
        "peak_mb": round(tree.peak / 1e6),
    }
