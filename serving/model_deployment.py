"""The deployments ``gm`` and ``im``, or ``models`` where both share a base: engines in a replica.

A replica is ready once its models are loaded and have written two tokens. It is replaced where an
engine has ended, and where requests are in progress that get no token for ``stall_s`` seconds: a
loop that hangs is alive by every other sign.
"""

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from pathlib import Path
from typing import Any
from uuid import uuid4

from ray import serve

from configs.errors import EngineError
from pipelines.generation.engine import Engine, Messages, Piece, Sampling
from serving import engines, sources
from serving.arguments import ModelArgs
from serving.watching.recent import Seen

HEALTH_PERIOD_S = 2.0
"""Seconds between Serve's health checks; after three failures in a row a replica is replaced."""
STREAM_GAP_S = 0.03
"""Shortest time between two pieces of a stream: each costs Ray a message, and readers see no difference."""

LOG = logging.getLogger("ray.serve")


class Progress:
    """When a replica last wrote something, and for how many."""

    def __init__(self, stall_s: float):
        self.stall_s, self.requests, self.last = stall_s, 0, time.monotonic()

    def began(self) -> None:
        """One more request; waiting counts from here where none was in progress."""
        if self.requests == 0:
            self.last = time.monotonic()
        self.requests += 1

    def wrote(self) -> None:
        """Some request got a token."""
        self.last = time.monotonic()

    def ended(self) -> None:
        """One request fewer."""
        self.requests -= 1

    def stalled(self) -> bool:
        """Whether those in progress wait for longer than they should."""
        return self.requests > 0 and time.monotonic() - self.last > self.stall_s


@serve.deployment(health_check_period_s=HEALTH_PERIOD_S, logging_config={"enable_access_log": False})
class ModelDeployment:
    """Writes answers to prompts with one model, or with each of two; ready once its constructor has returned."""

    # Serve awaits a constructor that is a coroutine, which mypy does not know.
    async def __init__(self, args: ModelArgs) -> None:  # type: ignore[misc]
        from serving.watching import traces

        started = time.monotonic()
        traces.setup(args.traces, args.deployment)
        self.progress = Progress(args.stall_s)
        folders = await asyncio.to_thread(self._fetch, args)
        fetched = time.monotonic()
        base = folders.pop("base", None)
        self.engines: Mapping[str, Engine] = engines.made(folders, base, args.engine, gpu=args.replicas.gpus > 0)
        for engine in self.engines.values():
            await engine.start()
        self._tell(started, fetched)

    @staticmethod
    def _fetch(args: ModelArgs) -> dict[str, str]:
        cache, keep = Path(args.model_cache), args.cached_models
        wanted: dict[str, str] = dict(args.models.items())
        if args.base is not None:
            wanted["base"] = args.base
        adapters = args.models if args.base is not None else ()
        return {name: sources.local(at, cache, keep, adapter=name in adapters) for name, at in wanted.items()}

    def _tell(self, started: float, fetched: float) -> None:
        from serving.watching.metrics import metrics

        ready = time.monotonic()
        words = (" and ".join(self.engines), ready - started, fetched - started, ready - fetched)
        LOG.info("replica of %s ready in %.1f s: fetched in %.1f s, loaded in %.1f s", *words)
        for name in self.engines:
            metrics().replica_started(name, ready - started)

    async def write(
        self,
        model: str,
        request_id: str,
        prompt: Messages,
        sampling: Sampling,
        carrier: Mapping[str, str] | None = None,
    ) -> Piece:
        """The whole answer; cancelled with the call. Raises PromptTooLong, EngineError."""
        whole: Piece | None = None
        async with aclosing(self._pieces(model, request_id, prompt, sampling, carrier)) as pieces:
            async for piece in pieces:
                whole = piece if whole is None else joined(whole, piece)
        if whole is None or whole.finish_reason is None:
            raise EngineError("the engine ended a request without saying why")
        return whole

    async def stream(
        self,
        model: str,
        request_id: str,
        prompt: Messages,
        sampling: Sampling,
        carrier: Mapping[str, str] | None = None,
    ) -> AsyncGenerator[Piece, None]:
        """The answer piece by piece, those that come at once as one; closing it cancels. Raises as ``write``."""
        held: Piece | None = None
        sent = 0.0
        async with aclosing(self._pieces(model, request_id, prompt, sampling, carrier)) as pieces:
            async for piece in pieces:
                held = piece if held is None else joined(held, piece)
                if held.finish_reason is not None or time.monotonic() - sent >= STREAM_GAP_S:
                    yield held
                    held, sent = None, time.monotonic()

    async def _pieces(
        self, model: str, request_id: str, prompt: Messages, sampling: Sampling, carrier: Mapping[str, str] | None
    ) -> AsyncGenerator[Piece, None]:
        from serving.watching.engine import WatchedEngine

        watched = WatchedEngine(self.engines[model], model, carrier)
        # A client may use an id twice, an engine may not.
        ticket = f"{request_id}/{uuid4().hex[:8]}"
        self.progress.began()
        try:
            async with aclosing(watched.generate(ticket, prompt, sampling)) as pieces:
                async for piece in pieces:
                    self.progress.wrote()
                    yield piece
        finally:
            self.progress.ended()

    async def ready(self, model: str) -> dict[str, Any]:
        """Answers where a replica is there and can generate with this model."""
        if not self.engines[model].healthy():
            raise EngineError("the engine has ended")
        return {"context_tokens": self.engines[model].limits().context_tokens}

    async def seen(self, seconds: float) -> Seen:
        """What this replica counted in the last ``seconds``; ``llumi status`` asks for it."""
        from serving.watching.metrics import metrics

        return metrics().seen(seconds)

    async def check_health(self) -> None:
        """Raises EngineError where Serve should replace this replica."""
        if not all(engine.healthy() for engine in self.engines.values()):
            raise EngineError("an engine has ended; the replica must be replaced")
        if self.progress.stalled():
            raise EngineError("requests in progress get no tokens; the replica must be replaced")


def joined(first: Piece, second: Piece) -> Piece:
    """Two pieces that follow each other as one."""
    logprobs = None if second.logprobs is None else (*(first.logprobs or ()), *second.logprobs)
    return Piece(first.text + second.text, second.usage, second.finish_reason, logprobs)
