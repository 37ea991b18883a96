"""An engine that is watched: time to the first token, tokens, cancellations, and a span of each answer.

A replica puts it around its engine for one request, so that the span goes on below the
ingress' own: ``complete(WatchedEngine(engine, "gm", carrier), ...)``.
"""

import time
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field

from opentelemetry.trace import Span, SpanKind

from pipelines.generation.engine import Engine, Limits, Messages, Piece, Sampling
from serving.watching.metrics import Metrics, metrics
from serving.watching.traces import describe, span


@dataclass(frozen=True)
class WatchedEngine:
    """An ``Engine`` over another one, for one request."""

    engine: Engine
    model: str
    """``gm`` or ``im``."""
    carrier: Mapping[str, str] | None = None
    """Where the trace comes from; see ``traces.carrier``."""
    metrics: Metrics = field(default_factory=metrics)

    async def generate(self, request_id: str, prompt: Messages, sampling: Sampling) -> AsyncGenerator[Piece, None]:
        """See ``Engine.generate``."""
        started, last, failed = time.perf_counter(), None, False
        with span(
            "engine",
            parent=self.carrier,
            kind=SpanKind.SERVER,
            current=False,
            model=self.model,
            max_new_tokens=sampling.max_new_tokens,
        ) as told:
            self.metrics.answering(self.model, +1)
            try:
                async with aclosing(self.engine.generate(request_id, prompt, sampling)) as pieces:
                    async for piece in pieces:
                        if last is None:
                            self.metrics.first_token(self.model, time.perf_counter() - started)
                            told.add_event("first token")
                        last = piece
                        yield piece
            except Exception:
                failed = True
                raise
            finally:
                self._note(told, last, time.perf_counter() - started, failed)

    def _note(self, told: Span, last: Piece | None, seconds: float, failed: bool) -> None:
        self.metrics.answering(self.model, -1)
        finish = last.finish_reason if last else None
        if last is not None:
            self.metrics.tokens(self.model, last.usage.prompt_tokens, last.usage.new_tokens, seconds)
            describe(told, prompt_tokens=last.usage.prompt_tokens, new_tokens=last.usage.new_tokens, finish=finish)
        if finish == "cancelled" or (finish is None and not failed):
            self.metrics.cancelled(self.model)

    async def start(self) -> None:
        """See ``Engine.start``."""
        await self.engine.start()

    def cancel(self, request_id: str) -> None:
        """See ``Engine.cancel``."""
        self.engine.cancel(request_id)

    def healthy(self) -> bool:
        """See ``Engine.healthy``."""
        return self.engine.healthy()

    def limits(self) -> Limits:
        """See ``Engine.limits``."""
        return self.engine.limits()

    def in_progress(self) -> int:
        """See ``Engine.in_progress``."""
        return self.engine.in_progress()

    async def stop(self) -> None:
        """See ``Engine.stop``."""
        await self.engine.stop()
