"""Clients that send too much, too slowly, or half: none of them holds the service up."""

import asyncio
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from serving import middleware
from serving.access.counters import MemoryCounters
from serving.middleware import BodyLimit
from serving.wire import ApiError
from tests.serving.access.server import Server, error_of, running, status_of

LIMIT = 100_000
HEAD = ["POST /v1/generate HTTP/1.1", "Host: x", "Content-Type: application/json"]
MEGABYTE = b" " * 1_000_000


@pytest.fixture(scope="module")
def strict(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Takes small bodies, and waits half a second for them."""
    limits = [f"serving.max_body_bytes={LIMIT}", "serving.access.body_timeout_s=0.5", "serving.access.concurrent=4"]
    with running(tmp_path_factory.mktemp("hostile"), *limits) as server:
        yield server


def head(*lines: str) -> bytes:
    return "\r\n".join([*HEAD, *lines, "", ""]).encode()


def sent(connection: socket.socket, megabytes: int) -> int:
    """Send that much, however it is received; how much of it was taken."""
    for number in range(megabytes):
        try:
            connection.sendall(MEGABYTE)
        except OSError:
            return number
    return megabytes


def answer_of(connection: socket.socket) -> bytes:
    """Everything that comes back until the connection or the answer ends."""
    answer = b""
    while b"\r\n\r\n" not in answer or not answer.endswith(b"}"):
        try:
            part = connection.recv(65536)
        except ConnectionResetError:
            break
        if not part:
            break
        answer += part
    return answer


@pytest.mark.parametrize("framing", ["declared", "chunked"])
@pytest.mark.parametrize("who", ["nobody", "a key"])
def test_200_megabytes_are_refused_and_never_held(strict: Server, framing: str, who: str) -> None:
    process = psutil.Process()
    authorization = [f"Authorization: Bearer {strict.key()}"] if who == "a key" else []
    size = 200 * len(MEGABYTE)
    how = f"Content-Length: {size}" if framing == "declared" else "Transfer-Encoding: chunked"
    with strict.connect() as connection:
        connection.sendall(head(how, *authorization))
        if framing == "chunked":
            connection.sendall(f"{size:x}\r\n".encode())
        before = process.memory_info().rss
        sent(connection, 200)
        grown = process.memory_info().rss - before
        answer = answer_of(connection)
    assert status_of(answer) == (413 if who == "a key" else 401)
    assert grown < 20_000_000


def test_the_refusal_of_a_large_body_comes_before_it_is_sent(strict: Server) -> None:
    for authorization, expected in (([], 401), ([f"Authorization: Bearer {strict.key()}"], 413)):
        with strict.connect() as connection:
            connection.sendall(head("Content-Length: 200000000", "Expect: 100-continue", *authorization))
            assert status_of(answer_of(connection)) == expected


def test_a_body_at_the_limit_is_taken_and_one_byte_more_is_not(strict: Server) -> None:
    key = strict.key()
    body = b'{"post": {"text": "I can not sleep."}}'
    for extra, expected in ((0, 200), (1, 413)):
        full = body + b" " * (LIMIT - len(body) + extra)
        answer = strict.ask("POST", "/v1/generate", key, content=full, headers={"content-type": "application/json"})
        assert answer.status_code == expected


def test_a_body_that_trickles_is_given_up_in_time(strict: Server) -> None:
    with strict.connect() as connection:
        connection.sendall(head("Content-Length: 1000", f"Authorization: Bearer {strict.key()}"))
        started = time.monotonic()
        connection.settimeout(0.05)
        answer = b""
        while not answer:
            assert time.monotonic() - started < 10
            connection.sendall(b" ")
            try:
                answer = connection.recv(65536)
            except TimeoutError:
                continue
        connection.settimeout(5)
        assert status_of(answer) == 408
        assert b"connection: close" in answer.lower()
        rest = b"" if answer.endswith(b"}") else answer_of(connection)
        assert error_of(answer + rest)["code"] == "body_timeout"


def test_bodies_that_never_come_hold_nobody_up(strict: Server) -> None:
    waiting = [strict.connect() for _ in range(30)]
    try:
        for connection in waiting:
            connection.sendall(head("Content-Length: 1000", f"Authorization: Bearer {strict.key()}"))
        assert strict.draft(strict.key()).status_code == 200
        statuses = [status_of(answer_of(connection)) for connection in waiting]
    finally:
        for connection in waiting:
            connection.close()
    assert statuses == [408] * 30


def test_one_keys_slow_bodies_take_no_places_of_another(strict: Server) -> None:
    slow, other = strict.key(), strict.key()
    waiting = [strict.connect() for _ in range(6)]
    try:
        for connection in waiting:
            connection.sendall(head("Content-Length: 1000", f"Authorization: Bearer {slow}"))
        time.sleep(0.1)
        assert strict.draft(other).status_code == 200
        statuses = sorted(status_of(answer_of(connection)) for connection in waiting)
    finally:
        for connection in waiting:
            connection.close()
    assert statuses == [408] * 4 + [429] * 2
    assert strict.draft(slow).status_code == 200  # their places are free again


def test_who_has_no_key_gets_no_time_for_a_body(strict: Server) -> None:
    with strict.connect() as connection:
        connection.sendall(head("Content-Length: 1000"))
        assert status_of(answer_of(connection)) == 401


@pytest.mark.parametrize("part", [b"", b'{"post": {"te'])
def test_a_stream_closed_half_way_is_let_go(strict: Server, part: bytes) -> None:
    key = strict.key(concurrent=1)
    before = len(strict.engine.seen)
    with strict.connect() as connection:
        connection.sendall(head("Content-Length: 1000", f"Authorization: Bearer {key}") + part)
        connection.shutdown(socket.SHUT_WR)
        assert status_of(answer_of(connection)) in (0, 400, 408)
    assert strict.draft(key).status_code == 200
    assert len(strict.engine.seen) == before + 1


def test_headers_that_never_end_hold_no_request_up(strict: Server) -> None:
    waiting = [strict.connect() for _ in range(50)]
    try:
        for number, connection in enumerate(waiting):
            connection.sendall(b"POST /v1/generate HTTP/1.1\r\nHost: x\r\nX-" + b"a" * number)
        assert strict.draft(strict.key()).status_code == 200
    finally:
        for connection in waiting:
            connection.close()


def test_what_is_no_http_gets_no_further(strict: Server) -> None:
    for noise in (
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"\0" * 100,
        b"GET\r\n\r\n",
        b"\r\n" * 50 + b"x\r\n\r\n",
    ):
        with strict.connect() as connection:
            connection.sendall(noise)
            connection.shutdown(socket.SHUT_WR)
            assert status_of(answer_of(connection)) in (0, 400)
    assert strict.draft(strict.key()).status_code == 200


def test_nothing_is_remembered_of_callers_that_nobody_knows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    counters = MemoryCounters()
    monkeypatch.setattr(middleware, "counters_of", lambda settings: counters)
    with running(tmp_path) as server:
        for number in range(30):
            assert server.draft(f"llumi_{number:012x}_{'A' * 43}").status_code == 401
        assert not counters.callers
        key = server.key()
        assert server.draft(key).status_code == 200
        assert set(counters.callers) == {key.split("_")[1]}


@pytest.mark.parametrize("declared", ["\xb2", "9" * 5000, "", "-1", "0x10", "1_0"])
def test_a_length_that_is_none_is_refused_though_no_server_should_pass_it_on(declared: str) -> None:
    async def never(*_: object) -> None:
        raise AssertionError("nothing is read or passed on")

    scope = {"type": "http", "headers": [(b"content-length", declared.encode("latin-1"))]}
    with pytest.raises(ApiError) as caught:
        asyncio.run(BodyLimit(never, LIMIT, 1.0)(scope, never, never))  # type: ignore[arg-type]
    assert caught.value.status == 413
