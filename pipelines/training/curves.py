"""Training curves: the trainer's log as plain points, ``[{"step": 10, "loss": 2.1, ...}, ...]``.

Names are TRL's: ``loss``, ``learning_rate``, ``grad_norm``, for DPO ``rewards/accuracies``,
``rewards/margins`` and others; figures on the validation split begin with ``eval_``. Beside
them stand ours: ``kl`` (nats a token, metrics.py says how estimated), ``beta`` where it changes,
``tokens_per_second_per_worker``, ``mfu`` where the device's peak is known, ``memory_peak_gib``.
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


def last_values(curve: Iterable[Mapping[str, float]], until: int | None = None) -> dict[str, float]:
    """The last value of each curve, no later than the step ``until``, whose weights were kept."""
    last: dict[str, float] = {}
    for point in curve:
        if until is None or point.get("step", 0) <= until:
            last.update(point)
    return last


def save(folder: Path, history: Iterable[Mapping[str, Any]]) -> None:
    """Write ``curves.json`` beside the model."""
    (folder / FILE).write_text(json.dumps(points(history), indent=1), encoding="utf-8")


def load(folder: Path) -> list[dict[str, float]]:
    """Read the curves beside a model."""
    curve: list[dict[str, float]] = json.loads((folder / FILE).read_text(encoding="utf-8"))
    return curve
