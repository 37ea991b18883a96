"""HAProxy as the service starts it: headers that do not end, or come too slowly, get no further than it."""

import socket
import time

import pytest

from serving import haproxy
from tests.serving.test_haproxy import proxy

__all__ = ["proxy"]


@pytest.fixture(scope="module", autouse=True)
def impatient() -> pytest.MonkeyPatch:  # type: ignore[misc]
    """Headers have one second, so that the test need not wait for ten."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(haproxy, "REQUEST_S", 1)
        yield patch  # type: ignore[misc]


def connect(ports: dict[str, int]) -> socket.socket:
    return socket.create_connection(("127.0.0.1", ports["port"]), timeout=20)


def received(connection: socket.socket) -> bytes:
    try:
        return b"".join(iter(lambda: connection.recv(65536), b""))
    except ConnectionResetError:
        return b""


def test_headers_that_trickle_are_given_up(proxy: tuple[str, dict[str, int]]) -> None:
    waiting = [connect(proxy[1]) for _ in range(20)]
    try:
        for number, connection in enumerate(waiting):
            connection.sendall(b"POST /app/v1/generate HTTP/1.1\r\nHost: x\r\nX-" + b"a" * number)
        for connection in waiting:
            assert received(connection).startswith(b"HTTP/1.1 408")
    finally:
        for connection in waiting:
            connection.close()


def test_a_letter_now_and_then_buys_no_time(proxy: tuple[str, dict[str, int]]) -> None:
    with connect(proxy[1]) as connection:
        connection.sendall(b"GET /app HTTP/1.1\r\nX-Long: ")
        connection.settimeout(0.1)
        end, answer = time.monotonic() + 15, b""
        while not answer:
            assert time.monotonic() < end
            connection.sendall(b"a")
            try:
                answer = connection.recv(65536)
            except TimeoutError:
                continue
    assert answer.startswith(b"HTTP/1.1 408")


def test_headers_without_an_end_are_cut_off(proxy: tuple[str, dict[str, int]]) -> None:
    with connect(proxy[1]) as connection:
        connection.sendall(b"GET /app HTTP/1.1\r\nX-Long: ")
        taken = 0
        try:
            while taken < 50_000_000:
                connection.sendall(b"a" * 100_000)
                taken += 100_000
        except OSError:
            pass
    assert taken < 10_000_000
