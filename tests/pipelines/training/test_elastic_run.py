"""A run that takes the workers there are: a node joins, is drained, and a worker is told to end."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import ray

from configs.settings import Settings
from configs.training import WorkerRange
from pipelines.layout import Layout
from pipelines.manifest import Manifest
from pipelines.training import curves, loop
from tests.pipelines.training.conftest import Build
from tests.pipelines.training.test_chaos import Run
from tests.pipelines.training.test_resume import training_workers

NEVER = 1_000_000
SEEN_S = 25.0
"""Seconds until Ray's coordinator, which looks every 20, has seen a node that joined."""
RAY = str(Path(sys.executable).parent / "ray")
WATCHING = {"RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "1", "RAY_TRAIN_PREEMPTION_POLL_INTERVAL_S": "0.5"}


class Elastic(Run):
    """A run whose starts can be waited for."""

    def starts(self) -> list[dict[str, int]]:
        """The record of its starts so far."""
        storage = next(Layout(Path(self.settings.output)).checkpoints.glob("gm-sft-*"), None)
        return loop.starts(storage) if storage else []

    def wait(self, reached: Callable[[], Any]) -> None:
        until = time.monotonic() + 90
        while not reached():
            assert self.running(), self.log.read_text()[-2000:]
            assert time.monotonic() < until, f"not reached; starts: {self.starts()}"
            time.sleep(0.02)

    def figures(self) -> dict[str, Any]:
        """What the manifest says in the end."""
        self.finish()
        return Manifest.model_validate_json((self.output / "manifest.json").read_text()).figures


Make = Callable[..., Elastic]


@pytest.fixture
def make(settings: Settings, base_model: Path, tokenised: Build, tmp_path: Path) -> Iterator[Make]:
    """Runs without dropout, which would differ between numbers of workers; those still running are killed."""
    made: list[Elastic] = []

    def build(steps: int, save_every: int, **training: Any) -> Elastic:
        sft = settings.training.sft.model_copy(update={"max_steps": steps, "save_every": save_every})
        lora = settings.training.lora.model_copy(update={"dropout": 0.0})
        changed = settings.training.model_copy(update={"sft": sft, "lora": lora, "max_failures": -1, **training})
        own = settings.model_copy(update={"training": changed, "output": str(tmp_path)})
        made.append(Elastic(own, tokenised("sft"), base_model, tmp_path / "sft"))
        return made[-1]

    yield build
    for run in made:
        if run.driver is not None:
            run.driver.kill()
            run.driver.wait()


@contextmanager
def another_node(cpus: int) -> Iterator[str]:
    """A node that joins the session's Ray; gives its id."""
    known = {node["NodeID"] for node in ray.nodes()}
    address = ray.get_runtime_context().gcs_address
    folder = tempfile.mkdtemp(prefix="llumi-node-")  # else Ray takes this cluster for the machine's own from now on
    words = ["--address", address, "--num-cpus", str(cpus), "--object-store-memory", "100000000", "--block"]
    words.append(f"--temp-dir={folder}")
    process = subprocess.Popen(
        [RAY, "start", *words], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    try:
        until = time.monotonic() + 60
        while not (joined := {node["NodeID"] for node in ray.nodes() if node["Alive"]} - known):
            assert time.monotonic() < until and process.poll() is None
            time.sleep(0.2)
        yield joined.pop()
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(timeout=60)
        shutil.rmtree(folder, ignore_errors=True)


def losses(run: Elastic) -> list[float]:
    """The loss of each step."""
    return [point["loss"] for point in curves.load(run.output) if "loss" in point]


@pytest.mark.slow
def test_a_worker_told_to_end_saves_and_is_replaced(make: Make) -> None:
    run = make(200, NEVER)
    run.start()
    run.wait(lambda: any(Layout(Path(run.settings.output)).logs.rglob("events.out.tfevents*")))
    time.sleep(0.5)
    training_workers()[-1].send_signal(signal.SIGTERM)
    figures = run.figures()
    assert len(figures["starts"]) == 2
    assert 0 < figures["starts"][1]["step"] < 200  # no other checkpoint is ever saved
    assert len(losses(run)) == 200


@pytest.mark.slow
def test_a_run_grows_with_the_cluster_and_saves_before_a_drained_node_is_gone(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in WATCHING.items():
        monkeypatch.setenv(name, value)
    run = make(NEVER, 20, workers=WorkerRange(min=1, max=2), cpus_per_worker=3)
    run.start()
    run.wait(lambda: run.step() > 0)
    with another_node(cpus=3) as node:
        time.sleep(SEEN_S)
        training_workers()[-1].kill()
        run.wait(lambda: len(run.starts()) == 2)
        run.wait(lambda: run.step() > run.starts()[-1]["step"])
        address = ray.get_runtime_context().gcs_address
        why = ["--reason", "DRAIN_NODE_REASON_PREEMPTION", "--reason-message", "test"]
        words = ["drain-node", "--address", address, "--node-id", node, "--deadline-remaining-seconds", "8", *why]
        subprocess.run([RAY, *words], check=True, capture_output=True)
        run.wait(lambda: run.step() % 20)  # a step at which nothing else is saved
        run.wait(lambda: len(run.starts()) == 3)
    starts = run.starts()
    assert [start["workers"] for start in starts] == [1, 2, 1]
    assert 0 < starts[1]["step"] < starts[2]["step"]
