"""Several hosts on one machine: a network namespace each, joined by a switch in one of its own.

Nothing is shared but files: a host has its own loopback, interface, address and ports, and a
Ray node of its own with its own folder. Killing all processes of a namespace is the crash of
a host, taking its port of the switch down is a partition. All namespaces have unique names
and are removed with everything in them; those of others are never touched.

Needs root and Linux's ``ip``: ``missing()`` says what is not there.
"""

import ctypes
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TextIO

START_S = 90
BIN = Path(sys.executable).parent
SOON = {
    "RAY_health_check_initial_delay_ms": "1000",
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "2000",
    "RAY_health_check_failure_threshold": "3",
    "RAY_gcs_rpc_server_reconnect_timeout_s": "10",
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "30",
}
"""A lost node is noticed in seconds; Ray takes its time by default, since busy machines answer late."""
ALIVE = """
import json, sys
from ray._private.state import GlobalState
from ray._raylet import GcsClientOptions
state = GlobalState()
state._initialize_global_state(GcsClientOptions.create(sys.argv[1], None, True, True))
print(json.dumps([node for node in state.node_table() if node["Alive"]]))
"""
"""Looks at a cluster without a driver, which would have to stand on a living node."""


def missing() -> str | None:
    """Why hosts cannot be made here, None where they can."""
    if not sys.platform.startswith("linux"):
        return "network namespaces are Linux's"
    if os.geteuid() != 0:
        return "network namespaces need root"
    if shutil.which("ip") is None:
        return "no `ip` command: install iproute2"
    probe = f"llumi-probe-{secrets.token_hex(3)}"
    made = subprocess.run(["ip", "netns", "add", probe], capture_output=True, text=True, check=False)
    if made.returncode:
        return f"no network namespaces here: {made.stderr.strip()}"
    ip("netns", "del", probe)
    return None


def ip(*words: str) -> str:
    """Run ``ip`` and return what it prints."""
    return subprocess.run(["ip", *words], capture_output=True, text=True, check=True).stdout


def enter(namespace: TextIO) -> None:
    """Have this thread's network be that of an open namespace."""
    if ctypes.CDLL(None).setns(namespace.fileno(), 0):
        raise OSError("this thread cannot enter a network namespace")


class Host:
    """A namespace with an address of its own, and the Ray node in it."""

    def __init__(self, network: "Network", number: int):
        self.network = network
        self.name = f"{network.name}-{number}"
        self.address, self.address6 = f"10.77.0.{number}", f"fd77::{number}"
        self.port = f"port{number}"
        self.folder = network.folder / str(number)
        self.env = network.env | {"RAY_TMPDIR": str(self.folder)}
        ip("netns", "add", self.name)
        self.ip("link", "set", "lo", "up")
        ip("-n", network.name, *f"link add {self.port} type veth peer name eth0 netns {self.name}".split())
        ip("-n", network.name, "link", "set", self.port, "master", "switch", "up")
        self.ip("addr", "add", f"{self.address}/24", "dev", "eth0")
        self.ip("addr", "add", f"{self.address6}/64", "dev", "eth0", "nodad")
        self.ip("link", "set", "eth0", "up")

    def ip(self, *words: str) -> str:
        """``ip`` inside the host."""
        return ip("-n", self.name, *words)

    def start(self, command: Sequence[str], log: Path, env: Mapping[str, str] | None = None) -> subprocess.Popen[bytes]:
        """Start a command on this host; ``env`` comes on top of the host's."""
        with log.open("ab") as out:
            return subprocess.Popen(
                ["ip", "netns", "exec", self.name, *command],
                env=self.env | dict(env or {}),
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def run(self, command: Sequence[str], env: Mapping[str, str] | None = None, timeout: float = 120) -> Any:
        """Run a command on this host to its end; returns the completed process with its texts."""
        words, given = ["ip", "netns", "exec", self.name, *command], self.env | dict(env or {})
        return subprocess.run(words, env=given, capture_output=True, text=True, check=False, timeout=timeout)

    def python(self, code: str, *words: str, env: Mapping[str, str] | None = None, timeout: float = 120) -> Any:
        """Run Python code on this host to its end."""
        return self.run([sys.executable, "-c", code, *words], env, timeout)

    def start_ray(
        self, head: "Host | None" = None, *, cpus: int = 1, labels: str = "", six: bool = False, wait: bool = True
    ) -> None:
        """Start this host's Ray node: a head, or one that joins ``head``'s cluster; waits until it is there."""
        self.folder.mkdir(exist_ok=True)
        address = self.address6 if six else self.address
        words = ["--block", "--disable-usage-stats", f"--num-cpus={cpus}", "--object-store-memory=100000000"]
        words += [f"--node-ip-address={address}", f"--temp-dir={self.folder}"]
        words += [f"--labels={labels}"] if labels else []
        if head is None:
            words += ["--head", "--port=6379", "--include-dashboard=false"]
        else:
            words += [f"--address={head.gcs(six)}"]
        before = {node["NodeID"] for node in head.nodes(six)} if head else set()
        log = self.network.folder / f"{self.port}.log"
        process = self.start([str(BIN / "ray"), "start", *words], log)
        if wait:
            self.wait(process, log, head or self, six, before)

    @contextmanager
    def inside(self) -> Iterator[None]:
        """This thread, and threads that it starts, connect from this host while the block runs."""
        with Path("/proc/thread-self/ns/net").open() as before, Path(f"/run/netns/{self.name}").open() as there:
            enter(there)
            try:
                yield
            finally:
                enter(before)

    def gcs(self, six: bool = False) -> str:
        """Address of the cluster whose head this host is."""
        return f"[{self.address6}]:6379" if six else f"{self.address}:6379"

    def wait(
        self, process: subprocess.Popen[bytes], log: Path, head: "Host", six: bool, before: Collection[str]
    ) -> None:
        """Until the head lists a node of this host that was not there ``before``.

        `ray start` itself may wait for ever, and a node that just crashed is listed for a while.
        """
        deadline, address = time.monotonic() + START_S, self.address6 if six else self.address
        while not any(n["NodeManagerAddress"] == address and n["NodeID"] not in before for n in head.nodes(six)):
            told = log.read_text(errors="replace")[-2000:]
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"no Ray node at {address}: {told}")
            time.sleep(0.2)

    def nodes(self, six: bool = False) -> list[dict[str, Any]]:
        """The living nodes of the cluster whose head this host is; none where it does not answer."""
        shown = self.python(ALIVE, self.gcs(six))
        return json.loads(shown.stdout.splitlines()[-1]) if shown.returncode == 0 else []

    def pids(self) -> list[int]:
        """All processes of this host."""
        return [int(pid) for pid in ip("netns", "pids", self.name).split()]

    def running(self, title: str) -> int:
        """Processes of this host whose title or command holds these words."""
        lines = [Path(f"/proc/{pid}/cmdline") for pid in self.pids()]
        return sum(title in line.read_text(errors="replace") for line in lines if line.exists())

    def running_ray(self) -> bool:
        """Whether this host's raylet lives."""
        return self.running("raylet/raylet") > 0

    def second_network(self) -> None:
        """Another interface, eth1, on a switch that Ray knows nothing of."""
        port = f"fast{self.port}"
        ip("-n", self.network.name, *f"link add {port} type veth peer name eth1 netns {self.name}".split())
        ip("-n", self.network.name, "link", "set", port, "master", "switch", "up")
        self.ip("addr", "add", f"10.78.0.{self.address.rsplit('.', 1)[1]}/24", "dev", "eth1")
        self.ip("link", "set", "eth1", "up")

    def received(self, interface: str) -> int:
        """Bytes that an interface has received."""
        return int(json.loads(self.ip("-s", "-j", "link", "show", interface))[0]["stats64"]["rx"]["bytes"])

    def crash(self) -> None:
        """Kill every process of this host at once, as a power cut does."""
        while pids := self.pids():
            for pid in pids:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.05)

    def partition(self) -> None:
        """Take the host off the network; its processes live on and hear nothing."""
        ip("-n", self.network.name, "link", "set", self.port, "down")

    def heal(self) -> None:
        """Put the host back on the network."""
        ip("-n", self.network.name, "link", "set", self.port, "up")


class Network:
    """The switch, its hosts, the folder of their Ray nodes, and the environment that all share."""

    def __init__(self) -> None:
        self.name = f"ll{secrets.token_hex(3)}"
        self.folder = Path(tempfile.mkdtemp(prefix="llh", dir="/tmp"))  # short: sockets lie below it
        self.hosts: list[Host] = []
        kept = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
        self.env = kept | SOON | {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
        self.env |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_TRAIN_ENABLE_PRINT_PATCH": "0", "OMP_NUM_THREADS": "1"}
        self.env |= {"HF_HUB_OFFLINE": "1", "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}"}
        ip("netns", "add", self.name)
        ip("-n", self.name, "link", "add", "switch", "type", "bridge")
        ip("-n", self.name, "link", "set", "switch", "up")

    def host(self) -> Host:
        """One more host."""
        self.hosts.append(Host(self, len(self.hosts) + 1))
        return self.hosts[-1]

    def remove(self) -> None:
        """End all processes, remove all namespaces and the folder."""
        for host in self.hosts:
            host.crash()
            ip("netns", "del", host.name)
        ip("netns", "del", self.name)
        shutil.rmtree(self.folder, ignore_errors=True)


@contextmanager
def network(hosts: int) -> Iterator[list[Host]]:
    """So many hosts on one switch, gone with the block."""
    made = Network()
    try:
        yield [made.host() for _ in range(hosts)]
    finally:
        made.remove()
