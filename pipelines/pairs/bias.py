"""What a pair rule really selects on, counted where the pairs are made and added up on the driver.

Each task counts, for every rule side by side, its pairs by kind, histograms of its gaps
and the pairs it has in common with each other rule. Everything is a number that adds up,
so the report costs one pass and a driver's memory that does not grow with the corpus.
Histograms hold values rounded to two digits: quantiles are right to five per cent.
"""

from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np

from configs.pairs import RuleName
from pipelines.corpus.notes import Account, Notes
from pipelines.pairs.replies import Floats, Ints, Replies
from pipelines.pairs.select import Selection

HOUR = 3600.0
GAPS = ("score_gap", "arrival_gap", "rank_gap", "length_gap")
"""Histograms: net votes, hours, places of arrival and characters, chosen less rejected."""
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
SHARES = ("earlier", "longer", "downvoted")


def note_rules(replies: Replies, found: Mapping[RuleName, Selection], notes: Notes) -> None:
    """Count the pairs of every rule on a table of threads."""
    codes = {name: selection.chosen * len(replies) + selection.rejected for name, selection in found.items()}
    for name, selection in found.items():
        kind, chosen, rejected = f"rule:{name}", selection.chosen, selection.rejected
        notes.add(kind, "candidates", int(selection.candidates.sum()))
        notes.add(kind, "pairs", len(chosen))
        notes.add(kind, "posts", len(np.unique(selection.pairs.posts)))
        notes.add(kind, "earlier", int((replies.times[chosen] < replies.times[rejected]).sum()))
        notes.add(kind, "longer", int((replies.lengths[chosen] > replies.lengths[rejected]).sum()))
        notes.add(kind, "downvoted", int((replies.scores[rejected] <= 0).sum()))
        for gap, values in gaps(replies, chosen, rejected).items():
            for value, count in zip(*np.unique(rounded(values), return_counts=True), strict=True):
                notes.add(f"{gap}:{name}", f"{value:g}", int(count))
        for other in found:
            if name < other:
                both = np.isin(codes[name], codes[other], assume_unique=True).sum()
                notes.add("both", f"{name}|{other}", int(both))


def gaps(replies: Replies, chosen: Ints, rejected: Ints) -> dict[str, Floats]:
    """The values of GAPS, one a pair."""
    return {
        "score_gap": (replies.scores[chosen] - replies.scores[rejected]).astype(float),
        "arrival_gap": (replies.times[chosen] - replies.times[rejected]) / HOUR,
        "rank_gap": (replies.ranks[chosen] - replies.ranks[rejected]).astype(float),
        "length_gap": (replies.lengths[chosen] - replies.lengths[rejected]).astype(float),
    }


def rounded(values: Floats) -> Floats:
    """Values to two significant digits, below 0.01 to zero."""
    size = np.maximum(np.abs(values), 1e-2)
    step = 10.0 ** (np.floor(np.log10(size)) - 1)
    found: Floats = np.round(np.round(values / step) * step, 4) + 0.0
    return found


def figures(account: Account, names: list[str]) -> dict[str, Any]:
    """The rules side by side and their overlap, from the notes of all tasks."""
    rules = {name: rule_figures(account, name) for name in names}
    overlap: dict[str, dict[str, float | None]] = {}
    for first in names:
        for second in names:
            own, other = rules[first]["pairs"], rules[second]["pairs"]
            common = own if first == second else account["both"]["|".join(sorted((first, second)))]
            overlap.setdefault(first, {})[second] = round(common / (own + other - common), 4) if own + other else None
    return {"rules": rules, "overlap": overlap}


def rule_figures(account: Account, name: str) -> dict[str, Any]:
    """Counts, shares and quantiles of one rule."""
    counts = account[f"rule:{name}"]
    pairs = counts["pairs"]
    found: dict[str, Any] = {part: counts[part] for part in ("candidates", "pairs", "posts")}
    for part in SHARES:
        label = "rejected_downvoted" if part == "downvoted" else f"chosen_{part}"
        found[label] = round(counts[part] / pairs, 4) if pairs else None
    return found | {gap: quantiles(account[f"{gap}:{name}"]) for gap in GAPS}


def quantiles(histogram: Counter[str | None]) -> dict[str, float | None]:
    """Quantiles of a histogram whose names are its values: the least value that so many do not exceed."""
    values = sorted((float(str(name)), count) for name, count in histogram.items())
    through = np.cumsum([count for _, count in values])
    if not len(through):
        return {f"q{round(100 * q):02d}": None for q in QUANTILES}
    places = np.searchsorted(through, [q * through[-1] for q in QUANTILES])
    return {f"q{round(100 * q):02d}": values[place][0] for q, place in zip(QUANTILES, places, strict=True)}
