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
"""Cuts after which a post is given up."""
MARGIN = 1.05
"""Times the estimate that is taken off: characters of one text differ in tokens."""


class Fitting:
    """A model that takes long posts, for one request."""

    def __init__(self, model: ModelLike):
        self.model, self.name = model, model.name
        self.cut = False
        """Whether the post lost its middle."""

    async def write(self, request_id: str, prompt: Messages, sampling: Sampling) -> Piece:
        """See ``ModelLike.write``."""
        cutting = Cutting(prompt)
        while True:
            try:
                return await self.model.write(request_id, cutting.prompt, sampling)
            except ContextExceeded as error:
                cutting.shorten(error)
                self.cut = True

    async def stream(self, request_id: str, prompt: Messages, sampling: Sampling) -> AsyncGenerator[Piece, None]:
        """See ``ModelLike.stream``."""
        cutting = Cutting(prompt)
        while True:
            try:
                async with aclosing(self.model.stream(request_id, cutting.prompt, sampling)) as pieces:
                    async for piece in pieces:
                        yield piece
                return
            except ContextExceeded as error:  # raised before the first piece or never
                cutting.shorten(error)
                self.cut = True

    async def health(self) -> str:
        """See ``ModelLike.health``."""
        return await self.model.health()

    async def info(self, request_id: str | None = None) -> dict[str, Any]:
        """See ``ModelLike.info``."""
        return await self.model.info(request_id)


class Cutting:
    """One prompt whose post is cut until the model takes it."""

    def __init__(self, prompt: Messages):
        self.whole = self.prompt = prompt
        blocks = [match for match in BLOCKS.finditer(prompt[-1]["content"]) if match[1] is not None]
        self.start, self.end = blocks[-1].span(1) if blocks else (0, 0)
        self.kept = self.end - self.start
        """Characters of the post that are left."""
        self.measured: list[tuple[int, int]] = []
        """Characters of the post and tokens of the prompt, of each prompt that was too long."""

    def shorten(self, error: ContextExceeded) -> None:
        """Cut the post by as much as the prompt was too long; raises ``error`` where too little of it would stay.

        The first cut takes the whole prompt to be as dense as its average. From then on the tokens
        of a character of this post are known from the last two measurements (secant method).
        """
        self.measured.append((self.kept, error.prompt_tokens))
        room = error.prompt_tokens - error.excess
        if len(self.measured) == 1:
            tokens_a_char = error.prompt_tokens / max(self.kept, 1)
            keep = math.floor(self.kept * room / error.prompt_tokens)
        else:
            (chars, tokens), (fewer_chars, fewer_tokens) = self.measured[-2:]
            tokens_a_char = max(tokens - fewer_tokens, 1) / max(chars - fewer_chars, 1)
            keep = math.floor(self.kept - MARGIN * error.excess / tokens_a_char)
        keep = min(keep, self.kept - 1)
        if keep * tokens_a_char < LEAST or len(self.measured) > ATTEMPTS:
            raise error
        self.kept = keep
        content = self.whole[-1]["content"]
        text = content[self.start : self.end]
        head, tail = whole_words(text[: keep - keep // 2]), words_whole(text[len(text) - keep // 2 :])
        shortened = content[: self.start] + head.rstrip() + MARK + tail.lstrip() + content[self.end :]
        self.prompt = [*self.whole[:-1], {**self.whole[-1], "content": shortened}]


def whole_words(text: str) -> str:
    """Without a word that was cut off at the end, unless it is the only one."""
    place = max(text.rfind(" "), text.rfind("\n"))
    return text[:place] if place > 0 else text


def words_whole(text: str) -> str:
    """Without a word that was cut off at the beginning, unless it is the only one."""
    places = [place for place in (text.find(" "), text.find("\n")) if place >= 0]
    return text[min(places) :] if places and min(places) < len(text) - 1 else text
