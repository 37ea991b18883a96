"""The one line of each request, its counters and its span."""

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from fastapi import FastAPI, Request
from fastapi.responses import StreamingResponse
from starlette.testclient import TestClient
from starlette.types import ASGIApp, Receive, Scope, Send

from configs.watching import TraceSettings
from pipelines.generation.engine import Usage
from serving.middleware import LOGGER, RequestScope
from serving.watching import traces
from serving.watching.metrics import metrics
from serving.watching.request import code_of
from serving.wire import ApiError
from tests.serving.watching.otlp import attributes, receiving

SECRET = "zebrafish"
STATUS_UNSET, STATUS_ERROR = 0, 2
"""Codes of OTLP's ``Status``."""


class Known:
    """Stands where access control does: the caller is known before the route."""

    def __init__(self, app: ASGIApp):
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope["state"]["caller"] = SimpleNamespace(id="key-7", name=SECRET)
        await self.app(scope, receive, send)


@pytest.fixture
def client() -> TestClient:
    api = FastAPI()

    @api.post("/v1/things/{thing}")
    async def thing(thing: str, request: Request) -> dict[str, str]:
        request.state.usage = Usage(120, 40)
        request.state.model, request.state.risk = "gm", SimpleNamespace(level="elevated", signals=("a",))
        return {"said": await request.body() and SECRET}

    @api.get("/stream")
    async def stream() -> StreamingResponse:
        async def parts() -> AsyncIterator[str]:
            yield "data: a\n\n"
            yield "data: b\n\n"

        return StreamingResponse(parts(), media_type="text/event-stream")

    @api.get("/late")
    async def late() -> StreamingResponse:
        async def parts() -> AsyncIterator[str]:
            yield "data: a\n\n"
            raise ValueError(f"cannot parse {SECRET}")

        return StreamingResponse(parts(), media_type="text/event-stream")

    @api.get("/busy")
    async def busy() -> None:
        raise ApiError(503, "too much", code="overloaded")

    @api.get("/bug")
    async def bug() -> None:
        raise ValueError(f"cannot parse {SECRET}")

    @api.get("/healthz")
    async def healthz() -> None: ...

    api.add_middleware(Known)
    api.add_middleware(RequestScope)
    return TestClient(api, raise_server_exceptions=False)


@pytest.fixture
def lines() -> Iterator[list[str]]:
    found: list[str] = []

    class Kept(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            found.append(record.getMessage())

    kept, logger = Kept(logging.DEBUG), logging.getLogger(LOGGER)
    level = logger.level
    logger.addHandler(kept)
    logger.setLevel(logging.DEBUG)
    yield found
    logger.removeHandler(kept)
    logger.setLevel(level)


def line(lines: list[str]) -> dict[str, Any]:
    return json.loads(lines[-1])


def test_who_asked_for_what_and_how_it_ended_is_one_line_of_json(client: TestClient, lines: list[str]) -> None:
    client.post(f"/v1/things/{SECRET}?q={SECRET}", content=SECRET, headers={"x-request-id": "my-id"})
    assert len(lines) == 1
    told = line(lines)
    assert told.pop("time").endswith("+00:00")
    assert told.pop("ms") >= told.pop("first_byte_ms") > 0
    assert told == {
        "request_id": "my-id",
        "key_id": "key-7",
        "route": "/v1/things/{thing}",
        "method": "POST",
        "status": 200,
        "code": None,
        "model": "gm",
        "prompt_tokens": 120,
        "new_tokens": 40,
        "risk": "elevated",
    }
    assert SECRET not in lines[0]


def test_a_path_that_matched_nothing_is_not_shown(client: TestClient, lines: list[str]) -> None:
    client.get(f"/{SECRET}")
    assert (line(lines)["route"], line(lines)["status"]) == (None, 404)
    assert SECRET not in lines[0]


def test_an_error_is_told_by_its_code_whoever_answered_it(client: TestClient, lines: list[str]) -> None:
    before = metrics().seen(900).total(metrics_errors(), ("overloaded",))
    client.get("/busy")
    assert (line(lines)["status"], line(lines)["code"]) == (503, "overloaded")
    client.get("/busy", headers={"x-request-id": "two words"})
    assert (line(lines)["status"], line(lines)["code"]) == (400, "invalid_request_id")
    client.get("/bug")
    assert (line(lines)["status"], line(lines)["code"]) == (500, "internal")
    assert metrics().seen(900).total(metrics_errors(), ("overloaded",)) == before + 1
    assert not [text for text in lines if SECRET in text]
    assert any("ValueError at" in text for text in lines)


def test_a_stream_that_breaks_off_is_told_though_its_status_was_fine(client: TestClient, lines: list[str]) -> None:
    client.get("/stream")
    assert (line(lines)["status"], line(lines)["code"]) == (200, None)
    client.get("/late")
    assert (line(lines)["status"], line(lines)["code"]) == (200, "internal")
    assert not [text for text in lines if SECRET in text]


def test_a_client_that_leaves_in_mid_stream_is_told_and_is_no_error(lines: list[str]) -> None:
    async def half(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"data: a", "more_body": True})

    async def ask() -> None:
        scope = {"type": "http", "path": "/v1/generate", "method": "POST", "headers": []}
        await RequestScope(half)(scope, sent_nothing, swallow)

    before = metrics().seen(900).total(metrics_errors())
    asyncio.run(ask())
    assert (line(lines)["status"], line(lines)["code"]) == (200, "cut_off")
    assert metrics().seen(900).total(metrics_errors()) == before


async def sent_nothing() -> Any:
    return {"type": "http.disconnect"}


async def swallow(message: Any) -> None: ...


def metrics_errors() -> Any:
    from serving.watching.definitions import ERRORS

    return ERRORS


def test_a_body_that_is_no_error_of_ours_has_no_code() -> None:
    assert code_of(b'{"error": {"code": "overloaded"}}') == "overloaded"
    assert code_of(b'{"error": {"code": "I feel zebrafish"}}') == "other"
    for body in (b"Internal Server Error", b"[]", b'{"error": "x"}', b'{"detail": 1}', b"\xff"):
        assert code_of(body) is None


def test_each_request_is_a_span_by_its_route_with_its_numbers(client: TestClient) -> None:
    with receiving() as received:
        traces.setup(TraceSettings(endpoint=received.endpoint), "ingress")
        client.post(f"/v1/things/{SECRET}?q={SECRET}", content=SECRET, headers={"x-request-id": "my-id"})
        client.get(f"/{SECRET}")
        client.get("/stream")
        client.get("/bug")
        client.get("/healthz")
        traces.shutdown()
    spans = received.spans()
    assert set(spans) == {"POST /v1/things/{thing}", "GET no route", "GET /stream", "GET /bug"}
    told = attributes(spans["POST /v1/things/{thing}"])
    assert told == {
        "http.request.method": "POST",
        "http.route": "/v1/things/{thing}",
        "http.response.status_code": 200,
        "llumi.request_id": "my-id",
        "llumi.key_id": "key-7",
        "llumi.risk": "elevated",
    }
    assert attributes(spans["GET /bug"])["llumi.code"] == "internal"
    assert [spans[name].status.code for name in ("GET /bug", "GET no route")] == [STATUS_ERROR, STATUS_UNSET]
    assert not [body for body in received.raw if SECRET.encode() in body]
