"""Is the chosen reply of a pair truly the better one? Only where the truth is known.

Every rule is applied anew to the test posts, so that the rule in use and all others are
compared on the same posts. Pairs from ratings stand beside them.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from configs.settings import Settings
from configs.training import MODELS
from pipelines.evaluation import rows as held_out
from pipelines.evaluation.statistics import Resampling, share, share_difference
from pipelines.pairs import bias_truth
from pipelines.pairs.exposure_model import Exposure
from pipelines.pairs.schema import PAIR

PairIds = tuple[str, str, str]
"""post_id, chosen_id, rejected_id."""


def measure(
    settings: Settings,
    threads: pa.Table,
    exposure: Exposure | None,
    truth: Mapping[str, float],
    rated_pairs: Path | None,
) -> dict[str, dict[str, Any]]:
    """By rule, and under ``ratings``: the share of held-out pairs that agree with the true quality.

    ``matched_minus_shp`` is the difference of two shares, one for each rule beside the one in use.
    Without an exposure model the rules that need none.
    """
    how, used = Resampling.of(settings), settings.pairs.rule
    found = bias_truth.judged(threads, settings.pairs, exposure, truth)
    hits: dict[str, list[tuple[str, bool]]] = {name: pairs.all() for name, pairs in found.items()}
    if rated_pairs is not None:
        hits["ratings"] = judged(rated(rated_pairs), truth)
    rows = {name: agree(pairs, how) | {"default": name == used} for name, pairs in hits.items()}
    for name in found:
        if name != used and used in found:
            change = share_difference(hits[used], hits[name], how)
            rows[f"{used}_minus_{name}"] = change.as_dict() | {"default": False}
    return rows


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
