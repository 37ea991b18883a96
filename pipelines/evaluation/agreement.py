"""Is the chosen reply of a pair truly the better one? Only where the truth is known.

Every rule is applied anew to the test posts, so that the rule in use and the naive one,
"higher score wins", are compared on the same posts. Pairs from ratings stand beside them.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from configs.settings import Settings
from configs.training import MODELS
from pipelines.evaluation import rows as held_out
from pipelines.evaluation.statistics import Resampling, share
from pipelines.pairs.rules import RULES, pair_ids
from pipelines.pairs.schema import PAIR

PairIds = tuple[str, str, str]
"""post_id, chosen_id, rejected_id."""


def measure(
    settings: Settings, threads: pa.Table, truth: Mapping[str, float], rated_pairs: Path | None
) -> dict[str, dict[str, Any]]:
    """By rule, and under ``ratings``: how many held-out pairs agree with the true quality."""
    found = {name: agree(settings, by_rule(name, threads, settings), truth) for name in RULES}
    for name, row in found.items():
        row["default"] = name == settings.pairs.rule
    if rated_pairs is not None:
        found["ratings"] = agree(settings, rated(rated_pairs), truth) | {"default": False}
    return found


def agree(settings: Settings, pairs: Sequence[PairIds], truth: Mapping[str, float]) -> dict[str, Any]:
    """Share of pairs whose chosen reply has the higher true quality, resampled by post."""
    known = [pair for pair in pairs if pair[1] in truth and pair[2] in truth]
    hits = [truth[chosen] > truth[rejected] for _, chosen, rejected in known]
    return share(hits, [post for post, _, _ in known], Resampling.of(settings)).as_dict()


def by_rule(name: str, threads: pa.Table, settings: Settings) -> list[PairIds]:
    """The pairs that a rule makes of the test posts."""
    return ids(pair_ids(threads, settings.pairs, name))


def rated(folder: Path) -> list[PairIds]:
    """The test pairs from ratings, each once though it may stand in both models' rows."""
    pairs: dict[PairIds, None] = {}
    for model in MODELS:
        pairs |= dict.fromkeys(ids(held_out.read(folder / model / "test", PAIR)))
    return list(pairs)


def ids(pairs: pa.Table) -> list[PairIds]:
    """The three ids of each pair."""
    return list(zip(*(pairs[name].to_pylist() for name in held_out.PAIR_KEY), strict=True))
