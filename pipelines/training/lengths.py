"""How long rows are, and what share of them is learned: exact figures from counts of each length.

A file's counts are a few kilobytes whatever its size, so they travel to the driver and add up
there. Quantiles are by nearest rank: a length that some row has.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

PARTS = ("prompt", "completion", "whole")
QUANTILES = {"p50": 0.5, "p90": 0.9, "p99": 0.99}
BINS = 16
"""Bars of the histogram, of equal width up to ``training.max_length``."""


class Lengths:
    """Counts of the lengths of prompts, completions and both together, in tokens."""

    def __init__(self, counts: Mapping[str, Sequence[int]] | None = None):
        self.counts = {part: np.asarray((counts or {}).get(part, ()), np.int64) for part in PARTS}

    def add(self, prompt: int, completions: Iterable[int]) -> None:
        """Count one row: its prompt once, and each of its completions, alone and after the prompt."""
        self._count("prompt", prompt)
        for completion in completions:
            self._count("completion", completion)
            self._count("whole", prompt + completion)

    def _count(self, part: str, length: int) -> None:
        counts = self.counts[part]
        if length >= len(counts):
            self.counts[part] = counts = np.pad(counts, (0, max(64, length + 1)))
        counts[length] += 1

    def __add__(self, other: "Lengths") -> "Lengths":
        summed = Lengths()
        for part in PARTS:
            longer, shorter = sorted((self.counts[part], other.counts[part]), key=len, reverse=True)
            summed.counts[part] = longer.copy()
            summed.counts[part][: len(shorter)] += shorter
        return summed

    def as_lists(self) -> dict[str, list[int]]:
        """The counts as plain numbers, to be sent."""
        return {part: np.trim_zeros(counts, "b").tolist() for part, counts in self.counts.items()}

    def figures(self, max_length: int) -> dict[str, Any]:
        """Figures by part, the share of tokens that are learned (0-1), and a histogram up to ``max_length``."""
        found: dict[str, Any] = {part: summary(counts) for part, counts in self.counts.items()}
        tokens = {part: total(counts) for part, counts in self.counts.items()}
        found["trained_share"] = round(tokens["completion"] / tokens["whole"], 4) if tokens["whole"] else None
        edges = np.linspace(0, max_length, BINS + 1)
        histogram: dict[str, Any] = {"edges": [round(float(edge), 1) for edge in edges]}
        for part, counts in self.counts.items():
            bars, _ = np.histogram(np.arange(len(counts)), edges, weights=counts)
            histogram[part] = [int(bar) for bar in bars]
        return {**found, "histogram": histogram}


def total(counts: np.ndarray) -> int:
    """Tokens of all rows together."""
    return int((np.arange(len(counts)) * counts).sum())


def summary(counts: np.ndarray) -> dict[str, float]:
    """Number, minimum, mean, quantiles and maximum in tokens; only the number where there is no row."""
    rows = int(counts.sum())
    if not rows:
        return {"count": 0}
    present = np.flatnonzero(counts)
    below = np.cumsum(counts)
    quantiles = {name: int(np.searchsorted(below, np.ceil(share * rows))) for name, share in QUANTILES.items()}
    ends = {"min": int(present[0]), "mean": round(total(counts) / rows, 2)}
    return {"count": rows, **ends, **quantiles, "max": int(present[-1])}
