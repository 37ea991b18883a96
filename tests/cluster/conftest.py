"""A cluster of its own for jobs: with dashboard and token, on its own ports and folder."""

import contextlib
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from tests.ports import free_ports

START_S = 90


@dataclass(frozen=True)
class JobCluster:
    """A running Ray head: where its dashboard is, and the environment that may talk to it."""

    dashboard: str
    env: dict[str, str]


@pytest.fixture(scope="module")
def job_cluster() -> Iterator[JobCluster]:
    """A Ray head with two CPUs, its dashboard and token authentication; ends with the module."""
    folder = Path(tempfile.mkdtemp(prefix="lj", dir="/tmp"))  # short: sockets lie below it
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"  # `python` of a job is found on it
    env = kept | token | {"RAY_TMPDIR": str(folder), "RAY_USAGE_STATS_ENABLED": "0", "PATH": path}
    gcs, dashboard, client, agent, agent_grpc, metrics = free_ports(6)
    command = [
        str(Path(sys.executable).with_name("ray")),
        *("start", "--head", "--block", "--disable-usage-stats", "--num-cpus=2", "--object-store-memory=200000000"),
        *(f"--port={gcs}", f"--ray-client-server-port={client}", f"--metrics-export-port={metrics}"),
        *("--include-dashboard=true", "--dashboard-host=127.0.0.1", f"--dashboard-port={dashboard}"),
        *(f"--dashboard-agent-listen-port={agent}", f"--dashboard-agent-grpc-port={agent_grpc}"),
        f"--temp-dir={folder}",
    ]
    with (folder / "head.log").open("w", encoding="utf-8") as log:
        head = subprocess.Popen(command, env=env, stdout=log, stderr=subprocess.STDOUT, start_new_session=True)
        try:
            url = f"http://127.0.0.1:{dashboard}"
            wait_for_node(url, token["RAY_AUTH_TOKEN"], head, folder / "head.log")
            yield JobCluster(url, env)
        finally:
            end(head)
            shutil.rmtree(folder, ignore_errors=True)


def wait_for_node(url: str, token: str, head: subprocess.Popen[bytes], log: Path) -> None:
    """Wait until the Jobs API answers and the head has joined its own cluster."""
    deadline = time.monotonic() + START_S
    while not (answers(f"{url}/api/jobs/", token) and nodes(url, token)):
        told = log.read_text(encoding="utf-8", errors="replace")[-2000:]
        assert head.poll() is None, f"ray start ended: {told}"
        assert time.monotonic() < deadline, f"no Jobs API with a node at {url} within {START_S} s: {told}"
        time.sleep(0.5)


def nodes(url: str, token: str) -> list[dict[str, object]]:
    """The nodes that are alive, as Ray's state API tells."""
    text = answers(f"{url}/api/v0/nodes?filter_keys=state&filter_predicates=%3D&filter_values=ALIVE", token)
    return json.loads(text)["data"]["result"]["result"] if text else []


def answers(url: str, token: str) -> bytes:
    """The body, empty where nothing answers yet."""
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {token}"})
    try:
        with urllib.request.urlopen(request, timeout=5) as reply:
            return reply.read()
    except (urllib.error.URLError, OSError):
        return b""


def end(head: subprocess.Popen[bytes]) -> None:
    """Stop the head and what it started, and nothing else."""
    if head.poll() is not None:
        return
    started = psutil.Process(head.pid).children(recursive=True)
    head.send_signal(signal.SIGTERM)
    _, left = psutil.wait_procs([psutil.Process(head.pid), *started], timeout=3)
    for process in left:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    head.wait(timeout=10)
