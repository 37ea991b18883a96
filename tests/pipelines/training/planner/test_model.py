"""Weights are counted exactly: as transformers and PEFT make them, on the meta device."""

import json
from pathlib import Path
from typing import Any

import pytest

from configs import load
from configs.errors import ConfigError, ModelNotFound
from configs.training import LoraSettings
from pipelines.training.planner.known import KNOWN
from pipelines.training.planner.memory import memory
from pipelines.training.planner.model import Architecture, architecture
from pipelines.training.planner.setup import Setup, batch_of
from pipelines.training.planner.speed import model_flops
from pipelines.training.planner.volume import Rows

TARGETS = LoraSettings().targets


def on_meta(shape: dict[str, Any]) -> Any:
    """The model that transformers makes of a configuration, without memory for its weights."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    kind = shape["model_type"]
    with torch.device("meta"):
        config = AutoConfig.for_model(kind, **{name: value for name, value in shape.items() if name != "model_type"})
        return AutoModelForCausalLM.from_config(config)


def count(model: Any, trained: bool = False) -> int:
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad or not trained)


@pytest.mark.parametrize("base", KNOWN)
@pytest.mark.parametrize("targets", [TARGETS, ("q_proj", "v_proj")], ids=["all", "q-v"])
def test_weights_and_adapters_are_counted_as_transformers_and_peft_make_them(
    base: str, targets: tuple[str, ...]
) -> None:
    from peft import LoraConfig, get_peft_model

    shape = {**KNOWN[base], "num_hidden_layers": 2}  # weights are linear in layers
    model, counted = on_meta(shape), Architecture.of(shape, base)

    assert counted.weights == count(model)
    adapted = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", r=16, target_modules=list(targets)))
    assert counted.lora(targets, 16) == count(adapted, trained=True)


def test_the_whole_of_mistral_7b_is_counted() -> None:
    base = "mistralai/Mistral-7B-Instruct-v0.2"
    assert Architecture.of(KNOWN[base], base).weights == count(on_meta(dict(KNOWN[base]))) == 7_241_732_096


@pytest.mark.parametrize("mode", ["lora", "full"])
def test_operations_of_a_token_are_those_that_training_reports_its_utilisation_by(mode: str) -> None:
    from peft import LoraConfig, get_peft_model

    from pipelines.training.metrics import flops_per_token

    shape = {**KNOWN["Qwen/Qwen2.5-7B-Instruct"], "num_hidden_layers": 2}
    model, counted = on_meta(shape), Architecture.of(shape, "")
    if mode == "lora":
        model = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", r=16, target_modules=list(TARGETS)))
    settings = load("production", [f"training.mode={mode}"])
    setup = Setup.of(settings, "sft", settings.training.sft)

    assert model_flops(counted, setup, 900.0) == pytest.approx(flops_per_token(model, 900.0), rel=1e-3)


def test_a_folder_is_read_before_the_table_and_scratch_from_the_settings(tmp_path: Path) -> None:
    shape = {**KNOWN["Qwen/Qwen2.5-7B-Instruct"], "num_hidden_layers": 3}
    (tmp_path / "config.json").write_text(json.dumps(shape))

    found = architecture(load("production", [f"model.base={tmp_path}"]))
    assert (found.layers, found.source) == (3, str(tmp_path / "config.json"))
    assert architecture(load("demo")).tied


def test_what_cannot_be_counted_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "mamba"}))
    with pytest.raises(ConfigError, match="model_type mamba cannot be counted; mistral, llama"):
        architecture(load("production", [f"model.base={tmp_path}"]))
    with pytest.raises(ModelNotFound, match=r"model\.base nobody/nothing: no config\.json"):
        architecture(load("production", ["model.base=nobody/nothing"]))
    with pytest.raises(ConfigError, match="name no linear layer of mistral; there are q_proj"):
        Architecture.of(KNOWN["mistralai/Mistral-7B-Instruct-v0.2"], "").lora(("c_attn",), 8)


def test_memory_of_mistral_7b_is_what_the_definitions_of_zero_say() -> None:
    """Full training in bfloat16 over 16 workers: 2 + 2 + 12 bytes a weight, sharded as far as the stage shards."""
    base = "mistralai/Mistral-7B-Instruct-v0.2"
    model, rows = Architecture.of(KNOWN[base], base), Rows(1, 10, 10, 64, 32, "tokens")
    weights = model.weights

    def held(stage: int) -> tuple[float, float]:
        settings = load("production", ["training.mode=full", f"training.zero_stage={stage}"])
        setup = Setup.of(settings, "sft", settings.training.sft)
        terms = memory(model, setup, batch_of(settings, "sft", settings.training.sft, rows)).terms
        return terms.weights, terms.optimizer

    assert [held(stage) for stage in (0, 1, 2, 3)] == [
        (2 * weights, 12 * weights),
        (2 * weights, 12 * weights / 16),
        (2 * weights, 12 * weights / 16),
        (2 * weights / 16, 12 * weights / 16),
    ]
