"""Prompts that are too long, cut so that nothing else is: where ``training.too_long`` is ``cut_prompt``.

The rule: the text of the post that is answered loses tokens from its middle, where people tell
the course of things; its beginning, with the title, and its end, where they ask, stay, with
``[...]`` between. Instructions, examples, draft, special tokens and the whole completion stay
as they are. The shortened text goes through the chat template and the tokenizer again, so that
a row is one that the service could be asked with, and not ids glued together. Of a post at
least ``LEAST`` tokens stay; a row that is too long even so is refused, as its completion would
have to be cut.

Both replies of a pair stand under one prompt, cut for the longer of the two.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from configs.errors import ConfigError
from pipelines.training.encode import Messages, RowTooLong, encode

MARK = " [...] "
LEAST = 32
"""Fewest tokens of a post that a reply can still be said to answer."""
BLOCKS = re.compile(r"<example>.*?</example>|<post>\s*(.*?)\s*</post>", re.DOTALL)
"""A post within an example is no post to cut; ``prompts.delimited`` keeps people from writing these marks."""


class CompletionTooLong(RowTooLong):
    """Prompt and completion do not fit even with the post cut as far as it may be."""


@dataclass(frozen=True)
class Encoded:
    """Token ids of a prompt and of what follows it."""

    prompt: Messages
    """The prompt as it was encoded."""
    prompt_ids: list[int]
    completions: list[list[int]]
    cut: bool = False
    """Whether the post lost its middle."""

    @property
    def length(self) -> int:
        """Tokens of the prompt with the longest completion."""
        return len(self.prompt_ids) + max(map(len, self.completions))


def encode_fitting(
    tokenizer: Any, prompt: Messages, completions: Sequence[Messages], max_length: int, *, cut: bool = False
) -> Encoded:
    """The prompt, each completion after it, within ``max_length`` tokens; with ``cut``, at the cost of the post.

    Raises EmptyCompletion, RowTooLong where nothing may be cut, and CompletionTooLong where cutting
    does not help.
    """
    whole = together(tokenizer, prompt, completions)
    if whole.length <= max_length:
        return whole
    if not cut:
        raise RowTooLong(f"the row has {whole.length} tokens, training.max_length is {max_length}")
    post = Post.of(tokenizer, prompt)
    keep = len(post.spans) - (whole.length - max_length) if post else 0
    while post and keep >= LEAST:
        shorter = together(tokenizer, post.cut_to(keep), completions, cut=True)
        if shorter.length <= max_length:
            return shorter
        keep -= shorter.length - max_length  # the mark has tokens of its own, and a seam may be spelled otherwise
    raise CompletionTooLong(f"the row has {whole.length} tokens, training.max_length is {max_length}")


def together(tokenizer: Any, prompt: Messages, completions: Sequence[Messages], cut: bool = False) -> Encoded:
    """A prompt and its completions as ids, however long."""
    pairs = [encode(tokenizer, prompt, completion) for completion in completions]
    return Encoded(prompt, pairs[0][0], [ids for _, ids in pairs], cut)


@dataclass(frozen=True)
class Post:
    """The text of the post that a prompt asks to answer, and where it stands."""

    prompt: Messages
    turn: int
    start: int
    end: int
    spans: list[tuple[int, int]]
    """Characters of each of its tokens."""

    @classmethod
    def of(cls, tokenizer: Any, prompt: Messages) -> "Post | None":
        """The last post of the last turn that has one, None where the prompt template marks none."""
        if not tokenizer.is_fast:
            raise ConfigError("training.too_long: cut_prompt needs a fast tokenizer, this one has none; set drop")
        for turn in reversed(range(len(prompt))):
            found = [match for match in BLOCKS.finditer(prompt[turn]["content"]) if match[1] is not None]
            if found:
                start, end = found[-1].span(1)
                text = prompt[turn]["content"][start:end]
                spans = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
                return cls(prompt, turn, start, end, spans)
        return None

    def cut_to(self, keep: int) -> list[dict[str, str]]:
        """The prompt with the first and the last tokens of the post, ``keep`` together."""
        content = self.prompt[self.turn]["content"]
        text = content[self.start : self.end]
        head = text[: self.spans[(keep + 1) // 2 - 1][1]]
        tail = text[self.spans[len(self.spans) - keep // 2][0] :] if keep > 1 else ""
        shortened = content[: self.start] + head.rstrip() + MARK + tail.lstrip() + content[self.end :]
        turns = [dict(turn) for turn in self.prompt]
        turns[self.turn]["content"] = shortened
        return turns
