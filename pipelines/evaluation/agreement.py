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
from pipelines.evaluation.statistics import Resampling, share, share_difference
from pipelines.pairs.old_rules import RULES, pair_ids
from pipelines.pairs.schema import PAIR

NAIVE = "naive"
PairIds = tuple[str, str, str]
"""post_id, chosen_id, rejected_id."""


def measure(
    settings: Settings, threads: pa.Table, truth: Mapping[str, float], rated_pairs: Path | None
) -> dict[str, dict[str, Any]]:
    """By rule, and under ``ratings``: the share of held-out pairs that agree with the true quality.

    ``shp_minus_naive`` is the difference of the two shares.
    """
    how = Resampling.of(settings)
    hits = {name: judged(ids(pair_ids(threads, settings.pairs, name)), truth) for name in RULES}
    if rated_pairs is not None:
        hits["ratings"] = judged(rated(rated_pairs), truth)
    found = {name: agree(rows, how) | {"default": name == settings.pairs.rule} for name, rows in hits.items()}
    if settings.pairs.rule != NAIVE:
        change = share_difference(hits[settings.pairs.rule], hits[NAIVE], how)
        found[f"{settings.pairs.rule}_minus_{NAIVE}"] = change.as_dict() | {"default": False}
    return found


def judged(pairs: Sequence[PairIds], truth: Mapping[str, float]) -> list[tuple[str, bool]]:
    """Post, and whether the chosen reply is truly the better one, of each pair whose truth is known."""
    known = [pair for pair in pairs if pair[1] in truth and pair[2] in truth]
    return [(post, truth[chosen] > truth[rejected]) for post, chosen, rejected in known]


def agree(hits: Sequence[tuple[str, bool]], how: Resampling) -> dict[str, Any]:
    """Share of hits, resampled by post."""
    return share([hit for _, hit in hits], [post for post, _ in hits], how).as_dict()


def rated(folder: Path) -> list[PairIds]:
    """The test pairs from ratings, each once though it may stand in both models' rows."""
    pairs: dict[PairIds, None] = {}
    for model in MODELS:
        pairs |= dict.fromkeys(ids(held_out.read(folder / model / "test", PAIR)))
    return list(pairs)


def ids(pairs: pa.Table) -> list[PairIds]:
    """The three ids of each pair."""
    return list(zip(*(pairs[name].to_pylist() for name in held_out.PAIR_KEY), strict=True))
