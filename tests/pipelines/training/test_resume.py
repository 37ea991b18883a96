"""Workers and drivers that are killed for real: training goes on where it was, to the very same result."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
import ray
import torch
from safetensors.torch import load_file

from configs.load import to_yaml
from configs.settings import Settings
from pipelines.layout import Layout
from pipelines.manifest import Manifest
from pipelines.training import build, curves
from pipelines.training.checkpoint import marked
from tests.pipelines.training.conftest import Build

STEPS = 24
DRIVER = """
import sys
from pathlib import Path
import ray
from configs import load
from pipelines.training import build
address, config, tokens, base, output = sys.argv[1:]
ray.init(address=address, log_to_driver=False)
build.build(load(config), {"tokens": Path(tokens), "base": Path(base)}, Path(output), model="gm", stage="sft")
"""


@pytest.fixture(scope="module")
def long(settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """Six epochs of four steps with dropout, a checkpoint at every third step, so that most lie in mid-epoch."""
    lora = settings.training.lora.model_copy(update={"dropout": 0.1})
    sft = settings.training.sft.model_copy(update={"max_steps": STEPS, "save_every": 3, "micro_batch": 2})
    training = settings.training.model_copy(update={"lora": lora, "sft": sft, "keep_checkpoints": 2})
    return settings.model_copy(update={"training": training, "output": str(tmp_path_factory.mktemp("resume"))})


Train = Callable[..., Manifest]


@pytest.fixture(scope="module")
def train(long: Settings, base_model: Path, tokenised: Build) -> Train:
    inputs = {"tokens": tokenised("sft"), "base": base_model}

    def make(output: Path, **changes: Any) -> Manifest:
        training = long.training.model_copy(update=changes)
        changed = long.model_copy(update={"training": training})
        return build.build(changed, inputs, output, model="gm", stage="sft")

    return make


@pytest.fixture(scope="module")
def undisturbed(train: Train, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("undisturbed") / "sft"
    assert train(output).figures["resumed_at_step"] == 0
    return output


def storage(settings: Settings) -> Path:
    """Ray Train's folder of the one run under way; one that is not there yet holds no checkpoint."""
    return next(Layout(Path(settings.output)).checkpoints.glob("gm-sft-*"), Path("not-there-yet"))


def wait_for_checkpoint(settings: Settings, done: Callable[[], bool]) -> None:
    """Until a complete checkpoint lies in storage."""
    until = time.monotonic() + 120
    while not marked(storage(settings)):
        assert not done() and time.monotonic() < until, "the run ended before it could be disturbed"
        time.sleep(0.02)


def training_workers() -> list[psutil.Process]:
    """The training workers of this session's Ray."""
    found = psutil.Process().children(recursive=True)
    return [process for process in found if "RayTrainWorker" in words_of(process)]


def words_of(process: psutil.Process) -> str:
    """A process's command line, empty where it has just ended."""
    try:
        return " ".join(process.cmdline())
    except psutil.NoSuchProcess:
        return ""


def assert_same(one: Path, other: Path) -> None:
    """The same weights and the same last loss, to the last digit."""
    first, second = (load_file(folder / "adapter_model.safetensors") for folder in (one, other))
    assert all(torch.equal(first[name], second[name]) for name in first)
    last = [curves.load(folder)[-2] for folder in (one, other)]
    assert last[0]["step"] == last[1]["step"] == STEPS
    assert last[0]["loss"] == last[1]["loss"]


@pytest.mark.parametrize("ingest", ["memory_map", pytest.param("stream", marks=pytest.mark.slow)])
def test_a_killed_worker_changes_nothing_in_the_result(
    train: Train, undisturbed: Path, long: Settings, tmp_path: Path, ingest: str
) -> None:
    """Nor does it matter whether rows are streamed: the undisturbed run read them from its disk."""
    made: dict[str, Any] = {}
    thread = threading.Thread(target=lambda: made.update(manifest=train(tmp_path / "sft", ingest=ingest)))
    thread.start()
    wait_for_checkpoint(long, lambda: not thread.is_alive())
    workers = training_workers()
    assert len(workers) == 2
    os.kill(workers[-1].pid, signal.SIGKILL)
    thread.join(timeout=200)
    assert made["manifest"].figures["resumed_at_step"] >= 3
    assert_same(tmp_path / "sft", undisturbed)
    assert not storage(long).exists()


@pytest.mark.slow
def test_the_same_command_goes_on_after_its_driver_was_killed(
    train: Train, undisturbed: Path, long: Settings, base_model: Path, tokenised: Build, tmp_path: Path
) -> None:
    config = tmp_path / "settings.yaml"
    config.write_text(to_yaml(long))
    address = ray.get_runtime_context().gcs_address
    words = [address, str(config), str(tokenised("sft")), str(base_model), str(tmp_path / "sft")]
    driver = subprocess.Popen([sys.executable, "-c", DRIVER, *words])
    wait_for_checkpoint(long, lambda: driver.poll() is not None)
    driver.send_signal(signal.SIGKILL)
    driver.wait()
    assert not (tmp_path / "sft").exists()
    assert train(tmp_path / "sft").figures["resumed_at_step"] >= 3
    assert_same(tmp_path / "sft", undisturbed)
