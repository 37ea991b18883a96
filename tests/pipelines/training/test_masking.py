"""What is learned, token by token, for the templates of well-known models, through TRL's own collators."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from trl.trainer.dpo_trainer import DataCollatorForPreference
from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

from configs import prompts
from configs.errors import ConfigError, DataError
from pipelines.manifest import Draft
from pipelines.training import masking, tokens
from pipelines.training.feeding import wrongly_masked
from tests.pipelines.training.chats import tokenizers

CHATS = tokenizers()
POST = "Hello\n\nI am worried about my exams <b>& more</b>."
GOOD, BAD = "That sounds hard, being tired makes sense.", "Get över it 🙂"
SYSTEM = {"role": "system", "content": "You are kind."}


def turn(text: str) -> list[dict[str, str]]:
    return [{"role": "assistant", "content": text}]


def row(system: bool = False) -> dict[str, Any]:
    prompt = [*([SYSTEM] if system else []), *prompts.messages("gm", POST)]
    ids = {"post_id": "p1", "comment_id": "c1", "chosen_id": "c1", "rejected_id": "c2"}
    return {"prompt": prompt, "completion": turn(GOOD), "chosen": turn(GOOD), "rejected": turn(BAD), **ids}


SYSTEMS = [(name, system) for name in CHATS for system in (False, True) if not system or name in ("chatml", "llama-3")]
SYSTEMS.append(("mistral-system-first", True))


@pytest.mark.parametrize(("name", "system"), SYSTEMS)
def test_the_reply_and_its_end_are_learned_and_no_other_token(name: str, system: bool) -> None:
    """Against the template's own text, in a batch whose shorter rows are padded by TRL."""
    tokenizer, given = CHATS[name], row(system)
    _, sft = tokens.sft_row(tokenizer, given, 2000)
    _, short = tokens.sft_row(tokenizer, {**given, "completion": turn("Yes.")}, 2000)
    _, pair = tokens.dpo_row(tokenizer, given, 2000)
    opening = tokenizer.apply_chat_template(
        given["prompt"], tokenize=True, add_generation_prompt=True, return_dict=False
    )
    end, pad = tokenizer.eos_token_id, tokenizer.pad_token_id
    learned = DataCollatorForLanguageModeling(pad_token_id=pad)([sft, short])
    compared = DataCollatorForPreference(pad_token_id=pad)([pair])
    masks = [*(learned["labels"] != -100), *compared["completion_mask"].bool()]
    ids, seen = (
        [*learned["input_ids"], *compared["input_ids"]],
        [*learned["attention_mask"], *compared["attention_mask"]],
    )
    for mask, sequence, attention, said in zip(masks, ids, seen, (GOOD, "Yes.", GOOD, BAD), strict=True):
        length = int(attention.sum())
        assert sequence[: len(opening)].tolist() == opening
        assert not mask[: len(opening)].any(), "a prompt token is learned"
        assert mask[len(opening) : length].all(), "a token of the reply is masked"
        assert not mask[length:].any() and (sequence[length:] == pad).all(), "padding is learned"
        taught = sequence[mask].tolist()
        assert taught[-1] == end and taught.count(end) == 1
        if "without" not in name:
            assert tokenizer.decode(taught[:-1]).strip() == said
    assert torch.equal(learned["labels"][learned["labels"] != -100], learned["input_ids"][learned["labels"] != -100])
    assert not wrongly_masked(learned, end) and not wrongly_masked(compared, end)


def test_a_template_that_drops_the_system_message_once_a_reply_follows_is_refused() -> None:
    """As Mistral-7B-Instruct-v0.3's does: it would be asked with what it never learned from."""
    with pytest.raises(ConfigError, match="renders a prompt differently once its completion follows"):
        tokens.sft_row(CHATS["mistral-v0.3"], row(system=True), 2000)


@pytest.mark.parametrize("kind", ["sft", "dpo"])
@pytest.mark.parametrize("name", CHATS)
def test_a_row_as_it_should_be_has_no_problem(name: str, kind: str) -> None:
    assert all(not reply["problems"] for reply in record(name, kind)["replies"])


def record(name: str, kind: str, **changes: Any) -> masking.Record:
    encoded, made = (tokens.sft_row if kind == "sft" else tokens.dpo_row)(CHATS[name], row(), 2000)
    return masking.examine(CHATS[name], kind, 0, row(), encoded, {**row(), **made, **changes})


def sft(name: str = "mistral-v0.2") -> tuple[list[int], list[int]]:
    _, made = tokens.sft_row(CHATS[name], row(), 2000)
    return made["input_ids"], made["labels"]


@pytest.mark.parametrize("name", CHATS)
def test_each_way_of_masking_wrongly_is_found(name: str) -> None:
    ids, labels = sft(name)
    start = labels.index(next(label for label in labels if label != -100))
    another = tokens.sft_row(CHATS[name], {**row(), "completion": turn("Get over it.")}, 2000)[1]
    wrong = {
        "belongs to the prompt and is learned": {"labels": [*labels[: start - 1], *ids[start - 1 :]]},
        "belongs to the reply and is not learned": {"labels": [*labels[:start], -100, *labels[start + 1 :]]},
        "does not end with its only end": {"input_ids": ids[:-1], "labels": labels[:-1]},
        "not those that the model will be asked with": {"input_ids": [*ids[1:start], ids[0], *ids[start:]]},
        "what is learned is not the reply": {"input_ids": another["input_ids"], "labels": another["labels"]},
    }
    pad = CHATS[name].pad_token_id
    if pad != CHATS[name].unk_token_id:  # else it may as well be a word that the tokenizer does not know
        wrong["is padding and is learned"] = {"input_ids": [*ids, pad], "labels": [*labels, pad]}
    for problem, columns in wrong.items():
        found = record(name, "sft", **columns)["replies"][0]["problems"]
        assert any(problem in line for line in found), problem
        assert not any(word in line for line in found for word in ("worried", "exams", "sounds"))


def test_a_batch_that_learns_padding_or_never_stops_is_found() -> None:
    tokenizer = CHATS["mistral-v0.2"]
    rows = [tokens.sft_row(tokenizer, {**row(), "completion": turn(text)}, 2000)[1] for text in (GOOD, "Yes.")]
    batch = DataCollatorForLanguageModeling(pad_token_id=tokenizer.eos_token_id)(rows)
    end = tokenizer.eos_token_id
    assert not wrongly_masked(batch, end), "padding with the end of sequence is no problem while it is masked"
    padded = {**batch, "labels": torch.where(batch["labels"] == -100, batch["input_ids"], batch["labels"])}
    assert wrongly_masked(padded, end) == [1]
    endless = {**batch, "labels": torch.where(batch["input_ids"] == end, -100, batch["labels"])}
    assert wrongly_masked(endless, end) == [0, 1]
    flat = DataCollatorForLanguageModeling(pad_token_id=tokenizer.unk_token_id, padding_free=True)(rows)
    assert not wrongly_masked(flat, end)
    flat["labels"][0, -1] = -100
    assert wrongly_masked(flat, end) == [1]


def test_the_page_shows_learned_tokens_apart_and_escapes_what_people_wrote(tmp_path: Path) -> None:
    draft = Draft(tmp_path)
    draft.count("train", read=3, kept=2, dropped={"too_long": 1})
    draft.figures |= {"train_cut": 0, "lengths": {"train": tokens.Lengths({"prompt": [0, 2]}).figures(10)}}
    settings = {"max_length": 10, "too_long": "drop", "template": "t", "tokenizer": None, "seed": 1}
    masking.report(draft, "tokens/gm/sft", [record("llama-3", "sft")], settings)
    page = (tmp_path / masking.FILE).read_text()
    assert "<mark>That</mark>" in page and "<mark>&lt;|eot_id|&gt;</mark>" in page
    assert "&lt;" in page and "<b>" not in page
    assert "🙂" not in page and "That" not in json.dumps(draft.figures)
    assert draft.figures["masking"]["wrong"] == 0 < draft.figures["masking"]["trained"]


def test_a_wrong_mask_stops_the_stage_with_ids_and_no_text(tmp_path: Path) -> None:
    ids, _ = sft()
    bad = record("mistral-v0.2", "sft", labels=ids)
    with pytest.raises(DataError, match=r"1 of 1 .* completion of post_id p1, comment_id c1, .*: token 0 of") as raised:
        masking.report(Draft(tmp_path), "tokens/gm/sft", [bad], {})
    assert "worried" not in str(raised.value)
    assert not (tmp_path / masking.FILE).exists()


def test_the_same_few_rows_are_shown_however_rows_are_spread_over_files() -> None:
    def shown(files: list[list[int]]) -> list[int]:
        found = []
        for draws in files:
            few = masking.Few(0)
            for draw in draws:
                few.offer(draw, {}, None, {})  # type: ignore[arg-type]
            found += [{"draw": kept[0]} for kept in few.rows()]
        return [entry["draw"] for entry in masking.lowest(found)]

    assert shown([[9, 3, 7, 7], [1, 8, 2]]) == shown([[2, 7], [8, 9, 1, 7, 3]]) == [1, 2, 3, 7]


def test_emoji_and_letters_beyond_ascii_are_shown_whole() -> None:
    _, made = tokens.dpo_row(CHATS["chatml"], row(), 2000)
    ids = made["prompt_ids"] + made["rejected_ids"]
    shown = masking.pieces(CHATS["chatml"], ids, [False] * len(ids))
    assert len(shown) == len(ids)
    assert "".join(text for text, _ in shown) == CHATS["chatml"].decode(ids)
