"""One HTTP request, watched from its start to the last byte of its answer: metrics, span, access log.

    watch = Watch(scope, send)
    with watch.span():
        await app(scope, receive, watch.send)
    log.info(watch.ended())

What an error was is read from the code in its own body, whichever layer wrote it, so that no
layer can forget to tell.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager

import orjson
from opentelemetry.trace import Span, SpanKind, Status, StatusCode
from starlette.datastructures import Headers
from starlette.types import Message, Scope, Send

from serving.watching import traces
from serving.watching.access_log import GONE, line, route_of
from serving.watching.metrics import Metrics, metrics, name

CUT_OFF = "cut_off"
"""Code of an answer that was begun and not ended, by a client that left or a replica that died; no error by itself."""
UNTRACED = {"/healthz"}
"""Asked every few seconds by what keeps the service up; a trace of it tells nothing."""


class Watch:
    """Everything that is noted of one request."""

    def __init__(self, scope: Scope, send: Send, counted: Metrics | None = None):
        self.scope, self._send = scope, send
        self.metrics = counted or metrics()
        self.started = time.perf_counter()
        self.status = 0
        self.first_byte: float | None = None
        """Seconds until the first byte of a body."""
        self.whole = False
        """The answer was sent to its end."""
        self.metrics.began()

    async def send(self, message: Message) -> None:
        """Pass a part of the answer on."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
        elif message["type"] == "http.response.body" and message.get("body"):
            if self.status >= 400 and self.first_byte is None:
                self.scope["state"]["code"] = code_of(message["body"])
            if self.first_byte is None:
                self.first_byte = self.seconds()
        await self._send(message)
        if message["type"] == "http.response.body":
            self.whole = not message.get("more_body", False)

    @contextmanager
    def span(self) -> Iterator[None]:
        """The request's span, below that of the client where it sent a ``traceparent``."""
        if self.scope["path"] in UNTRACED:
            yield
            return
        parent = {traces.HEADER: Headers(scope=self.scope).get(traces.HEADER, "")}
        with traces.span("ingress", parent=parent, kind=SpanKind.SERVER) as told:
            try:
                yield
            finally:
                self._describe(told)

    def _describe(self, told: Span) -> None:
        """By OpenTelemetry's names for HTTP where it has one; its ``url.path`` is left out, being the client's text."""
        method, route, state = name(self.scope["method"]), route_of(self.scope), self.scope["state"]
        told.update_name(f"{method} {route or 'no route'}")
        told.set_attributes({"http.request.method": method, "http.response.status_code": self.status or GONE})
        if route is not None:
            told.set_attribute("http.route", route)
        if self.status >= 500:
            told.set_status(Status(StatusCode.ERROR, state.get("code")))
        caller, risk = state.get("caller"), state.get("risk")
        traces.describe(
            told,
            request_id=state.get("request_id"),
            key_id=getattr(caller, "id", None),
            code=state.get("code"),
            risk=getattr(risk, "level", risk),
        )

    def ended(self) -> str:
        """Counts the request and returns its line for the log."""
        seconds = self.seconds()
        state = self.scope["state"]
        if self.status and not self.whole:
            state.setdefault("code", CUT_OFF)
        route = route_of(self.scope)
        self.metrics.request(route, self.status or GONE, seconds)
        if self.first_byte is not None and self.status == 200:
            self.metrics.first_byte(route, self.first_byte)
        code = state.get("code")
        if code not in (None, CUT_OFF) and self.status != GONE:
            self.metrics.error(code)
        return line(self.scope, self.status, seconds, self.first_byte)

    def seconds(self) -> float:
        """Since the request came in."""
        return time.perf_counter() - self.started


def code_of(body: bytes) -> str | None:
    """The code in the body of an error; None where it is none of ours."""
    try:
        return name(str(orjson.loads(body)["error"]["code"]))
    except (ValueError, LookupError, TypeError):
        return None
