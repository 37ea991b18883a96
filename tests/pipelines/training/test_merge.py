"""Base and adapter as one model."""

from pathlib import Path

import pytest
import torch
from peft import PeftModel

from configs.settings import Settings
from pipelines.manifest import require
from pipelines.training import merge
from pipelines.training.encode import encode_prompt
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


def test_nothing_is_written_where_the_answers_differ(
    base_model: Path, sft_adapter: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(merge.TOLERANCE, "float32", -1.0)
    difference, allowed = merge.merge(str(base_model), str(sft_adapter), str(tmp_path / "out"), None, False)
    assert difference > allowed
    assert not (tmp_path / "out").exists()
