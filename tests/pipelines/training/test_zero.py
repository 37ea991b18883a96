"""Whatever is sharded, offloaded or recomputed: the same rows make the same step.

Two processes over gloo, without Ray, one optimizer step in float32. AdamW's rate and epsilon
are 1, so that weights move by their gradients and a wrong one is not hidden by its sign.
"""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.functional import cross_entropy, logsigmoid

from configs.training import OffloadSettings, TrainingSettings
from pipelines.training.weights import load_model
from pipelines.training.zero import deepspeed_config
from tests.pipelines.training import steps
from tests.pipelines.training.steps import Case

TOLERANCE = 1e-6
FULL: dict[str, Any] = {"mode": "full"}
CPU = {"optimizer": "cpu"}
BOTH = {"optimizer": "cpu", "parameters": "cpu"}
SPARING: dict[str, Any] = {"zero_stage": 3, "offload": BOTH, "gradient_checkpointing": True}
WAYS: dict[str, dict[str, Any]] = {
    "zero-0": {"zero_stage": 0},
    "zero-1": {"zero_stage": 1},
    "zero-2": {"zero_stage": 2},
    "zero-3": {"zero_stage": 3},
    "zero-1-optimizer-on-the-cpu": {"zero_stage": 1, "offload": CPU},
    "zero-2-optimizer-on-the-cpu": {"zero_stage": 2, "offload": CPU},
    "zero-3-optimizer-on-the-cpu": {"zero_stage": 3, "offload": CPU},
    "zero-3-weights-on-the-cpu": {"zero_stage": 3, "offload": {"parameters": "cpu"}},
    "zero-2-checkpointing": {"zero_stage": 2, "gradient_checkpointing": True},
    "zero-3-all-of-it": SPARING,
}
LORA = ("zero-2", "zero-3", "zero-2-optimizer-on-the-cpu", "zero-3-all-of-it")
CASES = [
    *(Case(f"full-{name}", FULL | training) for name, training in WAYS.items()),
    *(Case(f"lora-{name}", WAYS[name]) for name in ("zero-0", *LORA)),
    *(Case(f"dpo-{name}", FULL | WAYS[name], task="dpo") for name in ("zero-0", "zero-2", "zero-3-all-of-it")),
    Case("half-zero-2", FULL | WAYS["zero-2"] | {"bf16": True}),
    Case("half-zero-3-all-of-it", FULL | SPARING | {"bf16": True}),
]
Weights = dict[str, torch.Tensor]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return steps.tiny_base(tmp_path_factory.mktemp("base"), tied=False)


@pytest.fixture(scope="module")
def left(base: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Weights]:
    """The weights that each case leaves."""
    return steps.run(base, CASES, tmp_path_factory.mktemp("steps"))


def furthest(one: Weights, other: Weights) -> float:
    """Largest difference between two sets of the same weights."""
    assert one.keys() == other.keys()
    return max(float((one[name] - other[name]).abs().max()) for name in one)


@pytest.mark.parametrize("way", [way for way in WAYS if way != "zero-0"])
def test_the_same_rows_make_the_same_step(way: str, left: dict[str, Weights]) -> None:
    assert furthest(left[f"full-{way}"], left["full-zero-0"]) < TOLERANCE


@pytest.mark.parametrize("way", LORA)
def test_the_same_rows_make_the_same_step_of_an_adapter(way: str, left: dict[str, Weights]) -> None:
    assert furthest(left[f"lora-{way}"], left["lora-zero-0"]) < TOLERANCE


@pytest.mark.parametrize("way", ["zero-2", "zero-3-all-of-it"])
def test_dpo_makes_the_same_step(way: str, left: dict[str, Weights]) -> None:
    assert furthest(left[f"dpo-{way}"], left["dpo-zero-0"]) < TOLERANCE


@pytest.mark.parametrize("way", ["zero-2", "zero-3-all-of-it"])
def test_in_bfloat16_the_step_differs_by_rounding(way: str, base: Path, left: dict[str, Weights]) -> None:
    before, exact = load_model(str(base)).state_dict(), left["full-zero-0"]
    moved = max(float((exact[name] - before[name]).abs().max()) for name in exact)
    assert furthest(left[f"half-{way}"], exact) < moved / 4


def test_an_adapter_was_trained_and_not_the_base(left: dict[str, Weights]) -> None:
    adapter = left["lora-zero-3-all-of-it"]
    assert all("lora_" in name for name in adapter)
    assert all(value.abs().max() > 0 for name, value in adapter.items() if "lora_B" in name)


def stepped(model: Any, loss: torch.Tensor) -> Weights:
    """``model`` after torch's own step, clipped as training clips."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=steps.RATE, eps=steps.EPSILON, weight_decay=0.0)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), TrainingSettings().grad_norm)
    optimizer.step()
    return {name: value.detach() for name, value in model.named_parameters()}


def test_that_step_of_sft_is_plain_torch_s(base: Path, left: dict[str, Weights]) -> None:
    model = load_model(str(base))
    total, tokens = torch.zeros(()), 0
    for row in steps.sft_rows():
        labels = torch.tensor(row["labels"])[1:]
        logits = model(input_ids=torch.tensor([row["input_ids"]])).logits[0, :-1]
        total = total + cross_entropy(logits, labels, reduction="sum", ignore_index=-100)
        tokens += int((labels != -100).sum())
    assert furthest(stepped(model, total / tokens), left["full-zero-0"]) < TOLERANCE


def test_that_step_of_dpo_is_plain_torch_s(base: Path, left: dict[str, Weights]) -> None:
    model = load_model(str(base))

    def logp(prompt: list[int], reply: list[int]) -> torch.Tensor:
        logits = model(input_ids=torch.tensor([prompt + reply])).logits[0, len(prompt) - 1 : -1]
        return -cross_entropy(logits, torch.tensor(reply), reduction="sum")

    rows, losses = steps.pairs(model), []
    for row in rows:
        chosen = logp(row["prompt_ids"], row["chosen_ids"]) - row["ref_chosen_logps"]
        rejected = logp(row["prompt_ids"], row["rejected_ids"]) - row["ref_rejected_logps"]
        losses.append(-logsigmoid(0.1 * (chosen - rejected)))
    assert furthest(stepped(model, torch.stack(losses).mean()), left["dpo-zero-0"]) < TOLERANCE


def test_nothing_is_offloaded_unless_asked() -> None:
    assert not [name for name in deepspeed_config(TrainingSettings())["zero_optimization"] if "offload" in name]


def test_offload_names_device_path_and_torch_s_optimizer() -> None:
    offload = OffloadSettings(optimizer="nvme", parameters="cpu", nvme_path="/fast")
    config = deepspeed_config(TrainingSettings(zero_stage=3, gpus_per_worker=1, offload=offload))
    zero = config["zero_optimization"]
    assert zero["offload_optimizer"] == {"device": "nvme", "pin_memory": True, "nvme_path": "/fast"}
    assert zero["offload_param"] == {"device": "cpu", "pin_memory": True}
    assert config["zero_force_ds_cpu_optimizer"] is False
