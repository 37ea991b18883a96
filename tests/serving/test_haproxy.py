"""What is set for HAProxy before Ray starts; that requests go through it is in test_service."""

import os
import stat
import subprocess
from pathlib import Path

import pytest

from configs.errors import UsageError
from configs.load import load
from serving import haproxy

CONFIGURATION = """
frontend prometheus
    bind :{metrics}
frontend http_frontend
    bind 127.0.0.1:8000
frontend open
    bind *:8001
listen stats
  bind *:{stats}
"""


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


def test_metrics_and_statistics_are_bound_to_this_machine_and_nothing_else_is_changed(tmp_path: Path) -> None:
    found = haproxy.environment("/bin/echo")
    ports = {"metrics": found["RAY_SERVE_HAPROXY_METRICS_PORT"], "stats": found["RAY_SERVE_HAPROXY_STATS_PORT"]}
    configuration = tmp_path / "haproxy.cfg"
    configuration.write_text(CONFIGURATION.format(**ports))
    command = [found["RAY_SERVE_HAPROXY_BINARY_PATH"], "-db", "-f", str(configuration)]
    for _ in range(2):  # a configuration may be read twice
        said = subprocess.run(command, capture_output=True, text=True, check=True)
        assert said.stdout == f"-db -f {configuration}\n"
        lines = configuration.read_text().splitlines()
        assert f"    bind 127.0.0.1:{ports['metrics']}" in lines
        assert f"    bind 127.0.0.1:{ports['stats']}" in lines
        assert "    bind 127.0.0.1:8000" in lines and "    bind *:8001" in lines
        assert len(lines) == len(CONFIGURATION.splitlines())


def test_nobody_else_can_reach_the_admin_socket() -> None:
    found = haproxy.environment("/bin/true")
    folder = Path(found["RAY_SERVE_HAPROXY_SOCKET_PATH"]).parent
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    places = [Path(value) for name, value in found.items() if "/" in value]
    assert all(folder == place or folder in place.parents for place in places)
    node = "f" * 56
    assert len(str(folder / node / "admin.sock")) + len(".1234567.tmp") < 108
