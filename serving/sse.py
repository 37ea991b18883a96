"""Server-sent events: what a streamed answer looks like on the wire.

The first event is made before the status is sent, so that all that can be refused is refused
with a status. What fails later can only be told in the stream, as an event ``error`` with the
body that the error would have had; a stream without its last event was cut off.
"""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any, TypeVar

import orjson
from starlette.requests import Request
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from serving.merging import merged
from serving.wire import ApiError

T = TypeVar("T")
HEADERS = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
"""Nothing on the way may keep or gather what was written."""
DONE = b"data: [DONE]\n\n"
"""How OpenAI's streams end."""
AHEAD = 16
"""Events made before a slow client has taken them."""


def event(data: Any, name: str | None = None) -> bytes:
    """One event; ``data`` as JSON, which holds no line break."""
    head = f"event: {name}\n".encode() if name else b""
    return head + b"data: " + orjson.dumps(data) + b"\n\n"


def event_schema(*names: str) -> dict[str, Any]:
    """JSON schema of one event of a stream, for the OpenAPI document."""
    properties: dict[str, Any] = {"data": {"type": "string", "description": "JSON, or [DONE]."}}
    if names:
        properties["event"] = {"type": "string", "enum": list(names)}
    return {"type": "object", "properties": properties, "required": list(properties)}


class EventStream(StreamingResponse):
    """The first event and those of a feed as a response; a client that goes away closes the feed."""

    def __init__(
        self, first: bytes, feed: AsyncGenerator[tuple[int, bytes], None], failed: Callable[[ApiError], bytes]
    ):
        super().__init__(self._events(first), media_type="text/event-stream", headers=HEADERS)
        self.feed, self.failed = feed, failed

    async def _events(self, first: bytes) -> AsyncGenerator[bytes, None]:
        yield first
        try:
            async for _, one in self.feed:
                yield one
        except ApiError as error:
            yield self.failed(error)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the events."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            await self.feed.aclose()


async def streamed(
    request: Request, events: AsyncGenerator[bytes, None], failed: Callable[[ApiError], bytes]
) -> EventStream:
    """A response whose first event is there already; raises the ApiError that ``events`` begins with.

    ``failed`` makes the last event of a stream that fails later. ``events`` runs in a task of its own:
    the route waits for the first and the response for the others, which are two tasks, and a time
    limit within the generator would count for the wrong one.
    """
    feed = merged([events], AHEAD)
    try:
        _, first = await unless_gone(request, anext(feed))
    except BaseException:
        await feed.aclose()
        raise

    def noted(error: ApiError) -> bytes:
        request.state.code = error.body["error"]["code"]  # of the status nobody could tell
        return failed(error)

    return EventStream(first, feed, noted)


async def unless_gone(request: Request, work: Awaitable[T]) -> T:
    """The result of ``work``, which is cancelled where the client goes away before it is done.

    A server cancels no route whose client has left: the route has to look.
    """
    working, watching = asyncio.ensure_future(work), asyncio.ensure_future(gone(request))
    try:
        await asyncio.wait({working, watching}, return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            return working.result()
        raise ApiError(499, "the client went away", code="client_gone")
    finally:
        working.cancel()
        watching.cancel()
        await asyncio.gather(working, watching, return_exceptions=True)


async def gone(request: Request) -> None:
    """Returns once the client has closed the connection; the body must have been read."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
