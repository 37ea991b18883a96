"""What a stage asks of its rows is looked at before any worker starts."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from configs.errors import ConfigError
from configs.training import StageSettings
from pipelines.manifest import RowCount
from pipelines.training import noise
from pipelines.training.plan import Plan
from pipelines.training.readiness import ready
from pipelines.training.trainers import objective_of
from tests.pipelines.training.faults import plan_at
from tests.pipelines.training.test_noise import community, flipped, written

ROWS = {"train": RowCount(read=8, kept=8), "validation": RowCount(read=2, kept=2)}


def plan(root: Path, **stage: Any) -> Plan:
    return replace(plan_at(root), stage=StageSettings.model_validate(stage), tokens=str(root / "tokens"), task="dpo")


def test_evaluations_need_rows_to_evaluate_on(tmp_path: Path) -> None:
    asked = plan(tmp_path, evaluate_every=5)
    assert ready(asked, "dpo1", ROWS) == asked
    with pytest.raises(ConfigError, match=r"training\.dpo1\.evaluate_every: 5 needs rows in the validation split"):
        ready(asked, "dpo1", {"train": ROWS["train"], "validation": RowCount(read=0, kept=0)})


def test_an_estimated_share_of_wrong_labels_becomes_the_label_smoothing(tmp_path: Path) -> None:
    pairs, _ = community(120, 2.0)
    written(tmp_path / "tokens", flipped(pairs, 0.1))
    found = ready(plan(tmp_path, loss="robust", label_smoothing="auto"), "dpo2", ROWS)
    assert found.label_noise == noise.estimate(tmp_path / "tokens", "").rate > 0.05
    assert objective_of(found).arguments()["label_smoothing"] == found.label_noise
    assert objective_of(plan(tmp_path, loss="robust", label_smoothing=0.2)).smoothing == 0.2


def test_pairs_that_are_to_be_weighted_need_margins(tmp_path: Path) -> None:
    pairs, _ = community(20, 2.0)
    written(tmp_path / "tokens", [{**pair, "margin": 2.0 ** (k + 1) - 1} for k, pair in enumerate(pairs[:3])])
    assert ready(plan(tmp_path, weights="margin"), "dpo1", ROWS).mean_weight == 2.0
    written(tmp_path / "bare" / "tokens", pairs)
    with pytest.raises(ConfigError, match=r"training\.dpo1\.weights"):
        ready(plan(tmp_path / "bare", weights="margin"), "dpo1", ROWS)
