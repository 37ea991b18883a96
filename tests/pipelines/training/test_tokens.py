"""Rows to token ids: nothing is lost, nothing is cut, every token can be traced."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from transformers import PreTrainedTokenizerFast

from configs import prompts
from configs.errors import ConfigError, DataError, MissingInput, StageOrderError
from configs.settings import Settings
from pipelines.evaluation.summary import tokenised
from pipelines.layout import Layout
from pipelines.pairs.schema import PAIR, SFT
from pipelines.training import tokens
from pipelines.training.encode import encode
from pipelines.training.weights import load_tokenizer


def rows(folder: Path, split: str = "train") -> list[dict[str, Any]]:
    return [row for file in sorted((folder / split).glob("*.parquet")) for row in pq.read_table(file).to_pylist()]


def changed(settings: Settings, **training: Any) -> Settings:
    return settings.model_copy(update={"training": settings.training.model_copy(update=training)})


def encode_all(source: Path, target: Path, base: Path, kind: str, longest: int = 640, cut: bool = False) -> dict:
    """One file through the very function that Ray's tasks run; its counts."""
    item = {"source": str(source), "target": str(target), "bound": None}
    done = tokens.encode_file(item, kind=kind, base=str(base), revision=None, max_length=longest, seed=0, cut=cut)
    return {name: n for name, n in done["counts"].items() if n}


@pytest.fixture
def base_folder(tokenizer: Any, tmp_path: Path) -> Path:
    """A folder with the tokenizer, which is all that tokenising needs of a base."""
    tokenizer.save_pretrained(tmp_path / "base")
    (tmp_path / "base" / "config.json").write_text('{"model_type": "mistral"}')
    return tmp_path / "base"


def source_of(layout: Layout, stage: str) -> Path:
    folder = layout.sft if stage == "sft" else layout.pairs
    return folder / "gm" / "train" / "part-0.parquet"


def test_sft_labels_are_the_completion_and_nothing_else(base_folder: Path, layout: Layout, tokenizer: Any) -> None:
    target = base_folder.parent / "out.parquet"
    encode_all(source_of(layout, "sft"), target, base_folder, "sft")
    for row, made in zip(
        pq.read_table(source_of(layout, "sft")).to_pylist(), pq.read_table(target).to_pylist(), strict=True
    ):
        prompt, completion = encode(tokenizer, row["prompt"], row["completion"])
        assert made["input_ids"] == prompt + completion
        assert made["labels"] == [-100] * len(prompt) + completion
        assert made["length"] == len(made["input_ids"])
        assert (made["post_id"], made["comment_id"]) == (row["post_id"], row["comment_id"])


def test_both_replies_of_a_pair_follow_the_same_prompt(base_folder: Path, layout: Layout, tokenizer: Any) -> None:
    target = base_folder.parent / "out.parquet"
    encode_all(source_of(layout, "dpo"), target, base_folder, "dpo")
    row, made = pq.read_table(source_of(layout, "dpo")).to_pylist()[0], pq.read_table(target).to_pylist()[0]
    prompt, chosen = encode(tokenizer, row["prompt"], row["chosen"])
    _, rejected = encode(tokenizer, row["prompt"], row["rejected"])
    assert (made["prompt_ids"], made["chosen_ids"], made["rejected_ids"]) == (prompt, chosen, rejected)
    assert made["length"] == len(prompt) + max(len(chosen), len(rejected))
    assert [made[key] for key in tokens.KEYS["dpo"]] == [row[key] for key in tokens.KEYS["dpo"]]


def test_what_is_too_long_or_empty_is_dropped_under_its_name(base_folder: Path, tokenizer: Any) -> None:
    prompt = [{"role": "user", "content": "I am tired."}]
    texts = {"fits": "That sounds hard.", "long": "hard " * 200, "blank": " "}
    made = [
        {"prompt": prompt, "completion": [{"role": "assistant", "content": text}], "post_id": "p", "comment_id": name}
        for name, text in texts.items()
    ]
    source, target = base_folder.parent / "in.parquet", base_folder.parent / "out.parquet"
    table = pa.Table.from_pylist([{n: row.get(n) for n in SFT.names} for row in made], schema=SFT)
    pq.write_table(table, source)
    counts = encode_all(source, target, base_folder, "sft", longest=100)
    assert {name: n for name, n in counts.items() if name != "tokens"} == {"kept": 1, "too_long": 1, "empty": 1}
    assert pq.read_table(target)["comment_id"].to_pylist() == ["fits"]


def test_a_pair_is_dropped_where_either_reply_is_empty(base_folder: Path) -> None:
    prompt = [{"role": "user", "content": "I am tired."}]
    full, blank = [{"role": "assistant", "content": "Rest."}], [{"role": "assistant", "content": ""}]
    made = [
        {"prompt": prompt, "chosen": full, "rejected": blank},
        {"prompt": prompt, "chosen": blank, "rejected": full},
        {"prompt": prompt, "chosen": full, "rejected": full},
    ]
    source, target = base_folder.parent / "in.parquet", base_folder.parent / "out.parquet"
    pq.write_table(pa.Table.from_pylist([{n: row.get(n) for n in PAIR.names} for row in made], schema=PAIR), source)
    assert encode_all(source, target, base_folder, "dpo")["empty"] == 2
    assert pq.read_table(target).num_rows == 1


def test_the_choice_of_max_rows_depends_on_the_seed_and_not_on_the_order_of_rows(tmp_path: Path) -> None:
    keys = ("post_id",)
    names = [f"p{number}" for number in range(100)]

    def chosen(order: list[str], seed: int) -> set[str]:
        file = tmp_path / "rows.parquet"
        pq.write_table(pa.table({"post_id": order}), file)
        bound = tokens.highest_pick([file], keys, 10, seed)
        return {name for name in order if bound is not None and tokens.pick({"post_id": name}, keys, seed) <= bound}

    assert chosen(names, 1) == chosen(names[::-1], 1)
    assert len(chosen(names, 1)) == 10
    assert chosen(names, 1) != chosen(names, 2)


def test_no_row_is_chosen_away_where_there_are_fewer_than_max_rows(layout: Layout) -> None:
    files = [source_of(layout, "sft")]
    assert tokens.highest_pick(files, tokens.KEYS["sft"], 0, 1) is None
    assert tokens.highest_pick(files, tokens.KEYS["sft"], 16, 1) is None
    assert tokens.highest_pick(files, tokens.KEYS["sft"], 15, 1) is not None


def test_every_row_read_is_kept_or_counted(
    settings: Settings, layout: Layout, base_folder: Path, tmp_path: Path, ray_cluster: None
) -> None:
    stage = settings.training.sft.model_copy(update={"max_rows": 10})
    inputs = {"rows": layout.sft, "base": str(base_folder)}
    manifest = tokens.build(changed(settings, sft=stage), inputs, tmp_path / "out", model="gm", stage="sft")
    train = manifest.rows["train"]
    assert (train.read, train.kept, train.dropped) == (16, 10, {"beyond_max_rows": 6})
    assert (manifest.rows["validation"].read, manifest.rows["validation"].kept) == (4, 4)
    assert len(rows(tmp_path / "out")) == 10
    assert manifest.figures["train_tokens"] == sum(row["length"] for row in rows(tmp_path / "out"))


def test_a_stage_without_any_row_left_says_where_they_went(
    settings: Settings, layout: Layout, base_folder: Path, tmp_path: Path, ray_cluster: None
) -> None:
    inputs = {"rows": layout.pairs, "base": str(base_folder)}
    with pytest.raises(DataError, match=r"16 read.*too_long.*16"):
        tokens.build(changed(settings, max_length=16), inputs, tmp_path / "out", model="gm", stage="dpo1")
    assert not (tmp_path / "out").exists()


def test_rows_that_were_never_made_are_named(
    settings: Settings, layout: Layout, base_folder: Path, tmp_path: Path
) -> None:
    with pytest.raises(MissingInput, match="train holds no Parquet file"):
        tokens.encode_split(tmp_path / "train", tmp_path / "out", None, limit=0, keys=("post_id",), seed=0)  # type: ignore[arg-type]


def test_a_long_prompt_is_cut_or_the_row_dropped_because_its_completion_would_be(base_folder: Path) -> None:
    long = prompts.messages("gm", "I am tired. " * 100)
    texts = {"fits": "That sounds hard.", "long": "hard " * 300}
    made = [
        {"prompt": long, "completion": [{"role": "assistant", "content": text}], "post_id": "p", "comment_id": name}
        for name, text in texts.items()
    ]
    source, target = base_folder.parent / "in.parquet", base_folder.parent / "out.parquet"
    pq.write_table(pa.Table.from_pylist([{n: row.get(n) for n in SFT.names} for row in made], schema=SFT), source)
    whole = encode_all(source, target, base_folder, "sft", longest=10_000)
    assert (whole["kept"], whole.get("cut", 0)) == (2, 0)
    lengths = pq.read_table(target)["length"].to_pylist()
    counts = encode_all(source, target, base_folder, "sft", longest=lengths[0] - 200, cut=True)
    assert (counts["kept"], counts["cut"], counts["completion_too_long"]) == (1, 1, 1)
    assert pq.read_table(target)["comment_id"].to_pylist() == ["fits"]
    assert lengths[0] - 215 < pq.read_table(target)["length"][0].as_py() <= lengths[0] - 200


@pytest.mark.parametrize(
    ("chosen", "rejected", "margin"), [(9, 2, 7.0), (1, 3, -2.0), (None, None, None), (4, None, None)]
)
def test_a_pair_s_margin_is_in_votes_where_votes_chose_it(chosen: Any, rejected: Any, margin: float | None) -> None:
    assert tokens.margin_of({"chosen_score": chosen, "rejected_score": rejected}) == margin


def test_an_output_says_what_it_was_made_with_and_shows_what_is_learned(
    settings: Settings, layout: Layout, base_folder: Path, tmp_path: Path, ray_cluster: None, caplog: Any
) -> None:
    """Lengths, hashes and the masking page of one output; its refusal and its renewal once the template changed."""
    inputs, out = {"rows": layout.pairs, "base": str(base_folder)}, tmp_path / "out"
    given = settings.model_copy(update={"model": settings.model.model_copy(update={"base": str(base_folder)})})
    made = tokens.build(given, inputs, out, model="gm", stage="dpo1")
    whole, written = made.figures["lengths"]["train"], rows(out)
    sums = [len(r["prompt_ids"]) + len(r[name]) for r in written for name in ("chosen_ids", "rejected_ids")]
    assert whole["whole"]["count"] == len(sums) and whole["whole"]["max"] == max(sums)
    learned = sum(len(r["chosen_ids"]) + len(r["rejected_ids"]) for r in written)
    assert whole["trained_share"] == round(learned / sum(sums), 4)
    assert made.figures["masking"] | {"tokens": 0, "trained": 0} == {"rows": 4, "tokens": 0, "trained": 0, "wrong": 0}
    assert [row["learned"] for row in tokenised({"tokens/gm/dpo1": made})] == [whole["trained_share"]]
    page = (out / "masking.html").read_text()
    assert page.count("<mark>") > 20 and "</mark>" in page
    assert page not in (out / "manifest.json").read_text()
    assert "makes sense" not in (out / "manifest.json").read_text()

    assert made.settings | tokens.depends(given, "gm", "dpo1") == made.settings
    tokens.check(out, str(base_folder), None, "llumi train")
    template = base_folder / "chat_template.jinja"
    template.write_text(template.read_text().replace("' [INST] '", "'[INST] '"))
    changed_now = tokens.depends(given, "gm", "dpo1")
    assert {name for name, value in changed_now.items() if made.settings[name] != value} == {"template"}
    with pytest.raises(StageOrderError, match=r"made with another template than .* has now: run `llumi train`"):
        tokens.check(out, str(base_folder), None, "llumi train")
    with caplog.at_level("INFO", "llumi.tokens"):
        tokens.tell_changes(out, changed_now)
    told = [record.getMessage() for record in caplog.records if record.name == "llumi.tokens"]
    assert told == ["tokens/gm/dpo1: made again, as these changed: template"]


@pytest.mark.parametrize(
    ("known", "pads"), [({"unk_token": "<unk>"}, "<unk>"), ({}, "</s>"), ({"pad_token": "<s>"}, "<s>")]
)
def test_a_tokenizer_without_padding_pads_with_what_masks_will_hide(
    tokenizer: Any, tmp_path: Path, known: dict[str, str], pads: str
) -> None:
    bare = PreTrainedTokenizerFast(tokenizer_object=tokenizer.backend_tokenizer, eos_token="</s>", **known)
    bare.chat_template = tokenizer.chat_template
    bare.save_pretrained(tmp_path)
    assert load_tokenizer(str(tmp_path)).pad_token == pads


def test_a_tokenizer_without_an_end_token_or_template_is_refused(tokenizer: Any, tmp_path: Path) -> None:
    endless = PreTrainedTokenizerFast(tokenizer_object=tokenizer.backend_tokenizer)
    endless.save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match=r"no chat template; set model\.base"):
        load_tokenizer(str(tmp_path))
    endless.chat_template = tokenizer.chat_template
    endless.save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match="no end-of-sequence token, so no reply could ever end"):
        load_tokenizer(str(tmp_path))
