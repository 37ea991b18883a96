"""What a process counted in the last minutes, kept in its memory: ``llumi status`` asks each replica for it.

Prometheus keeps history and need not be there; this answers at once, without one. Numbers lie in
steps of ten seconds, fifteen minutes of them; a replica that restarts begins anew.
"""

import bisect
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from serving.watching import definitions as d

STEP_S = 10.0
"""Seconds that are counted together."""
KEPT_S = 900.0
"""Seconds that are kept."""

Labels = tuple[str, ...]
"""Values of a metric's labels, in their order."""
Numbers = dict[str, dict[Labels, float]]
Histograms = dict[str, dict[Labels, list[float]]]
"""Of each metric and labels: a count for each bucket, the last for all that is above, then the sum."""


@dataclass
class Seen:
    """Numbers of one process, or of several together."""

    seconds: float = 0.0
    """Time that they cover; of several, the longest."""
    counters: Numbers = field(default_factory=dict)
    gauges: Numbers = field(default_factory=dict)
    histograms: Histograms = field(default_factory=dict)

    def total(self, metric: d.Definition, labels: Labels | None = None) -> float:
        """A counter's sum, over all labels or of these."""
        found = self.counters.get(metric.name, {})
        return sum(found.values()) if labels is None else found.get(labels, 0.0)

    def rate(self, metric: d.Definition, labels: Labels | None = None) -> float:
        """The same a second."""
        return self.total(metric, labels) / self.seconds if self.seconds else 0.0

    def quantile(self, metric: d.Definition, q: float, labels: Labels | None = None) -> float | None:
        """A quantile of a histogram, as Prometheus' ``histogram_quantile`` estimates it; None where nothing was seen.

        Linear within a bucket; the end of the last one where it lies above.
        """
        found = self.histograms.get(metric.name, {})
        rows = [row for key, row in found.items() if labels in (None, key)]
        buckets = [sum(row[i] for row in rows) for i in range(len(d.SECONDS) + 1)]
        total = sum(buckets)
        if not total:
            return None
        rank, below = q * total, 0.0
        for i, count in enumerate(buckets[:-1]):
            if count and below + count >= rank:
                lower = d.SECONDS[i - 1] if i else 0.0
                return lower + (d.SECONDS[i] - lower) * (rank - below) / count
            below += count
        return d.SECONDS[-1]


class Recent:
    """Counters and histograms by time, gauges as they are."""

    def __init__(self, clock: Callable[[], float] = time.monotonic):
        self._clock = clock
        self._started = clock()
        self._steps: deque[tuple[float, Seen]] = deque()
        self._gauges: Numbers = {}
        self._lock = threading.Lock()

    def add(self, metric: d.Definition, value: float, labels: Labels) -> None:
        """Count up."""
        with self._lock:
            row = self._now().counters.setdefault(metric.name, {})
            row[labels] = row.get(labels, 0.0) + value

    def set(self, metric: d.Definition, value: float, labels: Labels) -> None:
        """Set a gauge."""
        with self._lock:
            self._gauges.setdefault(metric.name, {})[labels] = value

    def observe(self, metric: d.Definition, value: float, labels: Labels) -> None:
        """Put a value into a histogram."""
        with self._lock:
            rows = self._now().histograms.setdefault(metric.name, {})
            row = rows.setdefault(labels, [0.0] * (len(d.SECONDS) + 2))
            row[bisect.bisect_left(d.SECONDS, value)] += 1
            row[-1] += value

    def seen(self, seconds: float) -> Seen:
        """The last ``seconds`` in whole steps, or what there is of them."""
        with self._lock:
            now = self._clock()
            since = step_of(now - min(seconds, KEPT_S))
            found = merged(step for begun, step in self._steps if begun >= since)
            found.gauges = {name: dict(rows) for name, rows in self._gauges.items()}
            found.seconds = max(1.0, now - max(since, self._started))
            return found

    def _now(self) -> Seen:
        begun = step_of(self._clock())
        if not self._steps or self._steps[-1][0] != begun:
            self._steps.append((begun, Seen()))
            while self._steps[0][0] < begun - KEPT_S:
                self._steps.popleft()
        return self._steps[-1][1]


def step_of(moment: float) -> float:
    """When the step that a moment lies in began."""
    return moment // STEP_S * STEP_S


def merged(several: Iterable[Seen]) -> Seen:
    """Sums, and of times the latest."""
    result = Seen()
    for one in several:
        result.seconds = max(result.seconds, one.seconds)
        add_numbers(result.counters, one.counters)
        add_numbers(result.gauges, one.gauges)
        for name, rows in one.histograms.items():
            into = result.histograms.setdefault(name, {})
            for labels, row in rows.items():
                before = into.get(labels, [0.0] * len(row))
                into[labels] = [a + b for a, b in zip(before, row, strict=True)]
    return result


def add_numbers(into: Numbers, numbers: Numbers) -> None:
    """Add counters or gauges to others."""
    for name, rows in numbers.items():
        latest = name == d.LAST_ERROR.name
        here = into.setdefault(name, {})
        for labels, value in rows.items():
            before = here.get(labels, 0.0)
            here[labels] = max(before, value) if latest else before + value
