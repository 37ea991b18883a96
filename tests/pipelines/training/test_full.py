"""Full fine-tuning from SFT to a model to serve: all weights, DeepSpeed on real workers, no reference in memory."""

import json
import math
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from configs import load
from configs.errors import StageOrderError
from configs.settings import Settings
from pipelines.layout import Layout
from pipelines.manifest import require
from pipelines.training import build, curves, merge, reference
from pipelines.training.weights import is_whole_model, load_model, load_tokenizer
from tests.pipelines.training.conftest import SIZES, Build, Inputs

pytestmark = pytest.mark.slow
RATE = 1e-3


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """ZeRO-3 with everything offloaded and recomputed: what full fine-tuning needs most, all at once."""
    overrides = [
        f"output={tmp_path_factory.mktemp('full')}",
        *SIZES,
        "training.mode=full",
        "training.zero_stage=3",
        "training.offload={optimizer: cpu, parameters: cpu}",
        "training.gradient_checkpointing=true",
        *(f"training.{stage}.learning_rate={RATE}" for stage in ("sft", "dpo1")),
    ]
    return load("demo", overrides)


@pytest.fixture(scope="module")
def sft(full: Settings, base_model: Path, tokenised: Build) -> Path:
    output = Layout(Path(full.output)).adapter("gm", "sft")
    build.build(full, {"tokens": tokenised("sft"), "base": base_model}, output, model="gm", stage="sft")
    return output


@pytest.fixture(scope="module")
def dpo(full: Settings, base_model: Path, tokenised: Build, sft: Path) -> Path:
    at = Layout(Path(full.output))
    inputs: Inputs = {"tokens": tokenised("dpo1"), "base": base_model, "start": sft}
    reference.build(full, inputs, at.reference("gm", "dpo1"), model="gm", stage="dpo1")
    output = at.adapter("gm", "dpo1")
    build.build(full, {**inputs, "reference": at.reference("gm", "dpo1")}, output, model="gm", stage="dpo1")
    return output


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return {name: value.detach() for name, value in load_model(str(folder)).named_parameters()}


def test_every_stage_leaves_a_whole_model_that_moved(base_model: Path, sft: Path, dpo: Path) -> None:
    for before, folder in ((base_model, sft), (sft, dpo)):
        assert is_whole_model(folder)
        assert load_tokenizer(str(folder)).chat_template
        one, other = weights(before), weights(folder)
        moved = {name: float((other[name] - one[name]).abs().max()) for name in one}
        assert all(0 < far <= 2.5 * RATE for far in moved.values()), moved  # two steps of AdamW
    figures = require(sft, "").figures
    assert figures["trainable_parameters"] == sum(value.numel() for value in weights(sft).values())


def test_it_holds_nothing_of_the_run_that_made_it(base_model: Path, sft: Path, dpo: Path) -> None:
    for folder in (sft, dpo):
        names = {path.name for path in folder.iterdir()}
        assert {"model.safetensors", "config.json", "generation_config.json", "README.md", "curves.json"} <= names
        assert not names & {"adapter_config.json", "training_args.bin", "summary.json", "ref"}
        texts = [path.read_text() for path in folder.glob("*.json") if path.name != "manifest.json"]
        assert not any(str(base_model.parent) in text or str(sft) in text for text in texts)


def test_dpo_begins_at_ln_2_on_the_model_that_sft_left(dpo: Path) -> None:
    assert curves.load(dpo)[0]["loss"] == pytest.approx(math.log(2), abs=1e-3)
    assert set(require(dpo, "").inputs) == {"tokens", "base", "start", "reference"}


def test_the_model_to_serve_is_that_of_the_last_stage(
    full: Settings, base_model: Path, dpo: Path, tmp_path: Path
) -> None:
    output = tmp_path / "models" / "gm"
    merge.build(full, {"base": base_model, "adapter": dpo}, output, model="gm")
    trained, served = AutoModelForCausalLM.from_pretrained(dpo), AutoModelForCausalLM.from_pretrained(output)
    assert all(torch.equal(value, served.state_dict()[name]) for name, value in trained.state_dict().items())
    assert json.loads((output / "config.json").read_text())["architectures"] == ["MistralForCausalLM"]


def test_an_adapter_is_not_continued_as_a_whole_model(full: Settings, dpo_inputs: Inputs, tmp_path: Path) -> None:
    with pytest.raises(StageOrderError, match=r"holds an adapter .*training\.mode is full"):
        build.build(full, dpo_inputs, tmp_path / "dpo1", model="gm", stage="dpo1")
    assert not (tmp_path / "dpo1").exists()
