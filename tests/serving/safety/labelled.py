"""The labelled sentences, and how many of each label the triage sees."""

from collections import Counter
from pathlib import Path
from typing import Any

import yaml

from serving.safety.risk import Level
from serving.safety.triage import Triage

FILE = Path(__file__).with_name("labelled.yaml")
SETS = ("tuned", "first_held_out", "second_held_out", "third_held_out", "fourth_held_out")


def sentences(name: str) -> list[tuple[Level, str, str]]:
    """Label, group and text of one set."""
    data: dict[str, Any] = yaml.safe_load(FILE.read_text(encoding="utf-8"))[name]
    return [(level, group, text) for level, groups in data.items() for group, texts in groups.items() for text in texts]


def seen(triage: Triage, *names: str) -> Counter[tuple[Level, Level]]:
    """Sentences by (label, what the triage says)."""
    return Counter((label, triage.look(text).level) for name in names for label, _, text in sentences(name))


def unseen() -> dict[str, dict[Level, list[int]]]:
    """By set and label: sentences seen as anything but none, and sentences, before any rule learned from the set."""
    measured: dict[str, dict[Level, list[int]]] = yaml.safe_load(FILE.read_text(encoding="utf-8"))["unseen"]
    return measured


def share(counts: Counter[tuple[Level, Level]], label: Level, *levels: Level) -> float:
    """Of the sentences with a label, those at one of the levels."""
    of_label = sum(count for (own, _), count in counts.items() if own == label)
    return sum(counts[label, level] for level in levels) / of_label
