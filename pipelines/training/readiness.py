"""What a stage's objective, evaluations and trackers need, looked at by the driver before any worker starts."""

import importlib.util
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from configs.errors import ConfigError
from configs.training import StageName
from pipelines.manifest import RowCount
from pipelines.training import noise
from pipelines.training.plan import Plan

MODULES = {"tensorboard": "tensorboard", "mlflow": "mlflow", "wandb": "wandb"}
"""What each tracker needs installed."""


def ready(plan: Plan, stage: StageName, rows: Mapping[str, RowCount]) -> Plan:
    """The plan with what its objective needs of the pairs; ``rows`` are the tokens' counts by split.

    Raises ConfigError naming the field that asks for what is not there.
    """
    check_trackers(plan)
    own, field = plan.stage, f"training.{stage}"
    kept = rows["validation"].kept if "validation" in rows else 0
    if own.evaluate_every and not kept:
        raise ConfigError(
            f"{field}.evaluate_every: {own.evaluate_every} needs rows in the validation split, which has none; set it "
            "to 0, or keep posts for validation (corpus.split)"
        )
    tokens = Path(plan.tokens)
    if own.label_smoothing == "auto":
        plan = replace(plan, label_noise=noise.estimate(tokens, f"{field}.label_smoothing").rate)
    if own.weights == "margin":
        plan = replace(plan, mean_weight=noise.mean_weight(tokens, f"{field}.weights"))
    return plan


def check_trackers(plan: Plan) -> None:
    """Raises ConfigError naming a tracker that is not installed, and the extra that brings it."""
    for name in plan.training.report_to:
        if importlib.util.find_spec(MODULES[name]) is None:
            raise ConfigError(
                f"training.report_to: {name} is not installed here; install it (pip install 'llumi[{name}]') on all "
                "nodes, or take it out"
            )
