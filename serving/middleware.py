"""What surrounds every route: request id, access, limits, size of the body, errors as JSON.

    RequestScope > Access > Limits > BodyLimit > routes

Plain ASGI, because a route or an exception handler comes too late: FastAPI reads and parses the
whole body before it. So who calls, and whether they may, is settled before a byte of it is read.
There is no CORS middleware: a page of another origin cannot read an answer.

What is told of each request, and that no text is among it, is the matter of ``serving.watching``.
"""

import asyncio
import logging
import re
import traceback
from uuid import uuid4

from fastapi import FastAPI
from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from configs.serving import ServingSettings
from serving.access.boards import counters_of
from serving.access.errors import too_slow
from serving.access.gate import Access, authenticator
from serving.access.limits import Limits
from serving.access.scopes import Table
from serving.overload import Overload
from serving.watching.request import Watch
from serving.wire import ApiError, error_body

LOGGER = "ray.serve"
"""Serve's own logger, so that the lines lie in the replica's log file."""
REQUEST_ID = re.compile(r"[\x21-\x7e]{1,128}")
DIGITS = re.compile(r"[0-9]{1,18}")


def surround(api: FastAPI, serving: ServingSettings) -> None:
    """Put everything around the routes of ``api``; what is added last stands outermost."""
    api.add_middleware(BodyLimit, limit=serving.max_body_bytes, seconds=serving.access.body_timeout_s)
    api.add_middleware(Limits, counters=counters_of(serving.access))
    api.add_middleware(Access, table=Table.of(serving), authenticate=authenticator(serving))
    api.add_middleware(Overload, limit=serving.ingress.max_ongoing_requests)
    api.add_middleware(RequestScope)


class RequestScope:
    """Outermost: gives the request its id, answers what nobody caught, writes one log line.

    Serve's proxy adds the id to the response's headers, whichever way the request came in.
    """

    def __init__(self, app: ASGIApp):
        self.app = app
        self.log = logging.getLogger(LOGGER)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on and log how it ended."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        given = Headers(scope=scope).get("x-request-id")
        state = scope.setdefault("state", {})
        state["request_id"] = given or uuid4().hex
        watch = Watch(scope, send)
        try:
            with watch.span():
                await self.answered(given, scope, receive, watch)
        finally:
            self.log.info(watch.ended())

    async def answered(self, given: str | None, scope: Scope, receive: Receive, watch: Watch) -> None:
        """Have the request answered, by an error where nothing else answers."""
        try:
            if given is not None and not REQUEST_ID.fullmatch(given):
                scope["state"]["request_id"] = uuid4().hex
                message = "the x-request-id header must be 1 to 128 printable ASCII characters without spaces"
                raise ApiError(400, message, code="invalid_request_id", param="x-request-id")
            await self.app(scope, receive, watch.send)
        except ApiError as error:
            await answer(error)(scope, receive, watch.send)
        except Exception as error:
            # By type and place only: an exception from below may quote what it choked on.
            where = traceback.extract_tb(error.__traceback__)[-1]
            self.log.error("request failed: %s at %s:%s", type(error).__name__, where.filename, where.lineno)
            scope["state"]["code"] = "internal"  # a stream that was begun is cut off and has no other sign of it
            if watch.status == 0:
                await internal_error()(scope, receive, watch.send)


class BodyLimit:
    """Reads at most ``limit`` bytes for at most ``seconds``; a body that says it is larger is not read at all."""

    def __init__(self, app: ASGIApp, limit: int, seconds: float):
        self.app, self.limit, self.seconds = app, limit, seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Take in the whole body, then let the application read it from memory."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        declared = Headers(scope=scope).get("content-length", "0")
        if not DIGITS.fullmatch(declared) or int(declared) > self.limit:
            raise self.too_large()
        try:
            async with asyncio.timeout(self.seconds):
                body = await self.read(receive)
        except TimeoutError:
            raise too_slow(self.seconds) from None
        if body is None:
            return
        unread = True

        async def replay() -> Message:
            nonlocal unread
            if unread:
                unread = False
                return {"type": "http.request", "body": body, "more_body": False}
            return await receive()

        await self.app(scope, replay, send)

    async def read(self, receive: Receive) -> bytes | None:
        """The body, or None where the client went away."""
        body, more = bytearray(), True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                return None
            body += message.get("body", b"")
            more = message.get("more_body", False)
            if len(body) > self.limit:
                raise self.too_large()
        return bytes(body)

    def too_large(self) -> ApiError:
        """The refusal."""
        return ApiError(413, f"the body is larger than {self.limit} bytes", code="body_too_large")


def answer(error: ApiError) -> JSONResponse:
    """An error as a response."""
    return JSONResponse(error.body, error.status, error.headers)


def internal_error() -> JSONResponse:
    """What a client sees of an error that is ours."""
    return JSONResponse(error_body("the service failed on this request", "server_error", None, "internal"), 500)
