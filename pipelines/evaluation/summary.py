"""What the report and the manifest say about other stages, and the figures put in plain sentences."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from configs.training import MODELS, STAGES
from pipelines.evaluation.plots import label
from pipelines.manifest import Manifest

CURVES = "curves.json"


def funnel(sources: Mapping[str, Manifest]) -> list[dict[str, Any]]:
    """Row counts of every stage, in the order in which the stages were given."""
    return [
        {"stage": name, "kind": kind, "read": count.read, "kept": count.kept, "dropped": dict(count.dropped)}
        for name, source in sources.items()
        for kind, count in source.rows.items()
    ]


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
            unrated = stage == "dpo2" and "rated_pairs" not in inputs
            reason = "there are no ratings; give files in feedback.ratings" if unrated else "it has not been trained"
            reasons[f"{model}/{stage}"] = reason
    return reasons


def notes(sources: Mapping[str, Manifest], figures: Mapping[str, Any]) -> list[str]:
    """What earlier stages want readers to know, each note once, and what was skipped."""
    lines = dict.fromkeys(note for source in sources.values() for note in source.notes)
    lines |= dict.fromkeys(f"{name} was skipped: {reason}." for name, reason in figures["skipped"].items())
    return list(lines)


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
        if row["mean"] is not None:
            used = ", the rule in use" if row["default"] else ""
            lines.append(f"Pairs by {name}{used}: {share(row, 'mean')} agree with the true quality.")
    for model in MODELS:
        found = figures.get("quality", {}).get(model, {})
        for name, row in found.items():
            if "_minus_" in name and row["mean"] is not None:
                lines.append(f"{label(model)}, latent quality, {what(name)}: {change(row)} ({row['verdict']}).")
    return lines


def share(row: Mapping[str, Any], key: str) -> str:
    """A share with its interval, in percent."""
    if row[key] is None:
        return "no share that can be told"
    return f"{100 * row[key]:.1f} % [{100 * row['low']:.1f}, {100 * row['high']:.1f}]"


def change(row: Mapping[str, Any]) -> str:
    """A difference with its sign and interval."""
    ends = f" [{row['low']:+.2f}, {row['high']:+.2f}]" if row["low"] is not None else ""
    return f"{row['mean']:+.2f}{ends}"


def what(name: str) -> str:
    """``dpo2_minus_sft`` as readers see it."""
    return " minus ".join(label(part) for part in name.split("_minus_"))
