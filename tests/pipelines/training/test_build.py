"""Two real steps of SFT and of DPO on two workers, by ZeRO-2 and ZeRO-3."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel

from configs.errors import StageOrderError, TrainingError
from configs.settings import Settings
from pipelines.layout import Layout
from pipelines.manifest import Manifest
from pipelines.training import build, curves, provenance, reference
from pipelines.training.weights import load_model
from tests.pipelines.training.conftest import Build, Inputs


def by_zero(settings: Settings, stage: int, **training: Any) -> Settings:
    return settings.model_copy(
        update={"training": settings.training.model_copy(update={"zero_stage": stage, **training})}
    )


def read_manifest(folder: Path) -> Manifest:
    return Manifest.model_validate_json((folder / "manifest.json").read_text())


def trained_weights(base: Path, adapter: Path) -> dict[str, torch.Tensor]:
    """The adapter's second factors, which are zero before training."""
    model = PeftModel.from_pretrained(load_model(str(base)), str(adapter))
    return {name: value for name, value in model.state_dict().items() if "lora_B" in name}


def assert_complete(adapter: Path, base: Path) -> None:
    """What every adapter must be: loadable, trained, and free of this machine."""
    names = {path.name for path in adapter.iterdir()}
    assert {
        "adapter_model.safetensors",
        "tokenizer.json",
        "generation_config.json",
        "curves.json",
        "README.md",
    } <= names
    assert not names & {"ref", "training_args.bin", "summary.json"}
    config = json.loads((adapter / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == "base"
    texts = [path.read_text() for path in adapter.glob("*.json") if path.name != "manifest.json"]
    assert not any(str(base.parent) in text for text in [*texts, (adapter / "README.md").read_text()])
    assert all(value.abs().max() > 0 for value in trained_weights(base, adapter).values())


def test_sft_by_zero_2_leaves_a_complete_adapter(sft_adapter: Path, base_model: Path, settings: Settings) -> None:
    assert_complete(sft_adapter, base_model)
    figures = read_manifest(sft_adapter).figures
    assert (figures["steps"], figures["world_size"], figures["resumed_at_step"]) == (2, 2, 0)
    assert set(figures["seconds"]) >= {"start", "import", "load", "first_step", "steps", "evaluate", "save", "total"}
    assert figures["tokens_per_second"] > 0
    assert not Layout(Path(settings.output)).checkpoints.exists() or not list(
        Layout(Path(settings.output)).checkpoints.glob("gm-sft-*")
    )


def test_the_card_names_use_limits_and_the_rows(sft_adapter: Path) -> None:
    card, manifest = (sft_adapter / "README.md").read_text(), read_manifest(sft_adapter)
    assert "## Intended use" in card and "## Limits" in card
    assert manifest.key in card and all(print_ in card for print_ in manifest.inputs.values())
    assert f"learning_rate: {manifest.settings['own']['learning_rate']}" in card


def test_the_card_gives_the_held_out_loss_with_an_interval(sft_adapter: Path) -> None:
    last = read_manifest(sft_adapter).figures["last"]
    assert last["eval_loss_se"] > 0 and last["eval_batches"] >= 2
    low, high = provenance.student(last, 0.95)
    row = next(line for line in (sft_adapter / "README.md").read_text().splitlines() if line.startswith("| loss on"))
    assert f"{low:.4g} to {high:.4g}" in row and low < last["eval_loss"] < high


@pytest.mark.slow
def test_sft_by_zero_3_gathers_the_same_adapter(
    settings: Settings, sft_adapter: Path, base_model: Path, tokenised: Build, tmp_path: Path
) -> None:
    inputs = {"tokens": tokenised("sft"), "base": base_model}
    build.build(by_zero(settings, 3), inputs, tmp_path / "sft", model="gm", stage="sft")
    assert_complete(tmp_path / "sft", base_model)
    by_2, by_3 = trained_weights(base_model, sft_adapter), trained_weights(base_model, tmp_path / "sft")
    assert all(torch.allclose(by_2[name], by_3[name], atol=1e-4) for name in by_2)


@pytest.mark.parametrize("stage", [2, pytest.param(3, marks=pytest.mark.slow)])
def test_dpo_continues_the_adapter_and_begins_at_ln_2(
    stage: int, settings: Settings, sft_adapter: Path, base_model: Path, dpo_inputs: Inputs, tmp_path: Path
) -> None:
    output = tmp_path / "dpo1"
    manifest = build.build(by_zero(settings, stage), dpo_inputs, output, model="gm", stage="dpo1")
    assert_complete(output, base_model)
    curve = curves.load(output)
    assert curve[0]["loss"] == pytest.approx(math.log(2), abs=1e-3)
    assert {"rewards/accuracies", "rewards/margins", "learning_rate", "grad_norm"} <= set(curve[0])
    assert "eval_rewards/accuracies" in curve[-1]
    before, after = trained_weights(base_model, sft_adapter), trained_weights(base_model, output)
    moved = max(float((after[name] - before[name]).abs().max()) for name in before)
    assert 0 < moved < 0.05
    assert set(manifest.inputs) == {"tokens", "base", "start", "reference"}


@pytest.mark.slow
def test_in_bfloat16_the_reference_is_computed_as_deepspeed_computes_the_policy(
    settings: Settings, dpo_inputs: Inputs, tmp_path: Path
) -> None:
    half, output = by_zero(settings, 2, bf16=True), tmp_path / "dpo1"
    inputs = {name: dpo_inputs[name] for name in ("tokens", "base", "start")}
    reference.build(half, inputs, tmp_path / "reference", model="gm", stage="dpo1")
    build.build(half, {**inputs, "reference": tmp_path / "reference"}, output, model="gm", stage="dpo1")
    assert curves.load(output)[0]["loss"] == pytest.approx(math.log(2), abs=1e-3)


def test_dpo_without_an_adapter_before_it_names_the_stage_to_run(
    settings: Settings, base_model: Path, tokenised: Build, tmp_path: Path
) -> None:
    with pytest.raises(StageOrderError, match="--stage sft"):
        build.build(
            settings, {"tokens": tokenised("dpo1"), "base": base_model}, tmp_path / "x", model="gm", stage="dpo1"
        )


def test_an_adapter_depends_on_its_own_stage_s_settings_only(settings: Settings) -> None:
    def with_rate(stage: str) -> Settings:
        own = getattr(settings.training, stage).model_copy(update={"learning_rate": 0.5})
        return settings.model_copy(update={"training": settings.training.model_copy(update={stage: own})})

    assert build.depends(with_rate("dpo1"), "gm", "sft") == build.depends(settings, "gm", "sft")
    assert build.depends(with_rate("sft"), "gm", "sft") != build.depends(settings, "gm", "sft")


def test_training_that_diverges_ends_once_and_names_the_way_out(
    settings: Settings, base_model: Path, tokenised: Build, tmp_path: Path
) -> None:
    own = settings.training.sft.model_copy(update={"learning_rate": 1e30, "max_steps": 4, "warmup_share": 0.0})
    inputs = {"tokens": tokenised("sft"), "base": base_model}
    with pytest.raises(TrainingError, match="learning_rate"):
        build.build(by_zero(settings, 2, sft=own), inputs, tmp_path / "sft", model="gm", stage="sft")
    assert not (tmp_path / "sft").exists()
