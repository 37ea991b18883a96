"""Base and adapter as one model."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from transformers import GenerationConfig

from configs.serving import GenerationSettings
from configs.settings import Settings
from pipelines.layout import Layout
from pipelines.manifest import require
from pipelines.training import artefacts, merge
from pipelines.training.card import card
from pipelines.training.encode import encode_prompt
from pipelines.training.plan import portable_name
from pipelines.training.weights import load_model, load_tokenizer


@pytest.fixture(scope="module")
def merged(settings: Settings, base_model: Path, sft_adapter: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("models") / "gm"
    merge.build(settings, {"base": base_model, "adapter": sft_adapter}, output, model="gm")
    return output


def test_the_merged_model_answers_as_base_and_adapter_do(merged: Path, base_model: Path, sft_adapter: Path) -> None:
    tokenizer = load_tokenizer(str(merged))
    ids = torch.tensor([encode_prompt(tokenizer, [{"role": "user", "content": "I am tired because of my job."}])])
    base = load_model(str(base_model))
    with torch.no_grad():
        plain = base(input_ids=ids).logits
        adapted = PeftModel.from_pretrained(base, str(sft_adapter)).eval()(input_ids=ids).logits
        whole = load_model(str(merged))(input_ids=ids).logits
    assert torch.allclose(whole, adapted, atol=1e-4)
    assert not torch.allclose(whole, plain, atol=1e-4)


def test_it_is_whole_and_says_what_it_is(merged: Path) -> None:
    names = {path.name for path in merged.iterdir()}
    assert {"model.safetensors", "config.json", "tokenizer.json", "generation_config.json", "README.md"} <= names
    assert load_tokenizer(str(merged)).chat_template
    assert "GM, sft, merged" in (merged / "README.md").read_text()
    assert require(merged, "").figures["largest_logit_difference"] < 1e-4


@pytest.mark.parametrize("which", ["merged", "sft_adapter"])
def test_a_server_samples_as_ours_does_and_stops_where_the_turn_ends(
    which: str, settings: Settings, request: pytest.FixtureRequest
) -> None:
    folder = request.getfixturevalue(which)
    config, tokenizer = GenerationConfig.from_pretrained(folder), load_tokenizer(str(folder))
    wanted = settings.generation
    assert (config.temperature, config.top_p, config.max_new_tokens, config.top_k) == (
        wanted.temperature,
        wanted.top_p,
        wanted.max_new_tokens,
        0,
    )
    assert (config.eos_token_id, config.pad_token_id) == (tokenizer.eos_token_id, tokenizer.pad_token_id)
    assert (folder / "chat_template.jinja").is_file()


@pytest.mark.parametrize("which", ["merged", "sft_adapter"])
def test_its_card_leads_back_to_the_threads(which: str, layout: Layout, request: pytest.FixtureRequest) -> None:
    card = (request.getfixturevalue(which) / "README.md").read_text()
    for stage, folder in {"corpus": layout.threads, "tokens/gm/sft": layout.tokens("gm", "sft")}.items():
        assert f"{stage}: manifest `{require(folder, '').key}`" in card
    assert "loss on the validation split" in card and "| rows, train | 16 of 16 |" in card


def test_greedy_sampling_names_no_temperature(merged: Path, tmp_path: Path) -> None:
    for file in artefacts.loadable(merged):
        if file.suffix != ".safetensors":
            shutil.copy(file, tmp_path)
    artefacts.write_generation(tmp_path, GenerationSettings(temperature=0.0))
    config = json.loads((tmp_path / "generation_config.json").read_text())
    assert config["do_sample"] is False and not {"temperature", "top_p", "top_k"} & set(config)


def test_a_whole_model_is_linked_and_what_is_written_again_is_not(merged: Path, tmp_path: Path) -> None:
    difference, _ = merge.merge("no base is read", str(merged), str(tmp_path / "out"), None, False)
    assert difference == 0.0
    assert (tmp_path / "out" / "model.safetensors").samefile(merged / "model.safetensors")
    assert not (tmp_path / "out" / "generation_config.json").samefile(merged / "generation_config.json")
    assert not (tmp_path / "out" / "manifest.json").exists()
    assert load_model(str(tmp_path / "out")) is not None


@pytest.mark.parametrize(
    ("base", "name"),
    [
        ("mistralai/Mistral-7B", "mistralai/Mistral-7B"),
        ("/data/models/Mistral-7B", "Mistral-7B"),
        ("/c/hub/models--mistralai--Mistral-7B/snapshots/0ab", "mistralai/Mistral-7B"),
    ],
)
def test_a_base_is_never_named_by_a_path(base: str, name: str) -> None:
    assert portable_name(base) == name
    written = card(model="gm", stage="sft", base=name, key="k", inputs={}, settings={"path": base}, figures={})
    assert ("base_model:" in written) == ("/" in name)
    assert "/data/models" not in written and "/c/hub" not in written


def test_nothing_is_written_where_the_answers_differ(
    base_model: Path, sft_adapter: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(merge.TOLERANCE, "float32", -1.0)
    difference, allowed = merge.merge(str(base_model), str(sft_adapter), str(tmp_path / "out"), None, False)
    assert difference > allowed
    assert not (tmp_path / "out").exists()
