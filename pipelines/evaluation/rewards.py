"""Do the models prefer what people preferred? Implicit rewards on held-out pairs.

The reward of a completion is beta * (log p_policy - log p_reference) (Rafailov et al. 2023,
section 4). A pair is right where the chosen reply's reward is above the rejected one's; the
margin is their difference. Each stage is measured against the model it started from and,
so that stages can be compared, against SFT, on pairs from votes and on pairs from ratings.
The share of pairs whose chosen reply is the longer one stands beside it: a model that only
learned to like length would reach that.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from configs.settings import Settings
from configs.training import MODELS
from pipelines.evaluation import rows as held_out
from pipelines.evaluation.statistics import Estimate, Resampling, estimate, share, share_verdict
from pipelines.generation.scoring import score_many

BASE = "base"
LENGTH = "length"
SOURCES = {"votes": "pairs", "ratings": "rated_pairs"}
"""Kinds of held-out pairs, and the input each is read from."""
HOME = {"sft": "votes", "dpo1": "votes", "dpo2": "ratings"}
"""The kind of pairs on which a stage's headline figure is taken: what it was trained on."""
AGAINST = {"sft": (BASE,), "dpo1": ("sft",), "dpo2": ("dpo1", "sft")}
"""The references of each stage; the first is what its training started from."""


NO_PAIRS = pa.schema([(name, pa.string()) for name in ("model", "pairs", "chosen_reason", "rejected_reason")])
"""Columns of the log-probabilities where there are no pairs."""


@dataclass(frozen=True)
class Reward:
    """One row of the table of rewards."""

    model: str
    pairs: str
    """Kind of pairs: ``votes`` or ``ratings``."""
    policy: str
    """A stage, or ``length``: the rule that the longer reply wins."""
    reference: str | None
    beta: float | None
    accuracy: Estimate
    margin: Estimate | None
    headline: bool
    """Whether this is the figure of the stage: its own pairs, against what it started from."""

    def as_dict(self) -> dict[str, Any]:
        """JSON values; ``low`` and ``high`` are the accuracy's interval."""
        margin = self.margin
        return {
            "model": self.model,
            "pairs": self.pairs,
            "policy": self.policy,
            "reference": self.reference,
            "beta": self.beta,
            "n": self.accuracy.n,
            "posts": self.accuracy.posts,
            "accuracy": self.accuracy.mean,
            "low": self.accuracy.low,
            "high": self.accuracy.high,
            "method": self.accuracy.method,
            "margin": margin.mean if margin else None,
            "margin_sd": margin.sd if margin else None,
            "margin_low": margin.low if margin else None,
            "margin_high": margin.high if margin else None,
            "verdict": share_verdict(self.accuracy) if self.policy != LENGTH else "baseline",
            "headline": self.headline,
        }


def measure(
    settings: Settings, folders: Mapping[str, Path], base: str, adapters: Mapping[str, Mapping[str, Path]]
) -> tuple[list[Reward], pa.Table]:
    """The table of rewards, and the log-probabilities it rests on.

    ``folders`` are the kinds of pairs that exist, ``adapters[model][stage]`` the adapters.
    """
    most = settings.evaluation.max_pairs
    sets = {
        (model, kind): held_out.test_pairs(folder, model, most, settings.seed)
        for model in MODELS
        for kind, folder in folders.items()
        if adapters.get(model)
    }
    policies: dict[str, Path | None] = {BASE: None}
    policies |= {f"{model}/{stage}": path for model in adapters for stage, path in adapters[model].items()}
    requests = [completions(model, kind, pairs, list(adapters[model])) for (model, kind), pairs in sets.items()]
    scored = score_many(pa.concat_tables(requests), base, policies, settings) if requests else None
    results: list[Reward] = []
    tables: list[pa.Table] = []
    for (model, kind), pairs in sets.items():
        if scored is None or not pairs.num_rows:
            continue
        logps = by_pair(scored, model, kind, pairs, list(adapters[model]))
        tables.append(logps)
        whole = pc.and_(pc.is_valid(logps["chosen_tokens"]), pc.is_valid(logps["rejected_tokens"]))
        results += compare(settings, model, kind, pairs.filter(whole), logps.filter(whole), list(adapters[model]))
    return results, pa.concat_tables(tables, promote_options="default") if tables else NO_PAIRS.empty_table()


def conserved(logps: pa.Table) -> dict[str, dict[str, Any]]:
    """By model and kind of pairs: how many were read and scored, and why others were not."""
    found: dict[str, dict[str, Any]] = {}
    names = ("model", "pairs", "chosen_reason", "rejected_reason")
    for model, kind, chosen, rejected in zip(*(logps[name].to_pylist() for name in names), strict=True):
        counted = found.setdefault(f"{model}/{kind}", {"read": 0, "kept": 0, "dropped": Counter()})
        reason = chosen or rejected
        counted["read"] += 1
        counted["kept"] += reason is None
        counted["dropped"].update([reason] if reason else [])
    return found


def completions(model: str, kind: str, pairs: pa.Table, stages: Sequence[str]) -> pa.Table:
    """Both completions of each pair, as rows to score under the base and the model's stages."""
    names = [BASE, *(f"{model}/{stage}" for stage in stages)]
    ids = [f"{model}/{kind}/{index}" for index in range(pairs.num_rows)]
    return pa.concat_tables(
        pa.table(
            {
                "row_id": pa.array([f"{name}/{side}" for name in ids], pa.string()),
                "prompt": pairs["prompt"],
                "completion": pairs[side],
                "names": pa.array([names] * len(ids), pa.list_(pa.string())),
            }
        )
        for side in ("chosen", "rejected")
    )


def by_pair(scored: pa.Table, model: str, kind: str, pairs: pa.Table, stages: Sequence[str]) -> pa.Table:
    """One row a pair: its ids, and the log-probability of both sides under each policy."""
    place = {row_id: index for index, row_id in enumerate(scored["row_id"].to_pylist())}
    columns: dict[str, Any] = {name: pairs[name] for name in held_out.PAIR_KEY}
    for side in ("chosen", "rejected"):
        taken = scored.take(pa.array([place[f"{model}/{kind}/{index}/{side}"] for index in range(pairs.num_rows)]))
        columns |= {f"{side}_{name}": taken[name] for name in ("tokens", "reason", BASE)}
        columns |= {f"{side}_{stage}": taken[f"{model}/{stage}"] for stage in stages}
    labels = {"model": pa.array([model] * pairs.num_rows), "pairs": pa.array([kind] * pairs.num_rows)}
    return pa.table(labels | columns)


def compare(
    settings: Settings, model: str, kind: str, pairs: pa.Table, logps: pa.Table, stages: Sequence[str]
) -> list[Reward]:
    """Every row of the table for one model and one kind of pairs."""
    posts = pairs["post_id"].to_pylist()
    how = Resampling.of(settings)
    chosen, rejected = (
        np.array([len(held_out.first_content(row).split()) for row in pairs[side].to_pylist()])
        for side in ("chosen", "rejected")
    )
    longer = share((chosen > rejected).tolist(), posts, how)
    results = [Reward(model, kind, LENGTH, None, None, longer, None, headline=False)]
    for stage in stages:
        for reference in AGAINST[stage]:
            if reference != BASE and reference not in stages:
                continue
            beta = getattr(settings.training, "dpo1" if stage == "sft" else stage).beta
            margins = reward_margins(logps, stage, reference, beta)
            right = share((margins > 0).tolist(), posts, how)
            margin = estimate(margins.tolist(), posts, how)
            headline = kind == HOME[stage] and reference == AGAINST[stage][0]
            results.append(Reward(model, kind, stage, reference, beta, right, margin, headline))
    return results


def reward_margins(logps: pa.Table, policy: str, reference: str, beta: float) -> NDArray[Any]:
    """Reward of the chosen minus that of the rejected completion, one a pair, in nats times beta."""

    def column(name: str) -> NDArray[Any]:
        return np.asarray(logps[name].to_numpy(), dtype=float)

    policy_gap = column(f"chosen_{policy}") - column(f"rejected_{policy}")
    reference_gap = column(f"chosen_{reference}") - column(f"rejected_{reference}")
    return beta * (policy_gap - reference_gap)
