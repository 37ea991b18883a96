"""The demo as a user runs it, at two sizes: ``small`` shows the way, ``whole`` is what the claims are about."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

LLUMI = str(Path(sys.executable).parent / "llumi")
SMALL = {
    "sample.threads": 400,
    "training.workers": 1,
    "training.base.max_rows": 200,
    "training.sft.max_rows": 200,
    "training.dpo1.max_rows": 120,
    "training.dpo2.max_rows": 80,
    "feedback.panel.items": 200,
    "generation.max_new_tokens": 48,
    "evaluation.posts": 12,
    "evaluation.max_pairs": 60,
}
"""Settings under which every stage of the demo has work, and little of it."""


@dataclass(frozen=True)
class Run:
    """A finished demo."""

    root: Path
    printed: str
    figures: dict[str, Any]
    overrides: list[str] = field(default_factory=list)


def demo(root: Path, overrides: dict[str, int]) -> Run:
    """Run ``llumi demo`` in a process of its own."""
    given = [word for key, value in overrides.items() for word in ("--set", f"{key}={value}")]
    command = [LLUMI, "demo", "--output", str(root), *given]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return Run(root, done.stdout, figures(root), given)


def figures(root: Path) -> dict[str, Any]:
    """What the evaluation measured."""
    return json.loads((root / "evaluation" / "figures.json").read_text())


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The demo with fewer rows."""
    return demo(tmp_path_factory.mktemp("demo") / "small", SMALL)


@pytest.fixture(scope="session")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The demo itself; ``LLUMI_DEMO`` may name the output of an earlier one."""
    if given := os.environ.get("LLUMI_DEMO"):
        return Run(Path(given), "", figures(Path(given)))
    return demo(tmp_path_factory.mktemp("demo") / "whole", {})
