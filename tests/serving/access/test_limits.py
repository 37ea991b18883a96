"""Scopes and limits of keys over HTTP: what a caller is told, and that streams count until their last byte."""

import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import openai
import pytest

from configs.access import SCOPES, Scope
from serving.access import keys
from tests.serving.access.server import POST, Server, running

ANSWER = (
    "It makes sense that you are worn out after such a week. You carried a lot all by yourself. "
    "Would it help to tell one person you trust how it has been?"
)


@pytest.fixture
def slow(tmp_path: Path) -> Iterator[Server]:
    """Writes a word every 20 ms, so that requests are in progress for a while."""
    limits = ["serving.access.requests_per_minute=null", "serving.access.concurrent=null"]
    with running(tmp_path, *limits, token_s=0.02, answer=ANSWER) as server:
        yield server


CHAT = [{"role": "user", "content": "I am tired."}]
ROUTES: dict[Scope, tuple[str, str, dict[str, object] | None]] = {
    "generate": ("POST", "/v1/generate", {"post": POST}),
    "improve": ("POST", "/v1/improve", {"post": POST, "draft": "I hear how hard this week was for you."}),
    "chat": ("POST", "/v1/chat/completions", {"model": "llumi-gm", "messages": CHAT}),
    "models": ("GET", "/v1/models", None),
    "docs": ("GET", "/v1/openapi.json", None),
}  # fmt: skip


@pytest.mark.parametrize("scope", ROUTES)
def test_a_scope_opens_its_route_and_no_other(server: Server, scope: Scope) -> None:
    key = server.key(scope)
    for name, (method, path, body) in ROUTES.items():
        answer = server.ask(method, path, key, json=body)
        if name == scope:
            assert answer.status_code == 200, name
        else:
            assert (answer.status_code, answer.json()["error"]["code"]) == (403, "insufficient_scope"), name
            assert f'scope="{name}"' in answer.headers["www-authenticate"]
            assert name in answer.json()["error"]["message"]


def test_acute_alone_opens_no_route(server: Server) -> None:
    key = server.key("acute")
    for method, path, body in ROUTES.values():
        assert server.ask(method, path, key, json=body).status_code == 403
    assert set(ROUTES) | {"acute", "feedback"} == set(SCOPES)


def test_a_key_made_while_the_service_runs_works_at_once_and_a_revoked_one_soon_does_not(server: Server) -> None:
    key = server.key()
    assert server.draft(key).status_code == 200
    keys.revoke(server.keys_file, key.split("_")[1])
    end = time.monotonic() + 10
    while (answer := server.draft(key)).status_code == 200:
        assert time.monotonic() < end
        time.sleep(0.1)
    assert (answer.status_code, answer.json()["error"]["code"]) == (401, "revoked_api_key")


def test_a_rate_is_answered_with_429_and_when_to_come_back(server: Server) -> None:
    key, other = server.key(requests_per_minute=3), server.key(requests_per_minute=3)
    answers = [server.draft(key) for _ in range(5)]
    assert [answer.status_code for answer in answers] == [200, 200, 200, 429, 429]
    for refused in answers[3:]:
        error = refused.json()["error"]
        assert set(error) == {"message", "type", "param", "code"}
        assert (error["code"], error["type"]) == ("rate_limit_exceeded", "rate_limit_error")
        assert "3 requests a minute" in error["message"]
        assert 50 <= int(refused.headers["retry-after"]) <= 60
    assert server.draft(other).status_code == 200


def test_requests_that_are_refused_by_the_gate_are_not_counted(server: Server) -> None:
    key = server.key("generate", requests_per_minute=2)
    for _ in range(4):
        assert server.ask("GET", "/v1/models", key).status_code == 403
        assert server.ask("GET", "/nowhere", key).status_code == 404
    assert [server.draft(key).status_code for _ in range(3)] == [200, 200, 429]


def test_requests_at_once_are_limited_and_others_come_after_them(slow: Server) -> None:
    key = slow.key(concurrent=2)
    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(lambda _: slow.draft(key), range(6)))
    refused = [answer for answer in answers if answer.status_code == 429]
    assert sorted(answer.status_code for answer in answers) == [200, 200, 429, 429, 429, 429]
    assert {answer.json()["error"]["code"] for answer in refused} == {"too_many_concurrent_requests"}
    assert {answer.headers["retry-after"] for answer in refused} == {"1"}
    assert slow.draft(key).status_code == 200


def test_a_stream_is_in_progress_until_its_last_byte(slow: Server) -> None:
    key = slow.key(concurrent=1)
    url, headers = f"http://127.0.0.1:{slow.port}/v1/generate", {"Authorization": f"Bearer {key}"}
    body = {"post": POST, "stream": True}
    with httpx.stream("POST", url, json=body, headers=headers, timeout=30, trust_env=False) as stream:
        assert stream.status_code == 200
        lines = stream.iter_lines()
        next(lines)
        assert slow.draft(key).status_code == 429
        assert len(list(lines)) > 1
    assert slow.draft(key).status_code == 200


def test_a_client_that_leaves_gives_its_place_back(slow: Server) -> None:
    key = slow.key(concurrent=1)
    body = b'{"post": {"text": "I can not sleep."}, "stream": true}'
    head = ["POST /v1/generate HTTP/1.1", "Host: x", "Content-Type: application/json", f"Content-Length: {len(body)}"]
    for _ in range(3):
        connection = slow.connect()
        connection.sendall("\r\n".join([*head, f"Authorization: Bearer {key}", "", ""]).encode() + body)
        assert connection.recv(15) == b"HTTP/1.1 200 OK"
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")  # leave with a reset
        connection.close()
        end = time.monotonic() + 10
        while slow.draft(key).status_code == 429:
            assert time.monotonic() < end
            time.sleep(0.02)


def test_the_openai_client_reads_our_refusals(server: Server) -> None:
    def client(key: str) -> openai.OpenAI:
        return openai.OpenAI(base_url=f"http://127.0.0.1:{server.port}/v1", api_key=key, max_retries=0)

    def ask(key: str) -> None:
        client(key).chat.completions.create(model="llumi-gm", messages=CHAT)

    with pytest.raises(openai.AuthenticationError) as unknown:
        ask("wrong")
    assert unknown.value.code == "invalid_api_key"
    with pytest.raises(openai.PermissionDeniedError) as forbidden:
        ask(server.key("models"))
    assert forbidden.value.code == "insufficient_scope"
    key = server.key(requests_per_minute=1)
    ask(key)
    with pytest.raises(openai.RateLimitError) as limited:
        ask(key)
    assert limited.value.code == "rate_limit_exceeded"


def test_what_is_open_is_not_limited(tmp_path: Path) -> None:
    narrow = ["serving.access.requests_per_minute=1", "serving.access.concurrent=1", "serving.playground=true"]
    with running(tmp_path, *narrow) as server:
        key = server.key()
        assert [server.draft(key).status_code for _ in range(2)] == [200, 429]
        for path in ("/healthz", "/"):
            assert [server.ask("GET", path, key).status_code for _ in range(4)] == [200] * 4
