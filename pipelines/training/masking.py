"""What is really trained on: a few rows of each stage, decoded again and checked token by token.

A wrong mask makes no error and no odd loss; the model just learns to write prompts, or never to
stop. So a few training rows, drawn by the seed, are taken as the trainers will get them, and it
is checked against the conversation they were made from that every prompt token is masked, that
the reply's tokens and one end-of-sequence token at its end are learned, and that no padding is.
``masking.html`` beside the tokens shows these rows, with what is learned highlighted. It holds
people's words and lies where the rows lie; manifests, logs and errors get numbers and ids only.
"""

import heapq
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from configs.errors import DataError
from configs.prompts import delimited
from pipelines.manifest import Draft
from pipelines.training.cutting import BLOCKS, Encoded
from pipelines.training.encode import ids_of, render

FILE = "masking.html"
TEMPLATE = "masking.html.j2"
ROWS = 4
"""Rows that are examined of each stage."""
IGNORED = -100
IDS = ("post_id", "comment_id", "chosen_id", "rejected_id")
REPLIES = {"sft": ("completion",), "dpo": ("chosen", "rejected")}
Record = dict[str, Any]
"""What was found of one row: ``draw``, ``ids``, ``cut``, and of each reply its ``pieces`` and ``problems``."""


class Few:
    """Keeps the ``ROWS`` rows with the lowest draws of all that it is offered."""

    def __init__(self, seed: int):
        self.seed = seed + 1
        """Of draws, which are others than those that choose ``max_rows``."""
        self.offered = 0
        self.heap: list[tuple[int, int, tuple[Any, ...]]] = []

    def offer(self, draw: int, row: Mapping[str, Any], encoded: Encoded, made: Mapping[str, Any]) -> None:
        """Keep the row if its draw is low enough."""
        self.offered += 1
        entry = (-draw, -self.offered, (draw, row, encoded, made))
        if len(self.heap) < ROWS:
            heapq.heappush(self.heap, entry)
        elif entry > self.heap[0]:
            heapq.heapreplace(self.heap, entry)

    def rows(self) -> list[tuple[Any, ...]]:
        """Draw, row, its encoding and what was written of it, lowest draw first."""
        return [entry[-1] for entry in sorted(self.heap, key=lambda entry: entry[-1][0])]


def lowest(records: Iterable[Record]) -> list[Record]:
    """The ``ROWS`` records with the lowest draws."""
    return heapq.nsmallest(ROWS, records, key=lambda record: record["draw"])


def dumped(records: Iterable[Record]) -> str:
    """Records as text, which travels to the driver."""
    return json.dumps(list(records))


def loaded(text: str) -> list[Record]:
    """What ``dumped`` wrote."""
    return json.loads(text)


def examine(
    tokenizer: Any, kind: str, draw: int, row: Mapping[str, Any], encoded: Encoded, made: Mapping[str, Any]
) -> Record:
    """One tokenised row ``made`` (its columns) beside the ``row`` of messages that it was made from."""
    replies = []
    for name, (ids, learned) in zip(REPLIES[kind], sequences(kind, made), strict=True):
        replies.append(
            {
                "name": name,
                "tokens": len(ids),
                "trained": sum(learned),
                "problems": problems(tokenizer, row, encoded, row[name], ids, learned),
                "pieces": pieces(tokenizer, ids, learned),
            }
        )
    names = {name: made[name] for name in IDS if made.get(name) is not None}
    return {"draw": draw, "ids": names, "cut": encoded.cut, "replies": replies}


def sequences(kind: str, made: Mapping[str, Any]) -> Iterator[tuple[list[int], list[bool]]]:
    """The token ids that a row gives the model, and which of them it learns: as TRL's collators read its columns."""
    if kind == "sft":
        yield made["input_ids"], [label != IGNORED for label in made["labels"]]
        return
    for name in REPLIES["dpo"]:
        prompt, reply = made["prompt_ids"], made[f"{name}_ids"]
        yield prompt + reply, [False] * len(prompt) + [True] * len(reply)


def problems(
    tokenizer: Any,
    row: Mapping[str, Any],
    encoded: Encoded,
    reply: list[Mapping[str, str]],
    ids: list[int],
    learned: list[bool],
) -> list[str]:
    """What is wrong with a sequence, in words that repeat nobody's: empty where nothing is."""
    found = []
    opening = ids_of(tokenizer, render(tokenizer, encoded.prompt, add_generation_prompt=True))
    end, pad = tokenizer.eos_token_id, tokenizer.pad_token_id
    for at, (token, learns) in enumerate(zip(ids, learned, strict=True)):
        if at < len(opening) and learns:
            found.append(f"token {at} of {len(ids)} belongs to the prompt and is learned")
        if at >= len(opening) and not learns:
            found.append(f"token {at} of {len(ids)} belongs to the reply and is not learned")
        if learns and token == pad and pad not in (end, tokenizer.unk_token_id):
            found.append(f"token {at} of {len(ids)} is padding and is learned")
    if ids[: len(opening)] != opening:
        found.append("the tokens before the reply are not those that the model will be asked with")
    if without_post(encoded.prompt) != without_post(row["prompt"]):
        found.append("more of the prompt was cut than the post")
    taught = [token for token, learns in zip(ids, learned, strict=True) if learns]
    if taught.count(end) != 1 or taught[-1:] != [end]:
        found.append("what is learned does not end with its only end-of-sequence token")
    said = " ".join(delimited(turn["content"]) for turn in reply)
    before, same, after = plain(tokenizer, taught).partition(plain(tokenizer, ids_of(tokenizer, said)))
    if not same or any(word not in tokenizer.chat_template for word in [*before.split(), *after.split()]):
        found.append("what is learned is not the reply, with or without words of the template")
    return found


def without_post(prompt: Iterable[Mapping[str, str]]) -> list[str]:
    """The turns of a prompt without the text of the post, the only part that may be cut."""

    def emptied(content: str) -> str:
        return BLOCKS.sub(lambda match: match[0] if match[1] is None else "<post></post>", content)

    return [emptied(turn["content"]) for turn in prompt]


def plain(tokenizer: Any, ids: list[int]) -> str:
    """Ids as text without special tokens, any space as one blank: tokenizers differ in that before the first word."""
    return " ".join(str(tokenizer.decode(ids, skip_special_tokens=True)).split())


def pieces(tokenizer: Any, ids: list[int], learned: list[bool]) -> list[tuple[str, bool]]:
    """The text of each token, in order, and whether it is learned; parts of a character stand with its last token."""
    from tokenizers.decoders import DecodeStream

    stream, found = DecodeStream(skip_special_tokens=False), []
    for token, learns in zip(ids, learned, strict=True):
        text = stream.step(tokenizer.backend_tokenizer, token) if tokenizer.is_fast else tokenizer.decode([token])
        found.append((text or "", learns))
    return found


def report(draft: Draft, stage: str, records: list[Record], settings: Mapping[str, Any]) -> None:
    """Write the page and the figures ``masking``; raises DataError naming the first row that is masked wrongly."""
    replies = [reply for record in records for reply in record["replies"]]
    wrong = [(record, reply) for record in records for reply in record["replies"] if reply["problems"]]
    draft.figures["masking"] = {
        "rows": len(records),
        "tokens": sum(reply["tokens"] for reply in replies),
        "trained": sum(reply["trained"] for reply in replies),
        "wrong": len(wrong),
    }
    if wrong:
        record, reply = wrong[0]
        ids = ", ".join(f"{name} {value}" for name, value in record["ids"].items())
        raise DataError(
            f"{stage}: {len(wrong)} of {len(replies)} sequences that were looked at are masked wrongly, the first is "
            f"{reply['name']} of {ids}: {reply['problems'][0]}; the base's chat template does not suit training, take "
            "another base"
        )
    write(draft.path / FILE, stage, records, draft, settings)


def write(path: Path, stage: str, records: list[Record], draft: Draft, settings: Mapping[str, Any]) -> None:
    """The page: one section a row."""
    from pipelines.pages import environment

    page = (
        environment(Path(__file__).parent)
        .get_template(TEMPLATE)
        .render(
            stage=stage,
            records=records,
            counts=draft.rows,
            cut={split: draft.figures[f"{split}_cut"] for split in draft.rows},
            lengths=draft.figures["lengths"],
            masking=draft.figures["masking"],
            settings={name: settings[name] for name in ("max_length", "too_long", "template", "tokenizer", "seed")},
        )
    )
    path.write_text(page, encoding="utf-8")
