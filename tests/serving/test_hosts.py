"""The service over several hosts, of which one goes: what is left answers, and every request is accounted for.

Each host is a network namespace with a Ray node and a proxy of its own; replicas are spread, one of
each deployment a host. Clients ask the proxy of a host that stays, as behind a load balancer.
"""

import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from configs.access import ORDINARY
from configs.load import load, to_yaml
from configs.settings import Settings
from serving import haproxy
from serving.access import keys
from serving.access.place import keys_file
from serving.app import ModelPaths
from tests.hosts import BIN, Host, missing, network
from tests.serving.conftest import settings_for
from tests.serving.load import Account, Load

pytestmark = pytest.mark.slow
PORT = 8000
DEPLOYMENTS = ("ServeReplica:llumi:ingress", "ServeReplica:llumi-gm:gm", "ServeReplica:llumi-im:im")
SPREAD = [
    f"serving.{name}.{option}"
    for name in ("ingress", "gm", "im")
    for option in ("min_replicas=2", "max_replicas=2", "max_replicas_per_node=1", "cpus=0.2")
]
OPEN = ["serving.host=0.0.0.0", "serving.auth=keys", "serving.access.requests_per_minute=null"]
OTHERS = ["serving.access.concurrent=null", "serving.feedback.enabled=false"]


@dataclass
class Served:
    """`llumi serve` on the head's host, with replicas on other hosts."""

    head: Host
    hosts: list[Host]
    spare: list[Host]
    config: Path
    key: str
    process: subprocess.Popen[bytes]
    log: Path

    def load(self, patience: int = 0) -> Load:
        return Load(f"http://127.0.0.1:{PORT}", clients=4, key=self.key, patience=patience)

    def whole(self) -> bool:
        """Whether each of the hosts has a replica of everything, all of them ready, and the head none."""
        assert self.process.poll() is None, self.log.read_text()
        assert not self.head.running("ServeReplica")
        there = all(host.running(title) for host in self.hosts for title in DEPLOYMENTS)
        return there and self.head.run([str(BIN / "llumi"), "status", str(self.config)]).returncode == 0


def until(condition: Callable[[], bool], what: str, seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"not in time: {what}"
        time.sleep(0.5)


def healthy() -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{PORT}/healthz", timeout=10, trust_env=False).status_code == 200
    except httpx.TransportError:
        return False


def join(host: Host, head: Host | None = None) -> None:
    """A Ray node with HAProxy, where that runs."""
    if not haproxy.hindrance(load("demo").serving):
        host.env |= haproxy.environment(haproxy.binary())
    host.start_ray(head, cpus=0 if head is None else 2)


def configured(folder: Path, models: ModelPaths, head: Host) -> tuple[Settings, Path]:
    """Settings of the service on these hosts, and their file."""
    locations = f"serving.topology.locations={{gm: {models.gm}, im: {models.im}}}"
    settings = settings_for(PORT, folder / "output", locations, *SPREAD, *OPEN, *OTHERS)
    cluster = settings.cluster.model_copy(update={"address": head.gcs()})
    config = folder / "settings.yaml"
    config.write_text(to_yaml(settings.model_copy(update={"cluster": cluster})))
    return settings, config


@pytest.fixture(scope="module")
def served(models: ModelPaths, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """The service over a head, which has no CPU for a replica, and two other hosts."""
    if reason := missing():
        pytest.skip(reason)
    folder = tmp_path_factory.mktemp("hosts")
    with network(5) as (head, first, second, third, fourth):
        join(head)
        for host in (first, second):
            join(host, head)
        settings, config = configured(folder, models, head)
        key, _ = keys.create(keys_file(settings), "test", ORDINARY)
        log = folder / "serve.log"
        process = head.start([str(BIN / "llumi"), "serve", str(config)], log)
        found = Served(head, [first, second], [third, fourth], config, key, process, log)
        until(found.whole, "replicas on every host", 240)
        for host in found.hosts:
            with host.inside():
                until(healthy, f"an answer at {host.address}")
        yield found


def unharmed(account: Account, *names: str) -> None:
    """Nothing is lost or refused but streams that were under way, and by these names what one host was asked."""
    assert account.balanced()
    assert not [name for name in account.lost if not name.startswith("cut")], account
    assert set(account.refused) <= {"200 unavailable", *names}, account
    assert account.lost.total() + account.refused.total() <= 4, account


def replaced(service: Served) -> None:
    """A new host takes the place of the one that went, and answers like the other."""
    join(service.spare[0], service.head)
    service.hosts[1] = service.spare.pop(0)
    until(service.whole, "replicas on the new host", 240)
    with service.hosts[1].inside():
        until(healthy, "an answer at the new host")
        with service.load() as load:
            load.wait(20)
    assert not load.account.lost and not load.account.refused, load.account


def test_a_host_dies_and_the_rest_answers_until_another_takes_its_place(served: Served) -> None:
    stays, goes = served.hosts
    with stays.inside(), served.load(patience=7) as load:
        load.wait(20)
        goes.crash()
        load.wait(30, 120)
        until(healthy, "health after a host died")
        refused = load.account.refused.total()
        load.wait(20)
        assert load.account.refused.total() == refused, load.account
        replaced(served)
        load.wait(20)
    unharmed(load.account)


def test_a_host_is_cut_off_and_the_rest_answers_until_another_takes_its_place(served: Served) -> None:
    """Nothing says that it is gone: what its replicas were asked just then may have no answer in time."""
    stays, goes = served.hosts
    with stays.inside(), served.load(patience=7) as load:
        load.wait(20)
        goes.partition()
        load.wait(30, 180)
        until(healthy, "health after a host was cut off")
        replaced(served)
        load.wait(20)
    unharmed(load.account, "504 timeout")


def test_the_head_takes_the_service_with_it(served: Served) -> None:
    stays = served.hosts[0]
    served.head.crash()
    with stays.inside():
        assert healthy()  # for as long as the node waits for its head
        until(lambda: not stays.running_ray(), "the node's end without its head", 60)
        until(lambda: not healthy(), "the end of the service", 30)
