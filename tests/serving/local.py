"""A model in this process, as the application sees one behind Serve: tests of HTTP need no Ray.

    services = Services.of(LocalModel("gm", engine), LocalModel("im", engine), serving=settings.serving)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(api.create(services)), base_url="http://llumi") ...

The engine is a real one: the scripted engine of the tests or the transformers engine with a tiny model.
"""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any
from uuid import uuid4

from configs.errors import EngineError
from pipelines.generation.engine import Engine, Messages, Piece, PromptTooLong, Sampling, complete
from serving.watching.engine import WatchedEngine
from serving.watching.traces import carrier, span
from serving.wire import ContextExceeded, unanswered, unavailable


class LocalModel:
    """A ``ModelLike`` over an engine that was started; answers and errors are those of ``serving.models.Model``."""

    def __init__(self, name: str, engine: Engine, *, timeout_s: float = 30.0, info: dict[str, Any] | None = None):
        self.name, self.engine, self.timeout_s = name, engine, timeout_s
        self._info = {"path": "/models/local", "manifest": None, "version": "0", **(info or {})}

    async def write(self, request_id: str, prompt: Messages, sampling: Sampling) -> Piece:
        """The whole answer; raises ApiError."""
        try:
            with span(self.name):
                async with asyncio.timeout(self.timeout_s):
                    return await complete(self._watched(), self._ticket(request_id), prompt, sampling)
        except (TimeoutError, EngineError) as error:
            raise self._told(error) from None

    async def stream(self, request_id: str, prompt: Messages, sampling: Sampling) -> AsyncGenerator[Piece, None]:
        """The answer piece by piece; raises ApiError. Closing it cancels."""
        deadline = asyncio.get_running_loop().time() + self.timeout_s
        try:
            async with aclosing(self._watched().generate(self._ticket(request_id), prompt, sampling)) as pieces:
                while True:
                    async with asyncio.timeout_at(deadline):
                        piece = await anext(pieces, None)
                    if piece is None:
                        return
                    yield piece
        except (TimeoutError, EngineError) as error:
            raise self._told(error) from None

    async def health(self) -> str:
        """``ok`` or ``unavailable``."""
        return "ok" if self.engine.healthy() else "unavailable"

    async def info(self, request_id: str | None = None) -> dict[str, Any]:
        """Lineage, as it was given."""
        return dict(self._info)

    def _watched(self) -> WatchedEngine:
        """As in a replica."""
        return WatchedEngine(self.engine, self.name, carrier())

    @staticmethod
    def _ticket(request_id: str) -> str:
        return f"{request_id}/{uuid4().hex[:8]}"

    def _told(self, error: Exception) -> Exception:
        if isinstance(error, TimeoutError):
            return unanswered(f"{self.name} gave no answer within {self.timeout_s:g} s")
        if isinstance(error, PromptTooLong):
            return ContextExceeded(self.name, *error.numbers)
        return unavailable(f"{self.name} failed on this request", "unavailable")
