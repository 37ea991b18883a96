"""The small base that is made on the spot."""

from pathlib import Path

import pytest
import torch

from configs.errors import ConfigError, DataError, ModelNotFound
from configs.settings import Settings
from pipelines.layout import Layout
from pipelines.manifest import require, writing
from pipelines.training import base, build, scratch, tokens
from pipelines.training.weights import base_name, load_model, load_tokenizer
from tests.pipelines.training.conftest import SPLITS, Build


def test_it_is_a_whole_mistral_that_transformers_loads_and_that_generates(base_model: Path) -> None:
    model, tokenizer = load_model(str(base_model)), load_tokenizer(str(base_model))
    assert model.config.model_type == "mistral"
    assert model.generation_config.eos_token_id == tokenizer.eos_token_id
    ids = tokenizer.apply_chat_template([{"role": "user", "content": "Hello"}], return_tensors="pt", return_dict=False)
    assert model.generate(ids, max_new_tokens=3, do_sample=False).shape[1] == ids.shape[1] + 3


def test_its_template_is_mistral_s(base_model: Path) -> None:
    tokenizer = load_tokenizer(str(base_model))
    turns = [{"role": r, "content": c} for r, c in (("user", "a"), ("assistant", "b"), ("user", "c"))]
    assert tokenizer.apply_chat_template(turns, tokenize=False) == "<s> [INST] a [/INST] b</s> [INST] c [/INST]"
    assert tokenizer.convert_tokens_to_ids(["<unk>", "<s>", "</s>"]) == [0, 1, 2]


def test_it_holds_nothing_of_the_run_that_made_it(base_model: Path) -> None:
    names = {path.name for path in base_model.iterdir()}
    assert {"model.safetensors", "config.json", "tokenizer.json", "generation_config.json", "README.md"} <= names
    assert not names & {"work", "training_args.bin", "summary.json"}
    texts = [path.read_text() for path in base_model.glob("*.json") if path.name != "manifest.json"]
    assert not any(str(base_model.parent) in text for text in texts)


def test_its_weights_were_trained(base_model: Path, settings: Settings) -> None:
    manifest = require(base_model, "")
    assert manifest.figures["steps"] == 2
    trained = load_model(str(base_model)).state_dict()
    torch.manual_seed(0)
    config = scratch.model_config(settings.model.scratch, load_tokenizer(str(base_model)))
    fresh = type(load_model(str(base_model)))(config)
    assert sum(p.numel() for p in fresh.parameters()) == manifest.figures["trainable_parameters"]
    assert any(not torch.allclose(trained[name], value) for name, value in fresh.state_dict().items())


def test_only_the_training_split_is_learned_from(layout: Layout, settings: Settings, base_model: Path) -> None:
    rows = require(base_model, "").rows
    assert rows["train"].read == SPLITS["train"] * 3
    assert rows["validation"].read == SPLITS["validation"] * 3


def test_some_replies_stand_under_each_whole_prompt(layout: Layout, settings: Settings) -> None:
    conversations = list(scratch.conversations(layout.threads, "train", settings.prompts, 0))
    questions = [turns[0]["content"] for turns in conversations]
    drafts = sum("<draft>" in question for question in questions)
    whole = sum("<post>" in question for question in questions) - drafts
    assert 0 < drafts < len(questions) / 4 and 0 < whole < len(questions) / 4


def test_threads_without_replies_are_refused(settings: Settings, layout: Layout, tmp_path: Path) -> None:
    with writing(tmp_path / "threads", stage="corpus", settings={}, inputs={}):
        pass
    with pytest.raises(DataError, match="no reply"):
        base.build(settings, {"threads": tmp_path / "threads"}, tmp_path / "base")
    assert not (tmp_path / "base").exists()


@pytest.mark.parametrize("path", ["./no/model/here", "/no/model/here"])
def test_a_base_that_is_not_there_is_named_before_anything_starts(
    path: str, settings: Settings, layout: Layout, tmp_path: Path
) -> None:
    for start in (tokens.build, build.build):
        inputs = {"rows": layout.sft, "tokens": layout.sft, "base": path}
        with pytest.raises(ModelNotFound, match=path):
            start(settings, inputs, tmp_path / "out", model="gm", stage="sft")


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFound, match="holds no model"):
        base_name(tmp_path)


def test_a_name_that_cannot_be_fetched_comes_with_the_ways_out() -> None:
    with pytest.raises(ModelNotFound, match=r"hf download no-such/model.*scratch"):
        load_tokenizer("no-such/model")


def test_a_base_without_chat_template_is_refused(base_model: Path, tmp_path: Path) -> None:
    tokenizer = load_tokenizer(str(base_model))
    tokenizer.chat_template = None
    tokenizer.save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text((base_model / "config.json").read_text())
    with pytest.raises(ConfigError, match="chat template"):
        load_tokenizer(str(tmp_path))


def test_each_base_is_tokenised_again(tokenised: Build, settings: Settings, base_model: Path) -> None:
    manifest = require(tokenised("sft"), "")
    assert set(manifest.inputs) == {"rows", "base"}
