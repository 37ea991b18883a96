"""Posts that do not fit into the context, where ``serving.api.long_posts`` is ``cut``.

The rule is that of training (``pipelines.training.cutting``): the post loses its middle, where
people tell the course of things; its beginning, with the title, and its end, where they ask,
stay, with ``[...]`` between. Instructions, similar posts and the helper's draft stay whole, and
what cannot be made to fit by that is refused. Triage and guard look at the whole post.

The tokenizer is the model's, so it is the model that says by how much a prompt is too long;
the cut is estimated from that and asked again. Refusing takes it no more than tokenising.
"""

import math
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from pipelines.generation.engine import Messages, Piece, Sampling
from pipelines.training.cutting import BLOCKS, LEAST, MARK
from serving.models import ModelLike
from serving.wire import ContextExceeded

ATTEMPTS = 6
"""Cuts after which a post is given up; each takes off what the last one left too much, and a bit more."""
MARGIN = 1.15
"""Taken off beyond the estimate: characters of one text differ in tokens."""


class Fitting:
    """A model that takes long posts, for one request."""

    def __init__(self, model: ModelLike):
        self.model, self.name = model, model.name
        self.cut = False
        """Whether the post lost its middle."""

    async def write(self, request_id: str, prompt: Messages, sampling: Sampling) -> Piece:
        """See ``ModelLike.write``."""
        fitting = prompt
        for attempt in range(1, ATTEMPTS + 1):
            try:
                return await self.model.write(request_id, fitting, sampling)
            except ContextExceeded as error:
                fitting = self._shorter(prompt, fitting, error, last=attempt == ATTEMPTS)
        raise AssertionError

    async def stream(self, request_id: str, prompt: Messages, sampling: Sampling) -> AsyncGenerator[Piece, None]:
        """See ``ModelLike.stream``."""
        fitting = prompt
        for attempt in range(1, ATTEMPTS + 1):
            try:
                async with aclosing(self.model.stream(request_id, fitting, sampling)) as pieces:
                    async for piece in pieces:
                        yield piece
                return
            except ContextExceeded as error:  # raised before the first piece or never
                fitting = self._shorter(prompt, fitting, error, last=attempt == ATTEMPTS)

    async def health(self) -> str:
        """See ``ModelLike.health``."""
        return await self.model.health()

    async def info(self, request_id: str | None = None) -> dict[str, Any]:
        """See ``ModelLike.info``."""
        return await self.model.info(request_id)

    def _shorter(self, whole: Messages, tried: Messages, error: ContextExceeded, *, last: bool) -> Messages:
        """``whole`` with less of its post than ``tried`` has; raises ``error`` where that is no way out."""
        shorter = None if last else cut(whole, tried, error)
        if shorter is None:
            raise error
        self.cut = True
        return shorter


def cut(whole: Messages, tried: Messages, error: ContextExceeded) -> list[dict[str, str]] | None:
    """``whole`` with its post cut by as much as ``tried`` was too long; None where too little of it would stay."""
    content, before = whole[-1]["content"], tried[-1]["content"]
    blocks = [match for match in BLOCKS.finditer(content) if match[1] is not None]
    if not blocks:
        return None
    start, end = blocks[-1].span(1)
    chars_a_token = max(len(before) / max(error.prompt_tokens, 1), 0.25)
    kept = end - start - (len(content) - len(before))
    keep = kept - math.ceil(error.excess * chars_a_token * MARGIN) - len(MARK)
    if keep < LEAST * chars_a_token:
        return None
    text = content[start:end]
    head, tail = text[: keep - keep // 2], text[len(text) - keep // 2 :]
    shortened = content[:start] + whole_words(head).rstrip() + MARK + words_whole(tail).lstrip() + content[end:]
    return [*(dict(turn) for turn in whole[:-1]), {**whole[-1], "content": shortened}]


def whole_words(text: str) -> str:
    """Without a word that was cut off at the end, unless it is the only one."""
    place = max(text.rfind(" "), text.rfind("\n"))
    return text[:place] if place > 0 else text


def words_whole(text: str) -> str:
    """Without a word that was cut off at the beginning, unless it is the only one."""
    places = [place for place in (text.find(" "), text.find("\n")) if place >= 0]
    return text[min(places) :] if places and min(places) < len(text) - 1 else text
