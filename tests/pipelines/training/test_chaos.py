"""Ten kills at random moments, of workers and of the driver, and the same adapter to the last bit.

The moments are drawn from a seed, one series for each ZeRO stage: six follow a checkpoint by some
steps and up to a fifth of a second, so that they hit forward, backward, saving and storing; four
come at any time, so that they also hit workers that start, load or resume.
"""

import random
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest
import ray
import torch
from safetensors.torch import load_file

from configs.load import to_yaml
from configs.settings import Settings
from pipelines.layout import Layout
from pipelines.manifest import Manifest
from pipelines.training import checkpoint, curves
from tests.pipelines.training.conftest import Build
from tests.pipelines.training.test_resume import DRIVER, training_workers

STEPS = 100
KILLS = 10
DRIVER_KILLS = 2
LONGEST_S = 420


@dataclass
class Run:
    """One training run in a driver of its own, that can be killed and started again."""

    settings: Settings
    tokens: Path
    base: Path
    output: Path
    driver: subprocess.Popen[bytes] | None = None
    killed: list[str] = field(default_factory=list)

    def start(self) -> None:
        config = self.output.parent / "settings.yaml"
        config.write_text(to_yaml(self.settings))
        address = ray.get_runtime_context().gcs_address
        words = [address, str(config), str(self.tokens), str(self.base), str(self.output)]
        with self.log.open("ab") as log:
            self.driver = subprocess.Popen([sys.executable, "-c", DRIVER, *words], stdout=log, stderr=log)

    @property
    def log(self) -> Path:
        """What the drivers said."""
        return self.output.parent / "driver.log"

    def finish(self) -> None:
        """Wait for the end, which must be a good one."""
        assert self.driver is not None
        assert self.driver.wait(timeout=LONGEST_S) == 0, self.log.read_text()[-2000:]

    def running(self) -> bool:
        return self.driver is not None and self.driver.poll() is None

    def step(self) -> int:
        """The newest complete checkpoint's."""
        storage = next(Layout(Path(self.settings.output)).checkpoints.glob("gm-sft-*"), None)
        found = checkpoint.newest(storage) if storage else None
        return found.marker.step if found else 0

    def kill_driver(self) -> None:
        assert self.driver is not None
        self.driver.kill()
        self.driver.wait()
        self.killed.append("driver")
        self.start()

    def kill_a_worker(self, draw: random.Random) -> bool:
        workers = training_workers()
        if not workers:
            return False
        try:
            draw.choice(workers).send_signal(signal.SIGKILL)
        except psutil.NoSuchProcess:
            return False
        self.killed.append("worker")
        return True


def disturb(run: Run, draw: random.Random) -> None:
    """Kill ``KILLS`` times, ``DRIVER_KILLS`` of them the driver."""
    drivers = set(draw.sample(range(KILLS), DRIVER_KILLS))
    any_time = set(draw.sample(range(KILLS), 4))
    end = time.monotonic() + LONGEST_S
    while len(run.killed) < KILLS:
        number = len(run.killed)
        if number in any_time:
            time.sleep(draw.uniform(0.0, 5.0))
        else:
            goal = run.step() + draw.randint(1, 6)
            while run.step() < goal:
                assert run.running() and time.monotonic() < end, f"ended after {run.killed} at step {run.step()}"
                time.sleep(0.02)
            time.sleep(draw.uniform(0.0, 0.2))
        assert run.running(), f"ended after {run.killed}"
        if number in drivers:
            run.kill_driver()
        else:
            while not run.kill_a_worker(draw):
                assert run.running() and time.monotonic() < end
                time.sleep(0.1)


@pytest.mark.slow
@pytest.mark.parametrize("zero_stage", [0, 1, 2, 3])
def test_ten_kills_change_neither_loss_nor_weights(
    settings: Settings, base_model: Path, tokenised: Build, tmp_path: Path, zero_stage: int
) -> None:
    sft = settings.training.sft.model_copy(update={"max_steps": STEPS, "save_every": 1, "micro_batch": 2})
    lora = settings.training.lora.model_copy(update={"dropout": 0.1})
    changed = {"sft": sft, "lora": lora, "zero_stage": zero_stage, "max_failures": -1}
    training = settings.training.model_copy(update=changed)
    own = settings.model_copy(update={"training": training, "output": str(tmp_path)})
    tokens = tokenised("sft")
    adapters = []
    for name in ("undisturbed", "disturbed"):
        folder = tmp_path / name
        folder.mkdir()
        run = Run(own, tokens, base_model, folder / "sft")
        run.start()
        if name == "disturbed":
            disturb(run, random.Random(zero_stage))
        run.finish()
        adapters.append(run.output)
    figures = Manifest.model_validate_json((adapters[1] / "manifest.json").read_text()).figures
    assert len(figures["starts"]) > KILLS // 2 and figures["starts"][-1]["step"] > 0
    assert_same(*adapters)


def assert_same(one: Path, other: Path) -> None:
    """The same weights and the same loss at every step, to the last digit."""
    first, second = (load_file(folder / "adapter_model.safetensors") for folder in (one, other))
    assert first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)
    losses = [[(p["step"], p["loss"]) for p in curves.load(folder) if "loss" in p] for folder in (one, other)]
    assert losses[0] == losses[1]
    assert len(losses[0]) == STEPS
