"""QLoRA where bitsandbytes is installed (extra ``gpu``): its own CPU code, so that loading and steps run for real.

Training asks for a GPU (modes.py); none has run this yet.
"""

from pathlib import Path

import pytest
import torch

from pipelines.training.weights import load_model
from tests.pipelines.training import steps
from tests.pipelines.training.steps import Case

bnb = pytest.importorskip("bitsandbytes", reason="bitsandbytes is not installed (extra gpu)")

FOUR_BITS = {"mode": "qlora", "bf16": True}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return steps.tiny_base(tmp_path_factory.mktemp("base"), tied=False, width=64)


@pytest.mark.parametrize("bf16", [True, False])
def test_the_base_s_layers_are_held_in_nf4_in_numbers_of_the_type_that_computes(bf16: bool, base: Path) -> None:
    dtype = torch.bfloat16 if bf16 else torch.float32
    whole, held = load_model(str(base), bf16=bf16), load_model(str(base), bf16=bf16, four_bit=True)
    layer = held.model.layers[0].mlp.up_proj
    assert isinstance(layer, bnb.nn.Linear4bit)
    assert layer.weight.quant_state.quant_type == "nf4" and layer.weight.quant_state.nested
    assert layer.weight.dtype == layer.compute_dtype == dtype
    assert layer.weight.numel() * layer.weight.element_size() == 64 * 128 // 2  # half a byte a weight
    assert held.lm_head.weight.dtype == dtype and held.lm_head.weight.shape == whole.lm_head.weight.shape
    probe = torch.randn(8, 64, dtype=dtype, generator=torch.Generator().manual_seed(0), requires_grad=True)
    exact = whole.model.layers[0].mlp.up_proj(probe)
    assert 0 < ((layer(probe) - exact).norm() / exact.norm()).item() < 0.15


def test_sft_and_dpo_on_four_bits_train_the_same_adapter_by_any_sharding(base: Path, tmp_path: Path) -> None:
    first = [Case(f"sft-{stage}", FOUR_BITS | {"zero_stage": stage}) for stage in (1, 2, 3)]
    first.append(Case("sft-3-checkpointing", FOUR_BITS | {"zero_stage": 3, "gradient_checkpointing": True}))
    start = str(tmp_path / "sft-2")
    then = [Case(f"dpo-{stage}", FOUR_BITS | {"zero_stage": stage}, task="dpo", start=start) for stage in (2, 3)]
    left = steps.run(base, [*first, *then], tmp_path)
    for name, like in {"sft-1": "sft-2", "sft-3": "sft-2", "sft-3-checkpointing": "sft-2", "dpo-3": "dpo-2"}.items():
        assert left[name].keys() == left[like].keys()
        assert all(torch.allclose(left[name][key], left[like][key], atol=2e-2) for key in left[like])
    assert all("lora_" in key for key in left["dpo-2"])
    for one, other in (({}, "sft-2"), (left["sft-2"], "dpo-2")):
        second = [key for key in left[other] if "lora_B" in key]
        assert any((left[other][key] - one.get(key, 0)).abs().max() > 1e-3 for key in second)
