"""Each caller's limits: requests a minute and requests at once, answered with 429 and Retry-After."""

from starlette.types import ASGIApp, Receive, Scope, Send

from serving.access import errors
from serving.access.caller import Caller
from serving.access.counters import Counters
from serving.watching.metrics import metrics


class Limits:
    """Counts requests by caller, before their bodies are read; what is open is not counted."""

    def __init__(self, app: ASGIApp, counters: Counters):
        self.app, self.counters = app, counters

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or raise ApiError with 429. A stream is in progress until its last byte."""
        caller: Caller | None = scope["state"]["caller"] if scope["type"] == "http" else None
        if caller is None or (caller.requests_per_minute is None and caller.concurrent is None):
            await self.app(scope, receive, send)
            return
        await self.enter(caller)
        try:
            await self.app(scope, receive, send)
        finally:
            self.counters.leave(caller.id)

    async def enter(self, caller: Caller) -> None:
        """Count the request; raises ApiError where it is over a limit."""
        rate, concurrent = caller.requests_per_minute, caller.concurrent
        refused = await self.counters.enter(caller.id, rate, concurrent)
        if refused is None:
            return
        metrics().limited(refused.kind)
        if refused.kind == "rate" and rate is not None:
            raise errors.too_often(rate, refused.retry_after_s)
        raise errors.too_many(concurrent or 0, refused.retry_after_s)
