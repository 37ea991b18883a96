"""HAProxy as the service starts it asks another replica where one dies over a request."""

import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from configs.load import load
from serving import haproxy
from tests.ports import free_port

CONFIGURATION = """global
    tune.bufsize {buffer}
defaults
    mode http
    timeout client 5s
    timeout connect 5s
    timeout server 5s
    option redispatch 1
    retry-on {retry_on}
frontend http_frontend
    bind 127.0.0.1:{port}
    default_backend app
backend app
    balance roundrobin
    server dies 127.0.0.1:{dies}
    server lives 127.0.0.1:{lives}
"""
"""The lines of Serve's template that matter here, as ray.serve._private.haproxy_templates has them."""
HEAD = b"POST /v1/generate HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nConnection: close\r\n\r\n"


def replica(answer: bytes) -> tuple[socket.socket, int]:
    """Something that reads each request and answers this; where it is empty it just closes, as one that dies does."""
    server = socket.create_server(("127.0.0.1", 0))

    def run() -> None:
        while True:
            try:
                connection, _ = server.accept()
            except OSError:
                return
            with connection:
                got = b""
                while not got.endswith(b"draft"):
                    got += connection.recv(1000)
                connection.sendall(answer)

    threading.Thread(target=run, daemon=True).start()
    return server, server.getsockname()[1]


@pytest.fixture
def port(tmp_path: Path) -> Iterator[int]:
    """HAProxy before a replica that dies over every request and one that lives."""
    if why := haproxy.hindrance(load("demo").serving):
        pytest.skip(why)
    found = haproxy.environment(haproxy.binary())
    (dying, dies), (living, lives) = replica(b""), replica(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
    port, configuration = free_port(), tmp_path / "haproxy.cfg"
    retries = {"buffer": found["RAY_SERVE_HAPROXY_TUNE_BUFSIZE"], "retry_on": found["RAY_SERVE_HAPROXY_RETRY_ON"]}
    configuration.write_text(CONFIGURATION.format(port=port, dies=dies, lives=lives, **retries))
    process = subprocess.Popen([found["RAY_SERVE_HAPROXY_BINARY_PATH"], "-db", "-f", str(configuration)])
    with closing(dying), closing(living):
        for _ in range(100):
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
            except OSError:
                time.sleep(0.05)
        yield port
        process.terminate()
        process.wait()


def test_a_request_whose_body_comes_after_its_headers_is_asked_again(port: int) -> None:
    for _ in range(4):
        with socket.create_connection(("127.0.0.1", port), timeout=5) as client:
            client.sendall(HEAD)
            time.sleep(0.1)  # the way httpx and the OpenAI client send: in two parts
            client.sendall(b"draft")
            assert client.recv(1000).startswith(b"HTTP/1.1 200")
