"""What the report and the manifest say about other stages, and the figures put in plain sentences."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from configs.training import MODELS, STAGES
from pipelines.evaluation.plots import label
from pipelines.manifest import Draft, Manifest

CURVES = "curves.json"
NO_RATINGS = "there are no ratings; give files in feedback.ratings"
NO_PAIRS = "the ratings left no pairs of this model to train on"
MANY_FLAWS = 0.05
"""Share of texts with a flaw above which the report's first lines say so."""
FLAWS = {"empty": "are empty", "cut_off": "were cut off by the token limit", "repeated": "repeat themselves"}
ORDER = ("sample", "threads", "sft", "pairs", "panel", "rated_pairs", "base", "tokens", "adapters")
"""Inputs in the order of the data's way; others follow."""


def funnel(sources: Mapping[str, Manifest | Draft]) -> list[dict[str, Any]]:
    """Row counts of every stage, in the order of the data's way."""

    def place(name: str) -> int:
        group = name.split("/")[0]
        return ORDER.index(group) if group in ORDER else len(ORDER)

    return [
        {"stage": name, "kind": kind, "read": count.read, "kept": count.kept, "dropped": dict(count.dropped)}
        for name, source in sorted(sources.items(), key=lambda item: place(item[0]))
        for kind, count in source.rows.items()
    ]


def tokenised(sources: Mapping[str, Manifest | Draft]) -> list[dict[str, Any]]:
    """What each training stage learned from, in tokens, and what was found of its masks."""
    rows = []
    for name, source in sources.items():
        checked, lengths = source.figures.get("masking"), source.figures.get("lengths", {}).get("train")
        if name.startswith("tokens/") and checked and lengths:
            whole, learned = lengths["whole"], lengths["trained_share"]
            row = {"stage": name.removeprefix("tokens/"), "cut": source.figures["train_cut"], "learned": learned}
            ends = {f"{end}_tokens": whole[end] for end in ("p50", "max")}
            rows.append({**row, **ends, "checked": checked["tokens"], "wrong": checked["wrong"]})
    return rows


def curve(folder: Path) -> list[dict[str, float]]:
    """Training curve beside a model: points of step, loss and others; empty where none was saved."""
    path = folder / CURVES
    points = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else []
    return [{name: value for name, value in point.items() if math.isfinite(value)} for point in points]


def skipped(inputs: Mapping[str, Any]) -> dict[str, str]:
    """Why a stage of a model has no figures."""
    reasons = {}
    for model in MODELS:
        for stage in STAGES:
            if f"adapters/{model}/{stage}" in inputs:
                continue
            reason = "it has not been trained"
            if stage == "dpo2":
                reason = NO_PAIRS if "rated_pairs" in inputs else NO_RATINGS
            reasons[f"{model}/{stage}"] = reason
    return reasons


def notes(sources: Mapping[str, Manifest], figures: Mapping[str, Any]) -> list[str]:
    """What earlier stages want readers to know, each note once under the first that said it, and what was skipped."""
    owners: dict[str, str] = {}
    for name, source in sources.items():
        for note in source.notes:
            owners.setdefault(note, name)
    lines = [f"{spoken(name)}: {note}" for note, name in owners.items()]
    return lines + [f"{spoken(name)} was skipped: {reason}." for name, reason in figures["skipped"].items()]


def headline(figures: Mapping[str, Any]) -> dict[str, Any]:
    """The figures that a manifest carries: accuracies, agreement, and changes of quality."""

    def short(row: Mapping[str, Any], *names: str) -> dict[str, Any]:
        return {name: row[name] for name in names}

    found: dict[str, Any] = {
        "rewards": {
            model: {stage: short(row, "n", "accuracy", "low", "high", "margin") for stage, row in stages.items()}
            for model, stages in figures["rewards"].items()
        }
    }
    if "agreement" in figures:
        found["agreement"] = {
            name: short(row, "n", "mean", "low", "high") for name, row in figures["agreement"].items()
        }
        found["quality"] = {
            model: {what: short(row, "n", "mean", "low", "high") for what, row in rows.items()}
            for model, rows in figures["quality"].items()
            if model in MODELS
        }
    return found


def sentences(figures: Mapping[str, Any]) -> list[str]:
    """The headline figures in words, for the top of the report."""
    lines = []
    for model, stages in figures["rewards"].items():
        for stage, row in stages.items():
            lines.append(
                f"{label(model)} {label(stage)}: ranks {row['n']} held-out pairs from {row['pairs']} right in "
                f"{share(row, 'accuracy')} ({row['verdict']})."
            )
    for name, row in figures.get("agreement", {}).items():
        if row["mean"] is not None and "_minus_" in name:
            lines.append(f"Agreement of pairs, {what(name)}: {points(row)}.")
        elif row["mean"] is not None and (row["default"] or name == "ratings"):
            used = ", the rule in use" if row["default"] else ""
            lines.append(f"Pairs by {name}{used}: {share(row, 'mean')} agree with the true quality.")
    for model in MODELS:
        found = figures.get("quality", {}).get(model, {})
        against_original = [name for name in found if name.endswith("_minus_original")]
        for name in [*(name for name in found if name.endswith("_minus_sft")), *against_original[-1:]]:
            row = found[name]
            if row["mean"] is not None:
                lines.append(f"{label(model)}, latent quality, {what(name)}: {change(row)} ({row['verdict']}).")
    return lines + flawed(figures["texts"])


def flawed(texts: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> list[str]:
    """Warnings of stages whose texts go wrong more often than ``MANY_FLAWS``."""
    lines = []
    for model, stages in texts.items():
        for stage, row in stages.items():
            often = [f"{row[name]} {words}" for name, words in FLAWS.items() if row[name] > MANY_FLAWS * row["n"]]
            if often:
                lines.append(f"Warning: of {row['n']} texts by {label(model)} {label(stage)}, {', '.join(often)}.")
    return lines


def share(row: Mapping[str, Any], key: str) -> str:
    """A share with its interval, in percent."""
    if row[key] is None:
        return "no share that can be told"
    return f"{100 * row[key]:.1f} % [{100 * row['low']:.1f}, {100 * row['high']:.1f}]"


def points(row: Mapping[str, Any]) -> str:
    """A difference of shares with its interval, in percentage points."""
    ends = f" [{100 * row['low']:+.1f}, {100 * row['high']:+.1f}]" if row["low"] is not None else ""
    return f"{100 * row['mean']:+.1f} points{ends}"


def change(row: Mapping[str, Any]) -> str:
    """A difference with its sign and interval."""
    ends = f" [{row['low']:+.2f}, {row['high']:+.2f}]" if row["low"] is not None else ""
    return f"{row['mean']:+.2f}{ends}"


def spoken(name: str) -> str:
    """``gm/dpo2`` as readers see it."""
    return " ".join(label(part) for part in name.replace("_", " ").split("/"))


def what(name: str) -> str:
    """``dpo2_minus_sft`` as readers see it."""
    return " minus ".join(label(part) for part in name.split("_minus_"))
