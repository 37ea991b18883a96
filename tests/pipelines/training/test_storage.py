"""Storage is asked for room before any worker starts."""

from dataclasses import replace
from pathlib import Path

import pytest
from transformers import MistralConfig

from configs.errors import NoSpace, TrainingError
from pipelines.training import storage
from pipelines.training.plan import Plan
from tests.pipelines.training.faults import may_mount, mounted, plan_at


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    """LoRA of rank 16 on a Mistral of two layers and some 100,000 weights."""
    sizes = {"hidden_size": 64, "intermediate_size": 128, "num_attention_heads": 4, "num_key_value_heads": 2}
    MistralConfig(vocab_size=500, num_hidden_layers=2, **sizes).save_pretrained(tmp_path / "base")
    return replace(plan_at(tmp_path), base=str(tmp_path / "base"))


def test_the_weights_that_lora_trains_are_counted_without_loading_any(plan: Plan) -> None:
    a_layer = 2 * (64 + 64) + 2 * (64 + 32) + 3 * (64 + 128)
    assert storage.trained_weights(plan) == 2 * 16 * a_layer


def test_all_weights_are_counted_where_all_are_trained(plan: Plan) -> None:
    a_layer = 2 * 64 * 64 + 2 * 64 * 32 + 3 * 64 * 128 + 2 * 64
    assert storage.trained_weights(replace(plan, task="lm")) == 2 * a_layer + 2 * 500 * 64 + 64


def test_a_storage_with_room_is_left_as_it_was(plan: Plan) -> None:
    storage.check(plan)
    assert list(Path(plan.storage).iterdir()) == []


@pytest.mark.parametrize(
    ("options", "error", "told"),
    [
        ("size=2m,ro", TrainingError, r"output: .*cannot be written \(Read-only file system\)"),
        ("size=512k", NoSpace, r"output: .*is full \(No space left on device\)"),
        ("size=1800k", NoSpace, r"has 1\.8 MB free, 3 checkpoints need 2\.0 MB.*keep_checkpoints"),
    ],
)
def test_a_storage_that_is_read_only_full_or_small_is_named(
    plan: Plan, tmp_path: Path, options: str, error: type[Exception], told: str
) -> None:
    if not may_mount(tmp_path):
        pytest.skip("mounting a tmpfs needs root")
    with mounted(tmp_path / "disk", options) as disk, pytest.raises(error, match=told):
        storage.check(replace(plan, storage=str(disk / "gm-sft-0123456789ab")))


def test_what_earlier_checkpoints_of_the_run_hold_counts_as_room(plan: Plan, tmp_path: Path) -> None:
    if not may_mount(tmp_path):
        pytest.skip("mounting a tmpfs needs root")
    with mounted(tmp_path / "disk", "size=5m") as disk:
        within = replace(plan, storage=str(disk / "gm-sft-0123456789ab"))
        Path(within.storage).mkdir()
        (Path(within.storage) / "checkpoint").write_bytes(b"x" * 3_000_000)
        storage.check(within)


def test_a_finished_run_also_clears_earlier_runs_of_its_stage_and_no_others(plan: Plan) -> None:
    root = Path(plan.storage).parent
    for name in ("gm-sft-0123456789ab", "gm-sft-ffffffffffff", "gm-sft", "gm-dpo1-0123456789ab", "im-sft-ffffffffffff"):
        (root / name).mkdir(parents=True)
    storage.clear(plan)
    assert sorted(path.name for path in root.iterdir()) == ["gm-dpo1-0123456789ab", "gm-sft", "im-sft-ffffffffffff"]
