"""Training curves in the report: what training saw, and dashed beside it what was held out."""

import re

from pipelines.evaluation import plots

TRAINED = [{"step": s, "loss": 0.7 - 0.01 * s, "rewards/accuracies": 0.5 + 0.01 * s, "kl": 1e-4 * s} for s in range(9)]
HELD_OUT = [{"step": s, "eval_loss": 0.7, "eval_rewards/accuracies": 0.5, "eval_kl": 1e-4} for s in (4, 8)]


def dashed(svg: str) -> int:
    """Lines that are dashed as held-out curves are, not dotted as chance is."""
    return len(re.findall(r"stroke-dasharray: 4\.", svg))


def test_held_out_accuracy_loss_and_kl_stand_beside_those_of_training() -> None:
    alone, both = (plots.curves({"dpo1": points}, "DPO1") for points in (TRAINED, TRAINED + HELD_OUT))
    for name in ("loss", "reward accuracy", "KL, nats a token"):
        assert name in alone and name in both
    assert dashed(alone) == 0 and dashed(both) == 3


def test_a_stage_without_kl_has_no_such_panel() -> None:
    assert "KL" not in plots.curves({"sft": [{"step": 1, "loss": 2.0}]}, "SFT")
