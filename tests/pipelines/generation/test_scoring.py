"""Scores equal what a plain pass over each row alone gives."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from configs.errors import DataError
from configs.prompts import messages
from configs.settings import Settings
from pipelines.generation.logprobs import MIN_SHARED, common_opening, completion_logps
from pipelines.generation.scoring import cut, score, score_many
from pipelines.training.encode import encode

POSTS = ["I cannot sleep", "My friends do not call any more, and I do not know why that is", "work is too much " * 8]
REPLIES = ["I hear you.", "That sounds hard, what helped you the last time?", "no", "You could start small " * 5]


def rows() -> pa.Table:
    """Twelve rows: three prompts of different length with four completions each, shuffled."""
    table = [
        {
            "row_id": f"{post}/{reply}",
            "prompt": messages("gm", POSTS[post]),
            "completion": [{"role": "assistant", "content": REPLIES[reply]}],
        }
        for reply in (2, 0, 3, 1)
        for post in (1, 2, 0)
    ]
    return pa.Table.from_pylist(table)


@pytest.fixture(scope="module")
def wide_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Mistral long enough for whole prompts."""
    from tests.pipelines.generation.tiny import make

    return make(tmp_path_factory.mktemp("wide") / "model", positions=2048)


@pytest.fixture(scope="module")
def wide_adapter(wide_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An adapter that changes what the model finds likely."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    folder = tmp_path_factory.mktemp("wide") / "adapter"
    torch.manual_seed(7)
    config = LoraConfig(r=4, target_modules=["q_proj", "v_proj", "down_proj"], init_lora_weights=False)
    get_peft_model(AutoModelForCausalLM.from_pretrained(wide_model), config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def wide_tuned(wide_model: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two whole models that full fine-tuning may have made of it."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folders = []
    for seed in (8, 9):
        model = AutoModelForCausalLM.from_pretrained(wide_model)
        torch.manual_seed(seed)
        with torch.no_grad():
            for weight in model.parameters():
                weight += 0.02 * torch.randn_like(weight)
        folders.append(tmp_path_factory.mktemp("wide") / f"tuned-{seed}")
        model.save_pretrained(folders[-1])
        AutoTokenizer.from_pretrained(wide_model).save_pretrained(folders[-1])
    return folders[0], folders[1]


def settings(**training: Any) -> Settings:
    return Settings.model_validate(
        {"output": "unused", "training": {"max_length": 2048, **training}, "evaluation": {"batch_size": 5, "actors": 1}}
    )


def loaded(base: Path, adapter: Path | None = None) -> tuple[Any, Any]:
    """Model (adapter folded in) and tokenizer, by transformers and PEFT alone."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(base).eval()
    if adapter is not None:
        model = PeftModel.from_pretrained(model, adapter).eval()
    return model, AutoTokenizer.from_pretrained(base)


def plain(base: Path, adapter: Path | None, table: pa.Table) -> dict[str, float]:
    """Log-probabilities one row at a time, from full logits."""
    import torch

    model, tokenizer = loaded(base, adapter)
    found = {}
    for row in table.to_pylist():
        prompt, completion = encode(tokenizer, row["prompt"], row["completion"])
        with torch.no_grad():
            logits = model(torch.tensor([prompt + completion])).logits[0, len(prompt) - 1 : -1]
        chosen = logits.double().log_softmax(-1).gather(1, torch.tensor(completion)[:, None])
        found[row["row_id"]] = float(chosen.sum())
    return found


def test_scores_equal_a_plain_pass_over_each_row_with_and_without_an_adapter_and_under_whole_models(
    ray_cluster: None, wide_model: Path, wide_adapter: Path, wide_tuned: tuple[Path, Path]
) -> None:
    table, (one, other) = rows(), wide_tuned
    models = {"base": None, "full-sft": one, "sft": wide_adapter, "full-dpo1": other}
    found = score_many(table, str(wide_model), models, settings())
    assert found["row_id"].to_pylist() == table["row_id"].to_pylist()
    alone = {"base": (wide_model, None), "sft": (wide_model, wide_adapter), "full-sft": (one, None)}
    for name, (model, adapter) in (alone | {"full-dpo1": (other, None)}).items():
        expected = plain(model, adapter, table)
        for row in found.to_pylist():
            assert row[name] == pytest.approx(expected[row["row_id"]], abs=1e-4)
    for name in ("sft", "full-sft", "full-dpo1"):
        assert max(abs(a - b) for a, b in zip(*(found[n].to_pylist() for n in ("base", name)), strict=True)) > 0.1


def test_what_writes_is_the_whole_model_where_training_left_one(
    wide_model: Path, wide_tuned: tuple[Path, Path]
) -> None:
    import torch

    from pipelines.generation.loaded import load

    written = load(str(wide_model), wide_tuned[0])
    model, tokenizer = loaded(wide_tuned[0])[0], loaded(wide_model)[1]
    assert all(torch.equal(weight, model.state_dict()[name]) for name, weight in written.model.state_dict().items())
    assert written.tokenizer.chat_template == tokenizer.chat_template


def test_rows_name_their_adapters_and_rows_that_do_not_fit_say_why(
    ray_cluster: None, wide_model: Path, wide_adapter: Path
) -> None:
    table = rows().slice(0, 3).to_pylist()
    table[0] |= {"names": ["sft"]}
    table[1] |= {"names": ["base"], "completion": [{"role": "assistant", "content": "far too long " * 500}]}
    table[2] |= {"names": ["base"], "completion": [{"role": "assistant", "content": " "}]}
    found = score_many(
        pa.Table.from_pylist(table), str(wide_model), {"base": None, "sft": wide_adapter}, settings()
    ).to_pylist()
    assert [row["reason"] for row in found] == [None, "too_long", "no_text"]
    assert found[0]["base"] is None and found[0]["sft"] < 0
    assert found[1]["tokens"] is None and found[1]["base"] is None


def test_score_gives_one_models_sums_and_token_counts(ray_cluster: None, wide_model: Path) -> None:
    table = rows().slice(0, 2)
    found = score(table, str(wide_model), None, settings())
    _, tokenizer = loaded(wide_model)
    lengths = [len(encode(tokenizer, row["prompt"], row["completion"])[1]) for row in table.to_pylist()]
    assert found.column_names == ["row_id", "logp", "tokens"]
    assert found["tokens"].to_pylist() == lengths
    assert found["logp"].to_pylist() == pytest.approx(list(plain(wide_model, None, table).values()), abs=1e-4)


def test_two_rows_of_one_id_are_refused(wide_model: Path) -> None:
    table = rows().slice(0, 1)
    with pytest.raises(DataError, match="2 rows, 1 ids"):
        score(pa.concat_tables([table, table]), str(wide_model), None, settings())


def ids(model: Path) -> list[tuple[list[int], list[int]]]:
    _, tokenizer = loaded(model)
    return [encode(tokenizer, row["prompt"], row["completion"]) for row in rows().to_pylist()]


def without_opening(pairs: list[tuple[list[int], list[int]]]) -> list[tuple[list[int], list[int]]]:
    return [([index + 5, *prompt[-20:]], completion) for index, (prompt, completion) in enumerate(pairs)]


def shortest_prompts(pairs: list[tuple[list[int], list[int]]]) -> list[tuple[list[int], list[int]]]:
    return [(prompt[-1:], completion) for prompt, completion in pairs]


@pytest.mark.parametrize("shape", [lambda pairs: pairs, without_opening, shortest_prompts])
@pytest.mark.parametrize("window", [None, 4096])
def test_what_rows_share_changes_no_score(wide_model: Path, shape: Callable[[Any], Any], window: int | None) -> None:
    model, _ = loaded(wide_model)
    model.config.sliding_window = window
    batch = shape(ids(wide_model))
    alone = [completion_logps(model, [row])[0] for row in batch]
    assert completion_logps(model, batch) == pytest.approx(alone, abs=1e-4)


def test_a_common_opening_ends_at_the_first_difference() -> None:
    assert common_opening([[1, 2, 3, 4], [1, 2, 3], [1, 2, 5]]) == 2
    assert common_opening([[1, 2, 3], [1, 2, 3, 4]]) == 3
    assert common_opening([[7]]) == 1
    assert MIN_SHARED > 0


def test_batches_hold_equal_prompts_together_and_one_set_of_adapters_each() -> None:
    encoded = [
        {"row_id": str(i), "names": [name], "prompt_ids": [prompt] * (prompt + 1), "completion_ids": [1]}
        for i, (name, prompt) in enumerate([("a", 1), ("b", 2), ("a", 3), ("a", 1), ("b", 2), ("a", 3)])
    ]
    batches = [(batch["names"][0].as_py(), batch["row_id"].to_pylist()) for batch in cut(encoded, 2)]
    assert batches == [(["a"], ["2", "5"]), (["a"], ["0", "3"]), (["b"], ["1", "4"])]
