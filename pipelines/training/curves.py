"""Training curves: the trainer's log as plain points, ``[{"step": 10, "loss": 2.1, ...}, ...]``.

Names are TRL's: ``loss``, ``learning_rate``, ``grad_norm``, for DPO ``rewards/accuracies``,
``rewards/margins`` and others; figures on the validation split begin with ``eval_``.
"""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

FILE = "curves.json"


def points(history: Iterable[Mapping[str, Any]]) -> list[dict[str, float]]:
    """The points in a trainer's ``log_history``, without its closing summary."""
    return [
        {name: float(value) for name, value in point.items() if isinstance(value, int | float)}
        for point in history
        if "loss" in point or any(name.startswith("eval_") for name in point)
    ]


def last_values(curve: Iterable[Mapping[str, float]]) -> dict[str, float]:
    """The last value of each curve."""
    last: dict[str, float] = {}
    for point in curve:
        last.update(point)
    return last


def save(folder: Path, history: Iterable[Mapping[str, Any]]) -> None:
    """Write ``curves.json`` beside the model."""
    (folder / FILE).write_text(json.dumps(points(history), indent=1), encoding="utf-8")


def load(folder: Path) -> list[dict[str, float]]:
    """Read the curves beside a model."""
    curve: list[dict[str, float]] = json.loads((folder / FILE).read_text(encoding="utf-8"))
    return curve
