"""`llumi serve` as a user starts it, with keys: behind HAProxy with two ingress replicas, and with HTTPS."""

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from configs.access import ORDINARY, TlsSettings
from configs.load import load
from configs.serving import ServingSettings
from serving import haproxy
from serving.access import keys
from serving.access.tls import own_context
from serving.app import ModelPaths
from tests.ports import free_port
from tests.serving.access.certificates import make
from tests.serving.access.server import POST, error_of, status_of
from tests.serving.conftest import GUARDS

pytestmark = pytest.mark.slow
START_S = 150


@dataclass
class Served:
    """A service in a process of its own."""

    port: int
    keys_file: Path
    process: psutil.Process
    verify: Any = True

    @property
    def url(self) -> str:
        return f"http{'' if self.verify is True else 's'}://127.0.0.1:{self.port}"

    def key(self, **options: Any) -> str:
        return keys.create(self.keys_file, "test", ORDINARY, **options)[0]

    def draft(self, key: str | None = None) -> httpx.Response:
        """Over a connection of its own, so that any ingress replica may get it."""
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        url = f"{self.url}/v1/generate"
        return httpx.post(url, json={"post": POST}, headers=headers, timeout=60, trust_env=False, verify=self.verify)

    def listening(self) -> set[tuple[str, int]]:
        """Where its processes take connections."""
        found = set()
        for process in [self.process, *self.process.children(recursive=True)]:
            try:
                found |= {c.laddr[:2] for c in process.net_connections("tcp") if c.status == psutil.CONN_LISTEN}
            except psutil.Error:
                continue
        return found


@contextmanager
def started(folder: Path, models: ModelPaths, *overrides: str) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """`llumi serve demo` and its port; told to end, which it does well, when the block ends."""
    port = free_port()
    given = [
        f"output={folder}", f"serving.port={port}", f"serving.topology.locations={{gm: {models.gm}, im: {models.im}}}",
        "generation.max_new_tokens=8", "cluster.cpus=4", "serving.drain_s=1",
        f"serving.safety.without={json.dumps(GUARDS)}", *overrides,
    ]  # fmt: skip
    options = [part for override in given for part in ("--set", override)]
    environment = {k: v for k, v in os.environ.items() if not k.startswith("RAY_SERVE_")}
    with (folder / "log").open("w") as log:
        command = [sys.executable, "-m", "cluster.cli", "serve", "demo", *options]
        process = subprocess.Popen(command, stdout=log, stderr=log, env=environment)
    try:
        yield process, port
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0, (folder / "log").read_text()


@contextmanager
def llumi_serve(folder: Path, models: ModelPaths, *overrides: str, verify: Any = True) -> Iterator[Served]:
    """`llumi serve demo`, up, until the block ends."""
    with started(folder, models, *overrides) as (process, port):
        served = Served(port, folder / "serving" / "keys.json", psutil.Process(process.pid), verify)
        until_up(served, process, folder / "log")
        yield served


def until_up(served: Served, process: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + START_S
    while True:
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < end, log.read_text()
        try:
            if httpx.get(f"{served.url}/healthz", trust_env=False, verify=served.verify).status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.5)


@pytest.fixture(scope="module")
def served(models: ModelPaths, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """Two ingress replicas behind HAProxy."""
    if why := haproxy.hindrance(load("demo").serving):
        pytest.skip(why)
    two = ["serving.ingress.min_replicas=2", "serving.ingress.max_replicas=2"]
    with llumi_serve(tmp_path_factory.mktemp("keys"), models, *two) as found:
        yield found


def test_only_a_key_opens_and_a_revoked_one_no_more(served: Served) -> None:
    key = served.key()
    assert served.draft(key).status_code == 200
    for nobody in (None, "wrong", key[:-1]):
        refused = served.draft(nobody)
        assert (refused.status_code, refused.json()["error"]["type"]) == (401, "authentication_error")
        assert refused.headers["www-authenticate"].startswith("Bearer")
    keys.revoke(served.keys_file, key.split("_")[1])
    end = time.monotonic() + 20
    while served.draft(key).status_code == 200:
        assert time.monotonic() < end
        time.sleep(0.2)
    time.sleep(1.5)  # the other replica has looked by then
    assert {served.draft(key).status_code for _ in range(6)} == {401}


def test_two_ingress_replicas_keep_one_limit(served: Served) -> None:
    key = served.key(requests_per_minute=8)
    answers = []
    for _ in range(20):
        answers.append(served.draft(key))
        time.sleep(0.2)  # the replicas tell each other meanwhile
    taken = [answer.status_code for answer in answers].count(200)
    assert {answer.status_code for answer in answers} == {200, 429}
    assert taken in (8, 9)  # each by itself would take 16; one may slip in before they told each other
    assert all(1 <= int(answer.headers["retry-after"]) <= 60 for answer in answers if answer.status_code == 429)


ASKED = [("POST", "/v1/generate"), ("POST", "/v1/improve"), ("POST", "/"), ("GET", "/v1/models"), ("GET", "/docs")]
METRICS = b"# HELP"
"""How Ray's own metrics begin, which answer at any path and hold no text."""


def test_no_other_port_lets_anybody_in(served: Served) -> None:
    # With HAProxy the replicas of gm and im have ports of their own too: Serve opens one for every application.
    ports = served.listening()
    assert ("127.0.0.1", served.port) in ports
    answered, opened = 0, []
    for host, port in ports:
        at = "127.0.0.1" if host in ("0.0.0.0", "::", "") else host
        for method, path in ASKED:
            try:
                connection = http.client.HTTPConnection(at, port, timeout=2)
                connection.request(method, path, json.dumps({"post": POST}))
                answer = connection.getresponse()
                body = answer.read(200)
            except (OSError, http.client.HTTPException):
                continue
            answered += 1
            if answer.status == 200 and not body.startswith(METRICS):
                opened.append((host, port, method, path, body))
    assert not opened
    assert answered > len(ASKED)  # the service and more than it
    assert httpx.get(f"{served.url}/-/routes", trust_env=False).status_code == 404
    # The service itself is for this machine only, whichever of its processes takes a request.
    ours = {(host, port) for host, port in ports if port == served.port or answers_health(port)}
    assert {host for host, _ in ours} == {"127.0.0.1"}
    assert len(ours) >= 3  # HAProxy and two replicas


def answers_health(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/healthz", timeout=2, trust_env=False).json() == {"status": "ok"}
    except (httpx.HTTPError, ValueError):
        return False


def test_websockets_and_upgrades_get_nowhere(served: Served) -> None:
    upgrade = ["Upgrade: websocket", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", "Sec-WebSocket-Version: 13"]
    for auth in ([], [f"Authorization: Bearer {served.key()}"]):
        with socket.create_connection(("127.0.0.1", served.port), timeout=20) as connection:
            head = ["GET /v1/generate HTTP/1.1", "Host: x", "Connection: Upgrade", *upgrade, *auth, "", ""]
            connection.sendall("\r\n".join(head).encode())
            assert status_of(connection.recv(4096)) in (403, 401, 405)


def test_200_megabytes_are_refused_and_never_held(served: Served) -> None:
    processes = [served.process, *served.process.children(recursive=True)]

    def memory() -> int:
        return sum(process.memory_info().rss for process in processes if process.is_running())

    for auth, expected in (([], 401), ([f"Authorization: Bearer {served.key()}"], 413)):
        before = memory()
        with socket.create_connection(("127.0.0.1", served.port), timeout=20) as connection:
            head = ["POST /v1/generate HTTP/1.1", "Host: x", "Content-Length: 200000000", *auth, "", ""]
            connection.sendall("\r\n".join(head).encode())
            try:
                for _ in range(200):
                    connection.sendall(b" " * 1_000_000)
            except OSError:
                pass
            grown = memory() - before
            answer = b""
            try:
                while b"}" not in answer and (part := connection.recv(65536)):
                    answer += part
            except ConnectionResetError:
                pass
        assert status_of(answer) in (expected, 0)
        assert grown < 100_000_000


def test_spellings_of_a_path_get_nobody_past_the_gate(served: Served) -> None:
    for path in ("//v1/generate", "/v1//generate", "/healthz/../v1/generate", "/v1/%67enerate", "/-/../v1/generate",
                 "/-/healthz/../../v1/generate", "/v1/generate/", "http://127.0.0.1/v1/generate"):  # fmt: skip
        with socket.create_connection(("127.0.0.1", served.port), timeout=20) as connection:
            head = [f"POST {path} HTTP/1.1", "Host: x", "Content-Length: 0", "Connection: close", "", ""]
            connection.sendall("\r\n".join(head).encode())
            answer = b"".join(iter(lambda: connection.recv(65536), b""))
        assert status_of(answer) in (400, 401, 404), path
        if status_of(answer) == 401:
            assert error_of(answer)["code"] == "missing_api_key"


def test_https_is_served_by_the_configured_certificate(models: ModelPaths, tmp_path: Path) -> None:
    certificate, key_file = make(tmp_path / "tls")
    serving = ServingSettings(tls=TlsSettings(certificate=str(certificate), key=str(key_file)))
    tls = f"serving.tls={{certificate: {certificate}, key: {key_file}}}"
    with llumi_serve(tmp_path, models, tls, verify=own_context(serving)) as served:
        assert served.draft(served.key()).status_code == 200
        assert served.draft().status_code == 401
        with pytest.raises(httpx.TransportError):
            httpx.post(f"http://127.0.0.1:{served.port}/v1/generate", json={"post": POST}, trust_env=False)
        assert {host for host, port in served.listening() if port == served.port} == {"127.0.0.1"}


def test_told_to_end_while_it_starts_it_takes_everything_down(models: ModelPaths, tmp_path: Path) -> None:
    with started(tmp_path, models) as (process, _):
        family = psutil.Process(process.pid)
        end = time.monotonic() + START_S
        while not any("ServeReplica" in " ".join(command(child)) for child in family.children(recursive=True)):
            assert process.poll() is None and time.monotonic() < end, (tmp_path / "log").read_text()
            time.sleep(0.1)
        children = family.children(recursive=True)
    _, left = psutil.wait_procs(children, timeout=10)
    assert not [process for process in left if process.status() != psutil.STATUS_ZOMBIE]
    assert "Traceback" not in (tmp_path / "log").read_text()


def command(process: psutil.Process) -> list[str]:
    """Empty where it ended meanwhile."""
    try:
        return process.cmdline()
    except psutil.Error:
        return []
