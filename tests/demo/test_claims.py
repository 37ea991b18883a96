"""What the demo claims on held-out data. Takes about ten minutes on two cores unless ``LLUMI_DEMO`` names a run."""

import pyarrow.parquet as pq
import pytest

from pipelines.sample.scorer import repetition, tokens
from tests.demo.conftest import Run

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1700)]


def test_default_pairs_agree_with_the_truth_and_naive_ones_clearly_less(whole: Run) -> None:
    agreement = whole.figures["agreement"]
    assert agreement["matched"]["mean"] >= 0.85
    assert agreement["matched"]["low"] > agreement["naive"]["high"]


@pytest.mark.parametrize("model", ["gm", "im"])
@pytest.mark.parametrize("stage", ["dpo1", "dpo2"])
def test_dpo_prefers_the_better_reply_on_held_out_pairs(whole: Run, model: str, stage: str) -> None:
    reward = whole.figures["rewards"][model][stage]
    assert reward["n"] >= 100
    assert reward["accuracy"] > 0.70
    assert reward["low"] > 0.5


def test_drafts_get_better_from_sft_to_dpo2(whole: Run) -> None:
    rise = whole.figures["quality"]["gm"]["dpo2_minus_sft"]
    assert rise["mean"] > 0
    assert rise["low"] > 0


def test_drafts_are_readable_english(whole: Run) -> None:
    drafts = pq.read_table(whole.root / "evaluation" / "drafts.parquet").to_pylist()
    last = [row for row in drafts if row["model"] == "gm" and row["stage"] == "dpo2"]
    assert len({row["text"] for row in last}) >= 0.9 * len(last)
    ended = [row for row in last if row["finish_reason"] == "stop" and row["text"][-1] in ".?!"]
    assert len(ended) >= 0.8 * len(last)
    assert sum(repetition(tokens(row["text"])) < 0.2 for row in last) >= 0.9 * len(last)
