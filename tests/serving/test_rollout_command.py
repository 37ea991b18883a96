"""`llumi rollout` as an operator types it, against a service whose models come from a store that speaks S3."""

import json
import logging
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from pipelines.training import delivery
from serving import sources
from serving.app import ModelPaths
from tests.pipelines.generation.tiny import make
from tests.serving.access.test_on_serve import Served, llumi_serve
from tests.serving.load import Load

pytestmark = pytest.mark.slow
WEIGHTS = "model.safetensors"


class Reads(logging.Handler):
    """How often the weights of each model were asked of the store."""

    def __init__(self) -> None:
        super().__init__()
        self.of: Counter[str] = Counter()

    def emit(self, record: logging.LogRecord) -> None:
        if asked := re.search(rf"GET /models/(\w+)/{re.escape(WEIGHTS)}", record.getMessage()):
            self.of[asked[1]] += 1


@dataclass
class Store:
    """A bucket with models."""

    folder: Path
    query: str
    reads: Reads

    def location(self, name: str) -> str:
        return f"s3://models/{name}{self.query}"

    def put(self, name: str, **options: int) -> str:
        """A model as ``llumi export`` leaves it; its location."""
        made = make(self.folder / name, positions=8192, endless=True, **options)
        lineage = {"llumi_export": 1, "model": "gm", "stage": "dpo1", "form": "merged", "name": name}
        (made / "lineage.json").write_text(json.dumps(lineage))
        files = {path.name: path for path in made.iterdir()}
        delivery.deliver(files, delivery.hashes(files), self.location(name))
        self.reads.of.clear()  # what was put there is read again
        return self.location(name)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    boto3 = pytest.importorskip("boto3", reason="the store is moto's")
    server_of = pytest.importorskip("moto.server", reason="the store is moto's")
    words = {"ACCESS_KEY_ID": "test", "SECRET_ACCESS_KEY": "test", "REGION": "us-east-1"}
    server = server_of.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    reads, log = Reads(), logging.getLogger("werkzeug")
    log.addHandler(reads)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {**words, "EC2_METADATA_DISABLED": "true"}.items():
            patch.setenv(f"AWS_{name}", value)
        boto3.client("s3", region_name="us-east-1", endpoint_url=f"http://{host}:{port}").create_bucket(Bucket="models")
        yield Store(tmp_path_factory.mktemp("models"), f"?endpoint_override={host}:{port}&scheme=http", reads)
    log.removeHandler(reads)
    server.stop()


@dataclass
class Operator:
    """Who types `llumi` beside the service."""

    served: Served
    store: Store
    folder: Path
    key: str

    def llumi(self, *words: str, code: int = 0) -> str:
        """A command on the running service; what it printed."""
        command = [sys.executable, "-m", "cluster.cli", *words, "--set", f"output={self.folder}"]
        shown = subprocess.run(command, capture_output=True, text=True, timeout=200, check=False)
        assert shown.returncode == code, shown.stdout + shown.stderr
        return shown.stdout + shown.stderr

    def load(self) -> Load:
        return Load(self.served.url, clients=3, kinds=("generate", "stream", "improve"), key=self.key)


@pytest.fixture(scope="module")
def operator(store: Store, models: ModelPaths, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Operator]:
    """The service with two replicas of a GM that lies in the store."""
    folder = tmp_path_factory.mktemp("service")
    options = [
        f"serving.topology.locations.gm={store.put('first')}",
        f"serving.topology.model_cache={folder / 'cache'}",
        "serving.gm.min_replicas=2",
        "serving.gm.max_replicas=2",
        "serving.gm.cpus=0.5",
        "serving.access.requests_per_minute=null",
    ]
    with llumi_serve(folder, models, *options) as served:
        yield Operator(served, store, folder, served.key())


def test_a_model_in_a_store_is_fetched_once_for_two_replicas_of_a_node(operator: Operator, tmp_path: Path) -> None:
    by_service = operator.store.reads.of["first"]
    sources.local(operator.store.location("first"), tmp_path / "cache", 1)
    by_one = operator.store.reads.of["first"] - by_service
    assert by_service == by_one > 0
    assert operator.served.draft(operator.key).status_code == 200
    assert len([path for path in (operator.folder / "cache").iterdir() if path.is_dir()]) == 1


def test_a_new_version_comes_by_share_goes_back_and_stays_and_no_request_is_lost(operator: Operator) -> None:
    new = operator.store.put("second", layers=1)
    versions = {name: sources.about(operator.store.location(name))["version"] for name in ("first", "second")}
    one, two = versions.values()

    def answered(load: Load) -> set[str]:
        load.wait(6)  # those under way have ended
        load.account.versions.clear()
        load.wait(24)
        return set(load.account.versions)

    def rollout(*words: str, code: int = 0) -> str:
        return operator.llumi("rollout", words[0], "demo", "--model", "gm", *words[1:], code=code)

    with operator.load() as load:
        assert answered(load) == {one}
        assert "no rollout of gm is under way" in rollout("promote", code=2)
        assert "50%" in rollout("start", "--to", new, "--share", "0.5")
        assert answered(load) == {one, two}
        assert re.findall(r"gm +(\d+)% +(\d)", operator.llumi("rollout", "show", "demo")) == [("50", "2"), ("50", "1")]
        assert "under way" in rollout("start", "--to", new, code=2)
        assert "promote it or take it back" in rollout("finish", code=2)
        assert "0%" in rollout("share", "0")
        assert answered(load) == {one}
        rollout("promote")
        assert answered(load) == {two}
        rollout("back")
        assert answered(load) == {one}
        rollout("promote")
        told = rollout("finish")
        assert f"serving.topology.locations.gm={new}" in told.replace("\n", "")
        assert answered(load) == {two}
    assert load.account.balanced()
    assert not load.account.lost and not load.account.refused, load.account
    assert re.findall(r"gm +(\d+)% +(\d)", operator.llumi("rollout", "show", "demo")) == [("100", "2")]


def test_a_version_that_is_not_there_is_named_and_changes_nothing(operator: Operator) -> None:
    nowhere = operator.store.location("nowhere")
    with operator.load() as load:
        told = operator.llumi("rollout", "start", "demo", "--model", "im", "--to", nowhere, code=1)
        load.wait(6)
    assert "s3://models/nowhere" in told and "runs on" in told.replace("\n", " ")
    assert not load.account.lost and not load.account.refused, load.account
    assert re.findall(r"im +(\d+)% +(\d)", operator.llumi("rollout", "show", "demo")) == [("100", "1")]
