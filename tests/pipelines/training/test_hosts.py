"""Training over two hosts, one of which crashes, is cut off or stays away: the result is the same.

Each host is a network namespace with a Ray node of its own; token authentication is on. What is
run is the command that a user runs, on the head's host. Only the network's time scale is not
Ray's default: a silent node counts as lost after some seconds.
"""

import json
import random
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from configs.load import to_yaml
from configs.settings import Settings
from configs.training import WorkerRange
from pipelines import manifest
from pipelines.layout import Layout
from pipelines.training import checkpoint, curves, loop
from tests.hosts import BIN, Host, missing, network
from tests.pipelines.training.conftest import Build

STEPS = 60
LONGEST_S = 240
pytestmark = pytest.mark.slow


@pytest.fixture
def hosts() -> Iterator[list[Host]]:
    """Two hosts: a Ray head with a CPU, and a node with another that joined it."""
    if reason := missing():
        pytest.skip(reason)
    with network(2) as (head, other):
        head.start_ray()
        other.start_ray(head)
        yield [head, other]


@pytest.fixture(scope="module")
def prepared(settings: Settings, base_model: Path, tokenised: Build) -> Settings:
    """Sixty steps with dropout on a worker a host, a checkpoint at every second one; base and tokens are there."""
    tokenised("sft")
    lora = settings.training.lora.model_copy(update={"dropout": 0.1})
    sft = settings.training.sft.model_copy(update={"max_steps": STEPS, "save_every": 2})
    changed = {"lora": lora, "sft": sft, "placement": "STRICT_SPREAD", "max_failures": 3}
    return settings.model_copy(update={"training": settings.training.model_copy(update=changed)})


class Run:
    """`llumi train` on the head's host, in an output of its own, which all hosts reach."""

    def __init__(self, settings: Settings, head: Host, folder: Path):
        self.head, self.folder = head, folder
        shutil.copytree(settings.output, folder / "output", ignore=shutil.ignore_patterns("adapters", "checkpoints"))
        where = settings.cluster.model_copy(update={"address": head.gcs()})
        self.settings = settings.model_copy(update={"output": str(folder / "output"), "cluster": where})
        self.at = Layout(Path(self.settings.output))
        self.log = folder / "driver.log"
        self.driver: subprocess.Popen[bytes] | None = None

    def start(self) -> "Run":
        """Start the command, for the first time or again."""
        config = self.folder / "settings.yaml"
        config.write_text(to_yaml(self.settings))
        words = [str(BIN / "llumi"), "train", str(config), "--model", "gm", "--stage", "sft"]
        self.driver = self.head.start(words, self.log)
        return self

    @property
    def adapter(self) -> Path:
        return self.at.adapter("gm", "sft")

    def running(self) -> bool:
        return self.driver is not None and self.driver.poll() is None

    def told(self) -> str:
        """What the drivers said."""
        return self.log.read_text(errors="replace")[-3000:]

    def step(self) -> int:
        """The newest complete checkpoint's."""
        storage = next(self.at.checkpoints.glob("gm-sft-*"), None)
        found = checkpoint.newest(storage) if storage else None
        return found.marker.step if found else 0

    def starts(self) -> list[dict[str, int]]:
        """The record of starts of the run under way."""
        return next(map(loop.starts, self.at.checkpoints.glob("gm-sft-*")), [])

    def reach(self, step: int) -> None:
        """Wait for a checkpoint of that step or a later one."""
        self.wait(lambda: self.step() >= step, f"step {step}")

    def wait(self, done: Callable[[], bool], what: str) -> None:
        """Wait for something to be while the command runs."""
        end = time.monotonic() + LONGEST_S
        while not done():
            assert self.running(), f"ended before {what}: {self.told()}"
            assert time.monotonic() < end, f"no {what}: {self.told()}"
            time.sleep(0.02)

    def finish(self) -> manifest.Manifest:
        """Wait for the end, which must be a good one."""
        assert self.driver is not None
        assert self.driver.wait(timeout=LONGEST_S) == 0, self.told()
        made = manifest.read(self.adapter)
        assert made is not None
        assert not list(self.at.checkpoints.glob("gm-sft-*/checkpoint-*"))
        return made


def last_loss(adapter: Path) -> float:
    """The loss of the last step."""
    points = [point for point in curves.load(adapter) if "loss" in point]
    assert points[-1]["step"] == STEPS
    return float(points[-1]["loss"])


def assert_same(one: Path, other: Path) -> None:
    """The same weights and the same last loss, to the last digit."""
    first, second = (load_file(folder / "adapter_model.safetensors") for folder in (one, other))
    assert first and all(torch.equal(first[name], second[name]) for name in first)
    assert last_loss(one) == last_loss(other)


@pytest.fixture(scope="module")
def undisturbed(prepared: Settings, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The adapter of a run over two hosts that nothing happened to."""
    if reason := missing():
        pytest.skip(reason)
    with network(2) as (head, other):
        head.start_ray()
        other.start_ray(head)
        run = Run(prepared, head, tmp_path_factory.mktemp("undisturbed")).start()
        made = run.finish()
    assert made.figures["world_size"] == 2
    assert made.figures["resumed_at_step"] == 0
    return run.adapter


def test_a_host_that_crashes_costs_the_steps_since_the_last_checkpoint(
    hosts: list[Host], prepared: Settings, undisturbed: Path, tmp_path: Path
) -> None:
    head, other = hosts
    run = Run(prepared, head, tmp_path).start()
    run.reach(6)
    other.crash()
    other.start_ray(head)
    starts = run.finish().figures["starts"]
    assert [start["workers"] for start in starts] == [2, 2]
    assert starts[1]["step"] >= 6
    assert_same(run.adapter, undisturbed)


def test_a_host_that_is_cut_off_is_given_up_and_comes_back(
    hosts: list[Host], prepared: Settings, undisturbed: Path, tmp_path: Path
) -> None:
    head, other = hosts
    run = Run(prepared, head, tmp_path).start()
    run.reach(6)
    other.partition()
    run.wait(lambda: len(head.nodes()) == 1, "loss of the node")
    assert other.pids(), "a partition ends no process"
    other.heal()
    run.wait(lambda: not other.running_ray(), "end of the node that was given up")
    other.start_ray(head)
    starts = run.finish().figures["starts"]
    assert len(starts) == 2 and starts[1]["step"] >= 6
    assert_same(run.adapter, undisturbed)


def test_the_head_s_host_crashes_and_the_same_command_goes_on(
    hosts: list[Host], prepared: Settings, undisturbed: Path, tmp_path: Path
) -> None:
    head, other = hosts
    run = Run(prepared, head, tmp_path).start()
    run.reach(6)
    head.crash()
    assert not run.adapter.exists()
    other.crash()
    head.start_ray()
    other.start_ray(head)
    assert run.start().finish().figures["resumed_at_step"] >= 6
    assert_same(run.adapter, undisturbed)


@pytest.mark.parametrize("seed", [1, 2])
def test_hosts_that_crash_again_and_again_change_nothing(
    hosts: list[Host], prepared: Settings, undisturbed: Path, tmp_path: Path, seed: int
) -> None:
    head, other = hosts
    run, draw = Run(prepared, head, tmp_path).start(), random.Random(seed)
    for _ in range(3):
        run.reach(run.step() + draw.randint(1, 4))
        time.sleep(draw.uniform(0.0, 0.3))
        other.crash()
        time.sleep(draw.uniform(0.0, 4.0))
        other.start_ray(head)
    made = run.finish()
    assert len(made.figures["starts"]) == 4
    assert_same(run.adapter, undisturbed)


def test_with_a_range_of_workers_training_goes_on_without_the_host(
    hosts: list[Host], prepared: Settings, tmp_path: Path
) -> None:
    head, other = hosts
    changed = {"workers": WorkerRange(min=1, max=2), "lora": prepared.training.lora.model_copy(update={"dropout": 0.0})}
    elastic = prepared.model_copy(update={"training": prepared.training.model_copy(update=changed)})
    whole = Run(elastic, head, tmp_path / "whole").start()
    assert whole.finish().figures["world_size"] == 2
    run = Run(elastic, head, tmp_path / "alone").start()
    run.reach(6)
    other.crash()
    starts = run.finish().figures["starts"]
    assert [start["workers"] for start in starts] == [2, 1]
    assert last_loss(run.adapter) == pytest.approx(last_loss(whole.adapter), rel=0, abs=1e-4)


def test_with_a_range_of_workers_a_host_that_joins_is_used(prepared: Settings, tmp_path: Path) -> None:
    if reason := missing():
        pytest.skip(reason)
    long = prepared.training.sft.model_copy(update={"max_steps": 100_000, "save_every": 20})
    with network(2) as (head, other):
        head.start_ray()
        run = Run(changed_training(prepared, workers=WorkerRange(min=1, max=2), sft=long), head, tmp_path).start()
        run.reach(20)
        other.start_ray(head)
        run.wait(lambda: len(run.starts()) == 2, "start with another worker")
    assert [start["workers"] for start in run.starts()] == [1, 2]
    assert run.starts()[1]["step"] >= 20


def test_workers_talk_over_the_interface_that_is_set(hosts: list[Host], prepared: Settings, tmp_path: Path) -> None:
    head, _ = hosts
    for host in hosts:
        host.second_network()
    before = [host.received("eth1") for host in hosts]
    run = Run(changed_training(prepared, interface="eth1"), head, tmp_path).start()
    run.finish()
    assert all(host.received("eth1") - was > 100_000 for host, was in zip(hosts, before, strict=True))


def test_an_interface_that_a_host_lacks_ends_the_command_with_its_name(
    hosts: list[Host], prepared: Settings, tmp_path: Path
) -> None:
    run = Run(changed_training(prepared, interface="ib7"), hosts[0], tmp_path).start()
    assert run.driver is not None and run.driver.wait(timeout=LONGEST_S) != 0
    assert "training.interface ib7: host" in run.told() and "eth0" in run.told()


def changed_training(settings: Settings, **changed: object) -> Settings:
    """The settings with others of training."""
    return settings.model_copy(update={"training": settings.training.model_copy(update=changed)})


def test_hosts_with_ipv6_addresses_train_too(prepared: Settings, tmp_path: Path) -> None:
    if reason := missing():
        pytest.skip(reason)
    with network(2) as (head, other):
        head.start_ray(six=True)
        other.start_ray(head, six=True)
        run = Run(prepared, head, tmp_path)
        where = run.settings.cluster.model_copy(update={"address": head.gcs(six=True)})
        run.settings = run.settings.model_copy(update={"cluster": where})
        assert run.start().finish().figures["world_size"] == 2


def test_workers_run_in_their_pool_only(hosts: list[Host], prepared: Settings, tmp_path: Path) -> None:
    head, other = hosts
    other.crash()
    other.start_ray(head, labels="llumi/pool=train", cpus=2)
    pools = prepared.cluster.pools.model_copy(update={"training": "train"})
    packed = changed_training(prepared, placement="PACK").model_copy(
        update={"cluster": prepared.cluster.model_copy(update={"pools": pools})}
    )
    run = Run(packed, head, tmp_path).start()
    run.reach(2)
    workers = {host.name: host.running("RayTrainWorker") for host in hosts}
    assert workers == {head.name: 0, other.name: 2}
    run.finish()


def test_a_pool_that_no_node_is_in_is_named_before_anything_starts(
    hosts: list[Host], prepared: Settings, tmp_path: Path
) -> None:
    pools = prepared.cluster.pools.model_copy(update={"training": "gpu"})
    lost = prepared.model_copy(update={"cluster": prepared.cluster.model_copy(update={"pools": pools})})
    run = Run(lost, hosts[0], tmp_path).start()
    assert run.driver is not None and run.driver.wait(timeout=LONGEST_S) == 1
    assert "no node has this label: start some with `ray start --labels llumi/pool=gpu`" in run.told()


@pytest.mark.parametrize(
    ("env", "told"),
    [
        ({"RAY_AUTH_MODE": "disabled"}, "RAY_AUTH_MODE is disabled here"),
        ({"RAY_AUTH_TOKEN": "ab" * 32}, "RAY_AUTH_MODE is token here, with RAY_AUTH_TOKEN"),
        ({"RAY_AUTH_TOKEN": "", "HOME": "/nonexistent"}, "RAY_AUTH_MODE is token here, with no token"),
    ],
)
def test_a_driver_with_another_token_is_told_so_in_one_line(
    hosts: list[Host], prepared: Settings, tmp_path: Path, env: dict[str, str], told: str
) -> None:
    config = tmp_path / "settings.yaml"
    where = prepared.cluster.model_copy(update={"address": hosts[0].gcs()})
    config.write_text(to_yaml(prepared.model_copy(update={"cluster": where})))
    words = [str(BIN / "llumi"), "train", str(config), "--model", "gm", "--stage", "sft"]
    shown = hosts[0].run(words, env=env)
    assert shown.returncode == 1
    line = shown.stderr.strip().splitlines()[-1]
    assert line.startswith(f"error: cluster at {hosts[0].gcs()} refuses us: {told}")
    assert json.dumps(env.get("RAY_AUTH_TOKEN") or "no such text") not in shown.stderr
