"""What dies under load, and what becomes of every request: sent = answered + refused by name.

A client whose own connection dies has to ask again, as OpenAI's client does by itself: so clients are
patient where the ingress, the proxy or a node is killed. What was streamed to it in part cannot be
taken back, and is counted as cut. Where a model's replica dies, no client needs to do anything.
"""

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from configs.settings import Settings
from serving import rollout, service
from serving.app import ModelPaths
from serving.arguments import APP
from tests.pipelines.generation.tiny import make
from tests.ports import free_port
from tests.serving.conftest import settings_for
from tests.serving.load import Load
from tests.serving.processes import processes

pytestmark = pytest.mark.slow
TWO = [f"serving.{name}.{limit}_replicas=2" for name in ("ingress", "gm", "im") for limit in ("min", "max")]
SMALL = [f"serving.{name}.cpus=0.2" for name in ("gm", "im")]


@pytest.fixture(scope="module")
def running(ray_cluster: None, models: ModelPaths, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    """The service with two replicas of everything."""
    settings = settings_for(free_port(), tmp_path_factory.mktemp("chaos"), *TWO, *SMALL, "serving.drain_s=5")
    service.start(settings, models)
    yield settings
    service.stop()


def url(settings: Settings) -> str:
    return f"http://127.0.0.1:{settings.serving.port}"


def until(condition: Callable[[], bool], seconds: float = 90) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "did not come true in time"
        time.sleep(0.2)


@pytest.mark.parametrize("model", ["gm", "im"])
def test_a_models_replica_may_die_and_no_client_notices_before_its_first_byte(running: Settings, model: str) -> None:
    title = f"ServeReplica:llumi-{model}:{model}"
    with Load(url(running), clients=4) as load:
        for _ in range(2):
            load.wait(10)
            before = processes(title)
            assert len(before) == 2
            before[0].kill()
            load.wait(10)
            until(lambda: len(processes(title)) == 2)
    account = load.account
    assert account.balanced()
    assert not account.lost, account
    # Streams that were under way at the kill end with an error event; nothing else may be refused.
    assert set(account.refused) <= {"200 unavailable"}, account
    assert account.refused.total() <= 4


def test_all_replicas_of_a_model_may_die_and_requests_wait_for_the_next_one(running: Settings) -> None:
    title = "ServeReplica:llumi-im:im"
    with Load(url(running), clients=4, kinds=("improve",)) as load:
        load.wait(10)
        for process in processes(title):
            process.kill()
        assert httpx.get(f"{url(running)}/healthz", timeout=30, trust_env=False).status_code == 503
        load.wait(20, seconds=90)
    account = load.account
    assert account.balanced()
    assert not account.lost, account
    # Who is asked once more may meet the other dead one.
    assert set(account.refused) <= {"503 unavailable"} and account.refused.total() <= 4, account
    assert max(account.seconds) > 2  # until one was loaded
    until(lambda: service.running_replicas("llumi-im", "im") == 2)


def test_an_ingress_replica_may_die(running: Settings) -> None:
    with Load(url(running), clients=4, patience=5) as load:
        load.wait(10)
        before = processes("ServeReplica:llumi:ingress")
        assert len(before) == 2
        before[0].kill()
        load.wait(20)
        until(lambda: len(processes("ServeReplica:llumi:ingress")) == 2)
        load.wait(10)
    account = load.account
    assert account.balanced()
    assert not [name for name in account.lost if not name.startswith("cut")], account
    assert account.lost.total() + account.asked_again.total() <= 8, account


def test_the_proxy_may_die(running: Settings) -> None:
    with Load(url(running), clients=4, patience=8) as load:
        load.wait(10)
        before = processes("haproxy.cfg", "ProxyActor")
        assert before
        for process in before:
            process.kill()
        load.wait(20, seconds=120)
    account = load.account
    assert account.balanced()
    assert not [name for name in account.lost if not name.startswith("cut")], account


def test_a_hung_replica_is_replaced(running: Settings) -> None:
    """Its process lives and answers nothing: Serve's health checks run out."""
    title = "ServeReplica:llumi-im:im"
    before = processes(title)
    before[0].suspend()
    try:
        until(lambda: before[0].pid not in {process.pid for process in processes(title)}, 120)
        until(lambda: len(processes(title)) == 2)
    finally:
        if before[0].is_running():
            before[0].kill()
    with Load(url(running), clients=2, kinds=("improve",)) as load:
        load.wait(6)
    assert not load.account.lost


def test_a_new_version_comes_and_goes_without_a_lost_request(
    running: Settings, models: ModelPaths, tmp_path: Path
) -> None:
    new = str(make(tmp_path / "new", positions=8192, endless=True))

    def step(make_steps: Callable[[rollout.Document], list[rollout.Step]]) -> None:
        before = service.deployed()
        rollout.run(make_steps(before), "gm", before, 120)

    pids = {process.pid for process in processes("ServeReplica")}
    with Load(url(running), clients=4, kinds=("generate", "stream", "improve")) as load:
        load.wait(5)
        step(lambda document: rollout.started(document, "gm", new, 0.5))
        assert pids <= {process.pid for process in processes("ServeReplica")}
        load.account.versions.clear()
        load.wait(30)
        divided = dict(load.account.versions)
        (canary,) = (process.pid for process in processes("ServeReplica:llumi-gm-canary"))
        step(lambda document: rollout.promoted(document, "gm", 2))
        assert canary in {process.pid for process in processes("ServeReplica")}, "the new version was loaded again"
        load.wait(6)
        load.account.versions.clear()
        load.wait(12)
        promoted = dict(load.account.versions)
        started = time.monotonic()
        step(lambda document: rollout.taken_back(document, "gm"))
        took = time.monotonic() - started
        load.wait(6)
        load.account.versions.clear()
        load.wait(12)
        back = dict(load.account.versions)
        assert pids <= {process.pid for process in processes("ServeReplica")}, "a share restarted something"
        step(lambda document: rollout.promoted(document, "gm", 2))
        step(lambda document: rollout.finished(document, "gm"))
        load.wait(6)
        load.account.versions.clear()
        load.wait(12)
        finished = dict(load.account.versions)
    account = load.account
    assert account.balanced()
    assert not account.lost and not account.refused, account
    assert len(divided) == 2 and len(promoted) == 1 and len(back) == 1
    assert set(promoted) != set(back) and set(divided) == set(promoted) | set(back)
    assert finished.keys() == promoted.keys()
    assert took < 30
    routes = rollout.standing(service.deployed())["gm"]
    assert [(route.share, route.info["path"]) for route in routes] == [(1.0, new)]
    until(lambda: not processes("ServeReplica:llumi-gm-canary"))  # they drain
    assert service.running_replicas(APP, "ingress") == 2


def test_a_version_that_cannot_be_loaded_changes_nothing(running: Settings, tmp_path: Path) -> None:
    from configs.errors import EngineError

    broken = make(tmp_path / "broken", positions=8192)
    (broken / "model.safetensors").write_bytes(b"cut off")
    before = service.deployed()
    with Load(url(running), clients=2) as load:
        with pytest.raises(EngineError, match="runs on"):
            rollout.run(rollout.started(before, "gm", str(broken), 0.5), "gm", before, 240)
        load.wait(5)
    assert not load.account.lost and not load.account.refused, load.account
    assert rollout.standing(service.deployed()) == rollout.standing(before)


def test_more_than_the_service_takes_is_refused_by_name_and_the_rest_answered(running: Settings) -> None:
    with Load(url(running), clients=60, kinds=("generate",)) as load:
        load.wait(60, seconds=120)
    account = load.account
    assert account.balanced()
    assert not account.lost, account
    assert set(account.refused) <= {"503 overloaded"}, account
