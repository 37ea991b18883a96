"""Rates, FLOPs and memory of a training, against counts done by hand."""

import time
from pathlib import Path

import pytest
import torch

from pipelines.training.metrics import PEAKS, Meter, flops_per_token, mean_context, memory_peak, peak_of
from tests.pipelines.training.steps import tiny_base


def test_a_device_s_peak_is_that_of_its_longest_fitting_name_and_else_unknown() -> None:
    assert peak_of("NVIDIA H100 80GB HBM3") == peak_of("NVIDIA H200") == 989.4e12
    assert peak_of("NVIDIA H100 PCIe") == 756.0e12
    assert peak_of("NVIDIA A100-SXM4-80GB") == 312.0e12
    assert peak_of("NVIDIA L4") == PEAKS["L4"] != peak_of("NVIDIA L40S")
    assert peak_of("NVIDIA H100") is None and peak_of("AMD EPYC") is None and peak_of(None) is None


def test_flops_of_a_token_are_six_a_weight_for_full_training_and_four_with_an_adapter(tmp_path: Path) -> None:
    """Two layers of width 32, heads 2 x 16, MLP 64, keys and values of one head, head tied to the embedding."""
    from peft import LoraConfig, get_peft_model

    from pipelines.training.weights import load_model

    model = load_model(str(tiny_base(tmp_path)))
    norms = 5 * 32
    layer = 32 * 32 * 2 + 2 * 32 * 16 + 3 * 32 * 64
    every = 2 * layer + model.config.vocab_size * 32 + norms
    attention = 12 * 2 * 32 * 100
    assert flops_per_token(model, 100) == 6 * every + attention
    adapted = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", r=4, target_modules=["q_proj"]))
    lora = 2 * 4 * (32 + 32)
    assert flops_per_token(adapted, 100) == 4 * (every + lora) + 2 * lora + attention


def test_long_rows_count_by_their_tokens() -> None:
    assert mean_context(torch.tensor([10, 30])) == (100 + 900) / 40


def test_a_meter_counts_training_and_leaves_out_what_it_is_told_to() -> None:
    meter = Meter(flops=2.0, peak=1e6)
    assert meter.read() == {}
    meter.saw(100)
    meter.saw(50)
    with meter.paused():
        time.sleep(0.2)
    found = meter.read()
    assert found["tokens_per_second_per_worker"] > 150 / 0.2
    assert found["mfu"] == pytest.approx(found["tokens_per_second_per_worker"] * 2.0 / 1e6)
    assert found["memory_peak_gib"] == pytest.approx(memory_peak(), rel=0.01)
    assert meter.read() == {} and "mfu" not in Meter(2.0, None).read()


def test_peaks_are_those_that_the_planner_counts_with() -> None:
    from pipelines.training.planner.gpus import GPUS

    known = {one.name: peak_of(f"NVIDIA {name}") for one in GPUS for name in (one.name, *one.names) if peak_of(name)}
    assert len(known) >= 6
    assert all(known[one.name] == one.peak for one in GPUS if one.name in known)
