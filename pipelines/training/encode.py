"""From messages to token ids: the one place that applies the chat template and decides the mask.

Everything that reads a row goes through here - training, scoring, serving - so that a model
is asked exactly what it was taught. Mistral's template marks no generated spans, hence the
mask is drawn at the boundary between prompt and completion: prompt tokens are never learned,
completion tokens always are, the end-of-sequence token among them, since a model that never
saw it learned never stops.

Nothing is cut here: half a reply teaches to stop in mid-sentence, half a post hides what the
reply answers. What is too long is refused by name, and dropped by the caller or given to
``cutting.py``.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from configs.errors import ConfigError, DataError
from configs.prompts import delimited

Messages = Sequence[Mapping[str, str]]


class RowTooLong(DataError):
    """Prompt and completion have more tokens together than the limit."""


class EmptyCompletion(DataError):
    """The completion has no text."""


def encode(
    tokenizer: Any, prompt: Messages, completion: Messages, max_length: int | None = None
) -> tuple[list[int], list[int]]:
    """Token ids of the prompt, and of the completion with its end-of-sequence token as the last.

    Raises EmptyCompletion for a completion without text, and RowTooLong where both together
    exceed ``max_length`` tokens (None: no limit).
    """
    answer = [{"role": turn["role"], "content": delimited(turn["content"])} for turn in completion]
    if not any(turn["content"] for turn in answer):
        raise EmptyCompletion("the completion has no text")
    opening = render(tokenizer, prompt, add_generation_prompt=True)
    whole = render(tokenizer, [*prompt, *answer])
    if not whole.startswith(opening):
        raise ConfigError("the chat template renders a prompt differently once its completion follows; use another")
    prompt_ids = ids_of(tokenizer, opening)
    completion_ids = after(tokenizer, whole, len(opening), prompt_ids)
    length = len(prompt_ids) + len(completion_ids)
    if max_length is not None and length > max_length:
        raise RowTooLong(f"the row has {length} tokens, training.max_length is {max_length}")
    return prompt_ids, completion_ids


def encode_prompt(tokenizer: Any, prompt: Messages) -> list[int]:
    """Token ids that a model is given to generate from: those that ``encode`` masks."""
    return ids_of(tokenizer, render(tokenizer, prompt, add_generation_prompt=True))


def after(tokenizer: Any, whole: str, opening_chars: int, prompt_ids: list[int]) -> list[int]:
    """Ids of the text that follows the prompt, ended by exactly one end-of-sequence token.

    Taken from the ids of the whole, because a tokenizer may spell a word differently at the
    start of a text; on its own only where a token of the whole would span the boundary.
    """
    ids = ids_of(tokenizer, whole)
    rest = ids[len(prompt_ids) :] if ids[: len(prompt_ids)] == prompt_ids else ids_of(tokenizer, whole[opening_chars:])
    end = tokenizer.eos_token_id
    if end in rest:
        rest = rest[: rest.index(end)]
    return [*rest, end]


def render(tokenizer: Any, messages: Messages, add_generation_prompt: bool = False) -> str:
    """The messages as the text that the model's chat template makes of them."""
    if not tokenizer.chat_template:
        raise ConfigError("the base model's tokenizer has no chat template; set model.base to an instruction model")
    turns = [dict(turn) for turn in messages]
    return str(tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=add_generation_prompt))


def ids_of(tokenizer: Any, text: str) -> list[int]:
    """Token ids of a rendered text; the template has already written its own special tokens."""
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])
