"""Nobody's words in logs, traces, metrics, error bodies or files: everything is sent, everything is searched.

Each place of a request gets a word of its own, so that a finding names what leaked. The last tests
leak on purpose, in every way that is searched for, and are found.
"""

import asyncio
import json
import logging
import sys
import traceback
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography.fernet import Fernet
from starlette.types import Receive, Scope, Send

from configs.access import SCOPES
from configs.store import StoreSettings
from configs.watching import TraceSettings
from serving.access import keys
from serving.feedback.store import FeedbackStore
from serving.middleware import LOGGER, RequestScope
from serving.watching import definitions as d
from serving.watching import traces
from serving.watching.meters import PlainMeters
from serving.watching.metrics import metrics
from tests.serving.running import Site, running
from tests.serving.watching.otlp import Received, receiving

WORDS = {
    "title": "zebrafish",
    "text": "quokkaward",
    "draft": "narwhalish",
    "message": "axolotlian",
    "answer": "pangolinic",
    "field": "okapilike",
    "path": "tapirwise",
    "query": "lemurhood",
    "header": "wombatness",
    "stop": "ibexly",
    "broken": "numbatful",
    "rater": "kakapoan",
    "key": "civetkey",
    "exception": "dugongian",
}
"""The word of each place."""
POST = {"title": f"A {WORDS['title']} week", "text": f"I can not sleep and nobody asks why, {WORDS['text']}."}
ACUTE = {"title": "Goodbye", "text": f"I am going to kill myself tonight, {WORDS['text']}. I have the pills here."}
DRAFT = f"Just go out more, {WORDS['draft']}, and you will be fine."
ANSWER = f"That sounds lonely, {WORDS['answer']}. Would a club near you be something to try?"
UNSAFE = f"You should take 40 mg of Prozac every day, {WORDS['answer']}."
CLIENTS = ("httpx", "httpcore", "asyncio")
"""Loggers of the test's own client, which of course knows what it sends."""


class Listening(logging.Handler):
    """Every record of every logger, down to DEBUG, as a formatter would write it."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if record.name.split(".")[0] not in CLIENTS:
            trace = "".join(traceback.format_exception(*record.exc_info)) if record.exc_info else ""
            self.lines.append(f"{record.name}: {record.getMessage()} {vars(record)} {trace}")


@dataclass
class Heard:
    """All that came out of the service."""

    logs: Listening
    received: Received
    errors: list[httpx.Response] = field(default_factory=list)
    statuses: set[int] = field(default_factory=set)

    def note(self, response: httpx.Response) -> httpx.Response:
        self.statuses.add(response.status_code)
        if response.status_code >= 400:
            self.errors.append(response)
        return response

    def places(self, folder: Path, terminal: str) -> dict[str, str]:
        """What is searched, by place."""
        meters = metrics().meters
        assert isinstance(meters, PlainMeters)
        return {
            "logs": "\n".join(self.logs.lines),
            "terminal": terminal,
            "traces": "\n".join(body.decode("latin-1") for body in self.received.raw),
            "metrics": meters.text() + str(metrics().seen(900)),
            "errors": "\n".join(f"{answer.text} {answer.headers}" for answer in self.errors),
            "files": "\n".join(path.read_bytes().decode("latin-1") for path in folder.rglob("*") if path.is_file()),
        }


def found(places: dict[str, str]) -> set[tuple[str, str]]:
    """Every (place, word) that leaked."""
    return {
        (place, name)
        for place, text in places.items()
        for name, word in WORDS.items()
        if word.lower() in text.lower() or word.encode("utf-16-le").decode("latin-1") in text
    }


@pytest.fixture(autouse=True)
def counted_here(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Numbers are kept in this process, where they can be read, also when another test has started Ray in it."""
    monkeypatch.setattr("ray.is_initialized", lambda: False)
    metrics.cache_clear()
    yield
    metrics.cache_clear()


@pytest.fixture
def heard(capfd: pytest.CaptureFixture[str]) -> Iterator[Heard]:
    listening = Listening()
    loggers = [logging.getLogger(name) for name in ("", LOGGER, "uvicorn", "llumi")]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.DEBUG)
        logger.addHandler(listening)
    with receiving() as received:
        traces.setup(TraceSettings(endpoint=received.endpoint), "ingress")
        yield Heard(listening, received)
        traces.shutdown()
    for logger, level in zip(loggers, before, strict=True):
        logger.removeHandler(listening)
        logger.setLevel(level)


@pytest.fixture
def site(heard: Heard, tmp_path: Path) -> Iterator[tuple[Site, dict[str, str]]]:
    """The whole application with keys and a store that keeps texts, encrypted; and the headers of a key."""
    key_file = tmp_path.parent / f"{tmp_path.name}.fernet"
    key_file.write_bytes(Fernet.generate_key())
    settings = StoreSettings(keep_text=True, key_file=str(key_file)).resolved(str(tmp_path))
    store = FeedbackStore.of(settings)
    (tmp_path / "serving").mkdir(exist_ok=True)
    keys_file = tmp_path / "serving" / "keys.json"
    key, _ = keys.create(keys_file, "test", SCOPES, requests_per_minute=10_000)
    access = ["serving.auth=keys", f"serving.access.keys_file={keys_file}", "serving.access.counters=memory"]
    with running(tmp_path, *access, engine={"answer": ANSWER}, feedback=store) as site:
        yield site, {"authorization": f"Bearer {key}"}
    assert store is not None
    store.close()


def send_everything(site: Site, key: dict[str, str], heard: Heard) -> None:
    """Every route, well and badly used, with a word in every place that takes text."""

    def post(route: str, body: Any = None, headers: dict[str, str] | None = None, **options: Any) -> httpx.Response:
        return heard.note(site.post(route, body, headers={**key, **(headers or {})}, **options))

    for stream in (False, True):
        answer = post("/v1/generate", {"post": POST, "n": 2, "stream": stream, "stop": [WORDS["stop"]]})
        assert WORDS["answer"] in answer.text  # it is given where it belongs
        post("/v1/generate", {"post": ACUTE, "stream": stream})
        post("/v1/improve", {"post": POST, "draft": DRAFT, "stream": stream})
        chat = [{"role": "system", "content": WORDS["message"]}, {"role": "user", "content": POST["text"]}]
        post("/v1/chat/completions", {"model": "llumi-gm", "messages": chat, "stream": stream})
        post("/v1/chat/completions", {"model": WORDS["field"], "messages": chat, "stream": stream})
    rated = post("/v1/generate", {"post": POST}).json()["request_id"]
    post("/v1/feedback", {"request_id": rated, "ratings": {"empathy": 4}, "rater": "volunteer-7"})
    post("/v1/feedback", {"request_id": rated, "ratings": {"empathy": WORDS["broken"]}, "rater": WORDS["rater"] + " x"})
    post("/v1/feedback", {"request_id": WORDS["broken"] + " x", "chosen_index": 1})
    for body in (
        {"post": {**POST, WORDS["field"]: 1}},
        {"post": POST, WORDS["field"]: WORDS["broken"]},
        {"post": WORDS["broken"]},
        {"post": {"title": [WORDS["broken"]]}},
        {"post": {"text": WORDS["broken"] * 4000}},
        {"post": POST, "n": WORDS["broken"]},
        {"post": POST, "temperature": WORDS["broken"]},
        {"post": POST, "stop": [WORDS["stop"] * 20]},
        {"post": POST, "max_tokens": 10**9},
        [WORDS["broken"]],
        WORDS["broken"],
    ):
        for route in ("/v1/generate", "/v1/improve", "/v1/chat/completions"):
            post(route, body)
    as_json = {"content-type": "application/json"}
    post("/v1/generate", content=f'{{"post": {WORDS["broken"]}', headers=as_json)
    post("/v1/generate", content=WORDS["broken"].encode() + b"\xff\xfe", headers=as_json)
    post("/v1/generate", content=f"post={WORDS['broken']}", headers={"content-type": f"text/{WORDS['header']}"})
    post("/v1/generate", content=WORDS["broken"] * 200_000, headers=as_json)
    post(f"/v1/{WORDS['path']}?q={WORDS['query']}", {"post": POST})
    post(f"/v1/generate?{WORDS['query']}={WORDS['query']}", {"post": POST})
    heard.note(site.get(f"/v1/models/{WORDS['path']}", headers=key))
    heard.note(site.get("/v1/generate", headers=key))
    given = {"x-request-id": f"{WORDS['header']} {WORDS['header']}", "traceparent": WORDS["header"]}
    post("/v1/generate", {"post": POST}, headers=given)
    post("/v1/generate", {"post": POST}, headers={"user-agent": WORDS["header"], "tracestate": f"a={WORDS['header']}"})
    for wrong in (f"Bearer llumi_{WORDS['key']}", f"Basic {WORDS['key']}", WORDS["key"]):
        heard.note(site.post("/v1/generate", {"post": POST}, headers={"authorization": wrong}))


def fail_everywhere(site: Site, key: dict[str, str], heard: Heard) -> None:
    """The guard refuses, a bug raises with the prompt in its message, the engine dies."""

    def bug(prompt: Any, sampling: Any) -> str:
        raise ValueError(f"cannot render {prompt} {WORDS['exception']}")

    site.gm.answer = UNSAFE
    for stream in (False, True):
        heard.note(site.post("/v1/generate", {"post": POST, "stream": stream}, headers=key))
    site.gm.answer = bug
    for stream in (False, True):
        heard.note(site.post("/v1/generate", {"post": POST, "stream": stream}, headers=key))
    site.gm.die()
    for stream in (False, True):
        heard.note(site.post("/v1/generate", {"post": POST, "stream": stream}, headers=key))


def test_nothing_that_was_sent_or_written_is_found_anywhere_but_in_its_answer(
    site: tuple[Site, dict[str, str]], heard: Heard, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    send_everything(*site, heard)
    fail_everywhere(*site, heard)
    traces.shutdown()
    places = heard.places(tmp_path, "".join(capfd.readouterr()))
    assert found(places) == set()
    assert {200, 400, 401, 404, 405, 413, 422, 500, 503} <= heard.statuses
    lines = [told for told in map(line_of, heard.logs.lines) if told is not None]
    assert len(lines) > 50
    assert {"/v1/generate", "/v1/improve", "/v1/chat/completions", "/v1/feedback", None} <= {x["route"] for x in lines}
    assert len(heard.received.all()) > 50
    assert "ray_llumi_guard_total" in places["metrics"]


def line_of(record: str) -> dict[str, Any] | None:
    """The access log's line in a record, None where it is another's."""
    start = record.find('{"time"')
    return json.JSONDecoder().raw_decode(record[start:])[0] if start >= 0 else None


class Leaky:
    """An application that tells everything everywhere."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = (await receive())["body"].decode()
        logging.getLogger(LOGGER).info("got %s", body)
        print(body)  # noqa: T201
        metrics().meters.add(d.REFUSED, 1, {"reason": body, "model": "gm", "version": "none"})
        with traces.Tracing.tracer.start_as_current_span("leak") as told:
            told.set_attribute("body", body)
        Path(scope["folder"], "body.txt").write_text(body, encoding="utf-8")
        await send({"type": "http.response.start", "status": 422, "headers": []})
        await send({"type": "http.response.body", "body": body.encode()})


def test_a_leak_in_each_place_would_be_found(heard: Heard, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    transport = httpx.ASGITransport(WithFolder(RequestScope(Leaky()), tmp_path))

    async def ask() -> httpx.Response:
        async with httpx.AsyncClient(transport=transport, base_url="http://llumi") as client:
            return await client.post("/v1/generate", content=WORDS["text"])

    heard.note(asyncio.run(ask()))
    traces.shutdown()
    places = heard.places(tmp_path, "".join(capfd.readouterr()))
    assert found(places) == {(place, "text") for place in places}
    metrics.cache_clear()  # the word is in a label now


@dataclass
class WithFolder:
    """Tells the application where it may write."""

    app: Any
    folder: Path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.app({**scope, "folder": self.folder}, receive, send)


def test_a_word_in_an_exceptions_trace_would_be_found() -> None:
    listening = Listening()
    try:
        raise ValueError(WORDS["exception"])
    except ValueError:
        listening.emit(logging.LogRecord("x", logging.ERROR, "", 0, "failed", None, sys.exc_info()))
    assert found({"logs": "\n".join(listening.lines)}) == {("logs", "exception")}
