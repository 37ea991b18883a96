"""Drafts and revisions over the native interface."""

import asyncio
import json
import threading
import time
from collections.abc import AsyncGenerator, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from pipelines.generation.engine import Messages, Piece, Sampling
from tests.serving.local import LocalModel
from tests.serving.running import ANSWER, DRAFT, POST, REVISION, Site, running

ACUTE = {"title": "Goodbye", "text": "I am going to kill myself tonight. I have the pills here."}
COMMON = {
    "request_id",
    "model",
    "version",
    "finish_reason",
    "usage",
    "risk",
    "resources_required",
    "refusal",
    "post_cut",
    "examples",
}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with running(tmp_path_factory.mktemp("generate"), info={"version": "abc123"}) as site:
        yield site


@pytest.fixture(autouse=True)
def as_before(site: Site) -> Iterator[None]:
    yield
    site.gm.answer, site.im.answer = ANSWER, REVISION


def events(response: httpx.Response) -> list[tuple[str, dict[str, Any]]]:
    """Names and data of a stream's events."""
    found = []
    for block in response.text.split("\n\n")[:-1]:
        name, data = block.split("\n")
        found.append((name.removeprefix("event: "), json.loads(data.removeprefix("data: "))))
    return found


def test_a_post_gets_a_draft(site: Site) -> None:
    answer = site.post("/v1/generate", {"post": POST}, headers={"x-request-id": "mine-1"}).json()
    assert set(answer) == COMMON | {"drafts"}
    assert answer["drafts"] == [{"text": ANSWER, "finish_reason": "stop", "refusal": None, "logprobs": None}]
    assert (answer["request_id"], answer["model"], answer["version"]) == ("mine-1", "gm", "abc123")
    assert answer["risk"] == {"level": "none", "signals": [], "action": "none"}
    assert answer["resources_required"] is False
    assert answer["usage"]["new_tokens"] == len(ANSWER.split())


def test_n_drafts_are_written_each_with_a_seed_of_its_own(site: Site) -> None:
    site.gm.answer = lambda prompt, sampling: f"{ANSWER} {'So' if sampling.seed % 2 else 'Well'}, how are you today?"
    drafts = [site.post("/v1/generate", {"post": POST, "n": 2, "seed": 6}).json()["drafts"] for _ in range(2)]
    assert drafts[0] == drafts[1]
    assert drafts[0][0]["text"] != drafts[0][1]["text"]


def test_what_a_request_asks_for_reaches_the_engine(site: Site) -> None:
    asked = {"max_tokens": 9, "temperature": 0.3, "top_p": 0.8, "stop": ["after"], "seed": -1, "logprobs": True}
    answer = site.post("/v1/generate", {"post": POST, **asked}).json()
    _, prompt, sampling = site.gm.seen[-1]
    assert (sampling.max_new_tokens, sampling.temperature, sampling.top_p) == (9, 0.3, 0.8)
    assert (sampling.stop, sampling.seed, sampling.logprobs) == (("after",), 2**63 - 1, True)
    assert "</post>" in prompt[-1]["content"]
    draft = answer["drafts"][0]
    assert draft["finish_reason"] in ("stop", "length")
    assert len(draft["logprobs"]) == answer["usage"]["new_tokens"]
    assert all(value <= 0 for value in draft["logprobs"])


def test_a_stop_text_ends_a_draft_and_is_not_in_it(site: Site) -> None:
    draft = site.post("/v1/generate", {"post": POST, "stop": "Would"}).json()["drafts"][0]
    assert draft["text"] == ANSWER[: ANSWER.index("Would")].strip()
    assert draft["finish_reason"] == "stop"


def test_a_draft_that_was_cut_off_says_so(site: Site) -> None:
    answer = site.post("/v1/generate", {"post": POST, "max_tokens": 5}).json()
    assert answer["finish_reason"] == answer["drafts"][0]["finish_reason"] == "length"


def test_a_post_at_acute_risk_gets_no_draft_and_no_model_is_asked(site: Site) -> None:
    before = len(site.gm.seen) + len(site.im.seen)
    for route, body in (("generate", {}), ("improve", {"draft": DRAFT}), ("generate", {"stream": True})):
        response = site.post(f"/v1/{route}", {"post": ACUTE, **body})
        answer = events(response)[-1][1] if body.get("stream") else response.json()
        assert answer["risk"]["level"] == "acute"
        assert answer["risk"]["signals"]
        assert answer["resources_required"] is True
        assert answer["refusal"]["code"] == "acute_risk"
        assert answer["finish_reason"] == "content_filter"
        assert answer.get("drafts", []) == []
        assert answer.get("revision") is None
    assert len(site.gm.seen) + len(site.im.seen) == before


def test_a_draft_that_breaks_a_rule_is_refused_with_its_reason(site: Site) -> None:
    site.gm.answer = "You can call me on 555 123 4567, or write to helper@example.org."
    answer = site.post("/v1/generate", {"post": POST}).json()
    assert answer["drafts"][0]["text"] is None
    assert answer["drafts"][0]["finish_reason"] == "content_filter"
    assert answer["refusal"]["code"] == "guard"
    assert answer["refusal"]["rules"]
    assert "555" not in json.dumps(answer)


def test_a_revision_comes_with_its_changes_and_what_it_kept(site: Site) -> None:
    answer = site.post("/v1/improve", {"post": POST, "draft": DRAFT}).json()
    assert set(answer) == COMMON | {"revision", "edits", "preservation"}
    assert answer["revision"] == REVISION
    assert "".join(edit["draft"] for edit in answer["edits"]) == DRAFT
    assert "".join(edit["revision"] for edit in answer["edits"]) == REVISION
    assert {"equal", "replace"} <= {edit["op"] for edit in answer["edits"]}
    assert 0 < answer["preservation"]["score"] < 1
    assert answer["preservation"]["method"] == "lexical"


def test_a_stream_is_released_in_pieces_that_add_up(site: Site) -> None:
    response = site.post("/v1/generate", {"post": POST, "n": 2, "stream": True})
    assert response.headers["content-type"].startswith("text/event-stream")
    assert response.headers["cache-control"] == "no-store"
    found = events(response)
    names = [name for name, _ in found]
    assert names[0] == "start"
    assert names[-1] == "end"
    assert set(names[1:-1]) == {"text"}
    assert found[0][1]["risk"]["level"] == "none"
    answer = found[-1][1]
    assert set(answer) == COMMON | {"drafts"}
    for index, draft in enumerate(answer["drafts"]):
        pieces = [data["text"] for name, data in found if name == "text" and data["draft"] == index]
        assert len(pieces) > 1
        assert "".join(pieces).strip() == draft["text"] == ANSWER


def test_what_cannot_be_streamed_is_refused_with_a_status(site: Site) -> None:
    long = {"text": "word " * 2500}
    response = site.post("/v1/generate", {"post": long, "stream": True})
    assert (response.status_code, response.json()["error"]["code"]) == (400, "context_length_exceeded")


def test_a_failure_in_mid_stream_is_the_last_event(tmp_path: Path) -> None:
    with running(tmp_path, engine={"dies_after": 12, "token_s": 0.01}) as site:
        found = events(site.post("/v1/generate", {"post": POST, "stream": True}))
        assert [name for name, _ in found] == ["start", "text", "error"]
        assert found[-1][1]["error"]["code"] == "unavailable"
        response = site.get("/healthz")
        assert (response.status_code, response.json()) == (503, {"status": "unavailable"})
        refused = site.post("/v1/generate", {"post": POST, "stream": True})
        assert refused.status_code == 503
        assert int(refused.headers["retry-after"]) >= 1


CHAT = {"model": "llumi-gm", "messages": [{"role": "user", "content": POST["text"]}]}


def test_a_post_that_gets_no_draft_is_looked_up_nowhere(tmp_path: Path) -> None:
    class Index:
        embedder = None
        asked = 0

        async def similar(self, post: str) -> list[Any]:
            self.asked += 1
            return []

    index = Index()
    with running(tmp_path, retrieval=index) as site:
        assert site.post("/v1/generate", {"post": ACUTE}).status_code == 200
        assert index.asked == 0
        assert site.post("/v1/generate", {"post": POST}).status_code == 200
        assert index.asked == 1


@pytest.mark.parametrize(
    ("route", "body"),
    [
        ("generate", {"post": POST}),
        ("generate", {"post": POST, "stream": True}),
        ("improve", {"post": POST, "draft": DRAFT}),
        ("chat/completions", CHAT),
        ("chat/completions", {**CHAT, "stream": True}),
    ],
)
def test_the_log_tells_the_tokens_of_each_request(
    site: Site, caplog: pytest.LogCaptureFixture, route: str, body: dict[str, Any]
) -> None:
    with caplog.at_level("INFO", logger="ray.serve"):
        site.post(f"/v1/{route}", body, headers={"x-request-id": "counted"})
        until(lambda: any("counted" in record.getMessage() for record in caplog.records))
    (line,) = (json.loads(r.getMessage()) for r in caplog.records if "counted" in r.getMessage())
    wrote = REVISION if route == "improve" else ANSWER
    assert (line["new_tokens"], line["prompt_tokens"] > 50) == (len(wrote.split()), True)


@pytest.mark.parametrize(
    ("route", "body"),
    [
        ("generate", {"post": POST}),
        ("generate", {"post": POST, "stream": True}),
        ("generate", {"post": POST, "n": 3}),
        ("improve", {"post": POST, "draft": DRAFT}),
        ("chat/completions", CHAT),
        ("chat/completions", {**CHAT, "stream": True}),
    ],
)
def test_a_client_that_leaves_stops_the_engine(tmp_path: Path, route: str, body: dict[str, Any]) -> None:
    with running(tmp_path, engine={"token_s": 0.05, "answer": None}) as site:
        engine = site.im if route == "improve" else site.gm
        with (
            pytest.raises(httpx.ReadTimeout),
            httpx.stream("POST", f"{site.url}/v1/{route}", json=body, timeout=0.3, trust_env=False) as response,
        ):
            response.read()
        until(lambda: engine.in_progress() == 0)
        assert 0 < engine.written < 20
        assert site.get("/healthz").status_code == 200


def test_an_answer_that_takes_too_long_is_given_up(tmp_path: Path) -> None:
    with running(tmp_path, engine={"token_s": 0.2}, timeout_s=0.4) as site:
        response = site.post("/v1/generate", {"post": POST})
        assert (response.status_code, response.json()["error"]["code"]) == (504, "timeout")
        until(lambda: site.gm.in_progress() == 0)


def test_a_request_that_is_cancelled_from_within_ends_and_does_not_hang(tmp_path: Path) -> None:
    class Cancelled(LocalModel):
        async def stream(self, request_id: str, prompt: Messages, sampling: Sampling) -> AsyncGenerator[Piece, None]:
            async for piece in super().stream(request_id, prompt, sampling):
                yield piece
                if piece.usage.new_tokens == after:
                    raise asyncio.CancelledError

    with running(tmp_path, model=Cancelled) as site:
        after = 1
        assert site.post("/v1/generate", {"post": POST, "stream": True}).status_code == 503
        after = 15
        assert [name for name, _ in events(site.post("/v1/generate", {"post": POST, "stream": True}))][-1] == "error"


def until(condition: Any, seconds: float = 10) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "did not come true in time"
        threading.Event().wait(0.02)
