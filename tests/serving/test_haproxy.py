"""What is set for HAProxy before Ray starts; that requests go through it is in test_service."""

import os
import resource
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from configs.errors import UsageError
from configs.load import load
from serving import haproxy
from tests.ports import free_port

CONFIGURATION = """global
    maxconn 100
defaults
    mode http
    timeout client 5s
    timeout connect 5s
    timeout server 5s
    errorfile 502 {folder}/500.http
    errorfile 503 {folder}/500.http
frontend prometheus
    bind :{metrics}
    http-request use-service prometheus-exporter if {{ path /metrics }}
frontend http_frontend
    bind 127.0.0.1:{port}
    acl routes path -i /-/routes
    http-request return status 200 content-type application/json string "{{}}" if routes
    acl is_app path_beg /app
    use_backend app if is_app
    default_backend default_backend
backend app
    server gone 127.0.0.1:1
backend default_backend
    http-request return status 404 content-type text/plain lf-string "Path '%[path]' not found."
listen stats
  bind *:{stats}
  stats enable
  stats uri /stats
"""
"""The lines of Serve's template that matter here, as ray.serve._private.haproxy_templates has them."""


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The environment of this process, given back afterwards."""
    for name in [name for name in os.environ if name.startswith("RAY_SERVE_")]:
        monkeypatch.delenv(name)
    for name in haproxy.environment("/bin/true"):
        monkeypatch.delenv(name, raising=False)
    changed = dict(os.environ)
    monkeypatch.setattr(os, "environ", changed)
    return changed


def serving(*overrides: str) -> object:
    return load("demo", [f"serving.{override}" for override in overrides]).serving


def test_it_is_on_where_its_binary_runs(environment: dict[str, str]) -> None:
    if haproxy.hindrance(serving()):
        pytest.skip("HAProxy does not run here")
    assert haproxy.prepare(serving())
    assert environment["RAY_SERVE_ENABLE_HA_PROXY"] == "1"


def test_what_the_environment_says_counts(environment: dict[str, str]) -> None:
    environment["RAY_SERVE_ENABLE_HA_PROXY"] = "0"
    before = dict(environment)
    assert not haproxy.prepare(serving("topology.haproxy=always"))
    assert environment == before


def test_it_can_be_switched_off(environment: dict[str, str]) -> None:
    before = dict(environment)
    assert not haproxy.prepare(serving("topology.haproxy=never"))
    assert environment == before


def test_without_a_binary_that_runs_serves_own_proxy_is_taken_or_the_reason_told(
    environment: dict[str, str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    broken = tmp_path / "haproxy"
    broken.write_text("#!/bin/sh\nexit 127\n")
    broken.chmod(0o700)
    monkeypatch.setattr(haproxy, "binary", lambda: str(broken))
    assert not haproxy.prepare(serving())
    with pytest.raises(UsageError, match="does not run"):
        haproxy.prepare(serving("topology.haproxy=always"))


@pytest.fixture(scope="module")
def proxy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, dict[str, int]]]:
    """HAProxy, started as Serve starts it, and its ports."""
    if why := haproxy.hindrance(load("demo").serving):
        pytest.skip(why)
    folder = tmp_path_factory.mktemp("haproxy")
    found = haproxy.environment(haproxy.binary())
    ports = {name: int(found[f"RAY_SERVE_HAPROXY_{name.upper()}_PORT"]) for name in ("metrics", "stats")}
    ports["port"] = free_port()
    (folder / "500.http").write_text("HTTP/1.1 500 Internal Server Error\r\ncontent-length: 0\r\n\r\n")
    configuration = folder / "haproxy.cfg"
    configuration.write_text(CONFIGURATION.format(folder=folder, **ports))
    command = [found["RAY_SERVE_HAPROXY_BINARY_PATH"], "-db", "-f", str(configuration)]
    checked = subprocess.run([*command, "-c"], capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stderr
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    url = f"http://127.0.0.1:{ports['port']}"
    for _ in range(100):
        try:
            httpx.get(url, trust_env=False)
            break
        except httpx.ConnectError:
            time.sleep(0.05)
    yield url, ports | {"pid": process.pid}
    process.terminate()
    process.wait()


def test_metrics_and_statistics_are_for_this_machine(proxy: tuple[str, dict[str, int]]) -> None:
    _, ports = proxy
    listening = [c for c in psutil.Process(ports["pid"]).net_connections("tcp") if c.status == psutil.CONN_LISTEN]
    assert {(c.laddr.ip, c.laddr.port) for c in listening} == {
        ("127.0.0.1", ports[name]) for name in ("metrics", "stats", "port")
    }
    metrics = httpx.get(f"http://127.0.0.1:{ports['metrics']}/metrics", trust_env=False)
    assert "haproxy_process" in metrics.text


@pytest.mark.parametrize("path", ["/app/anything", "/zebrafish"])
def test_what_no_replica_answers_is_a_503_in_the_apis_form(proxy: tuple[str, dict[str, int]], path: str) -> None:
    answer = httpx.post(f"{proxy[0]}{path}", content=b"zebrafish", trust_env=False)
    assert answer.status_code == 503
    assert answer.json()["error"]["code"] == "unavailable"
    assert int(answer.headers["retry-after"]) >= 1
    assert answer.headers["content-type"] == "application/json"
    assert "zebrafish" not in answer.text


def test_it_does_not_tell_what_runs_behind_it(proxy: tuple[str, dict[str, int]]) -> None:
    assert httpx.get(f"{proxy[0]}/-/routes", trust_env=False).status_code == 404


def test_nobody_else_can_reach_the_admin_socket() -> None:
    found = haproxy.environment("/bin/true")
    folder = Path(found["RAY_SERVE_HAPROXY_SOCKET_PATH"]).parent
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    places = [Path(value) for name, value in found.items() if "/" in value]
    assert all(folder == place or folder in place.parents for place in places)
    node = "f" * 56
    assert len(str(folder / node / "admin.sock")) + len(".1234567.tmp") < 108


@pytest.mark.parametrize(("files", "connections"), [(resource.RLIM_INFINITY, 4096), (20_000, 4096), (4096, 1598)])
def test_it_takes_as_many_connections_as_it_may_open_files(
    monkeypatch: pytest.MonkeyPatch, files: int, connections: int
) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (files, files))
    assert haproxy.connections() == connections


def test_it_starts_with_few_open_files_and_is_left_out_with_fewer(tmp_path: Path) -> None:
    """A machine's limit is a process' own, so another process has it here."""
    code = f"""
import resource, subprocess, sys
from configs.load import load
from serving import haproxy
serving = load("demo").serving
if haproxy.hindrance(serving):
    sys.exit(3)
resource.setrlimit(resource.RLIMIT_NOFILE, (1024, 1024))
config = {str(tmp_path / "some.cfg")!r}
text = "global\\n maxconn %d\\ndefaults\\n mode http\\n timeout client 1s\\n timeout connect 1s\\n timeout server 1s\\n"
frontend = "listen a\\n bind unix@{tmp_path}/s.sock\\n"
for more, ends in ((0, False), (1000, True)):
    open(config, "w").write(text % (haproxy.connections() + more) + frontend)
    process = subprocess.Popen([haproxy.binary(), "-db", "-f", config], stderr=subprocess.DEVNULL)
    try:
        ended = process.wait(2) != 0
    except subprocess.TimeoutExpired:
        ended = False
        process.kill()
    assert ended == ends, (more, ended)
resource.setrlimit(resource.RLIMIT_NOFILE, (300, 300))
assert "open files" in haproxy.hindrance(serving)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    if done.returncode == 3:
        pytest.skip("HAProxy does not run here")
    assert done.returncode == 0, done.stderr
