"""Weights on NVMe: the losses of weights in memory, also after a kill, whatever a killed build left behind."""

import os
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from configs.training import TrainingSettings
from pipelines.training import checkpoint, curves, nvme
from pipelines.training.plan import Plan
from tests.pipelines.training import ranks
from tests.pipelines.training.dpo_world import World
from tests.pipelines.training.faults import plan_at

STEPS = 8
WIDTH = 768
"""DeepSpeed leaves weights in memory whose shard is smaller than 1 MiB: here only small ones are."""
OPERATOR = "from pipelines.training import nvme; nvme.load_operator()"
LACKING = [name for name in ("ninja", "c++") if shutil.which(name) is None]
if not Path("/usr/include/libaio.h").exists():
    LACKING.append("libaio's headers")


def test_a_lock_that_a_dead_build_left_is_taken_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(nvme.FOLDERS, "/elsewhere")
    left = tmp_path / "async_io" / "lock"
    left.parent.mkdir()
    left.touch()
    with nvme.turn(tmp_path):
        assert not left.exists()
        assert os.environ[nvme.FOLDERS] == str(tmp_path)
    assert os.environ[nvme.FOLDERS] == "/elsewhere"


HOLDER = """
import sys, time
from pathlib import Path
from pipelines.training import nvme
with nvme.turn(Path(sys.argv[1])):
    (Path(sys.argv[1]) / "async_io").mkdir()
    (Path(sys.argv[1]) / "async_io" / "lock").touch()
    print("holds", flush=True)
    time.sleep(60)
"""


def test_a_turn_waits_for_who_compiles_and_for_none_that_was_killed(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", HOLDER, str(tmp_path)], stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == b"holds\n"
        waiting = [sys.executable, "-c", HOLDER.replace("mkdir()", "mkdir(exist_ok=True)"), str(tmp_path)]
        with subprocess.Popen(waiting, stdout=subprocess.PIPE) as other:
            with pytest.raises(subprocess.TimeoutExpired):
                other.wait(timeout=1)
            assert (tmp_path / "async_io" / "lock").exists()
            holder.send_signal(signal.SIGKILL)
            assert other.stdout is not None and other.stdout.readline() == b"holds\n"
            other.kill()


def test_runs_on_one_disk_do_not_share_files(tmp_path: Path) -> None:
    offload = {"parameters": "nvme", "nvme_path": "/fast"}
    plan = plan_at(tmp_path, zero_stage=3, offload=offload)
    assert nvme.on_disk(plan, Path("/fast/own")).training.offload.nvme_path == "/fast/own"
    assert plan.training.offload.nvme_path == "/fast"


def locking(limit: int, size: int) -> str:
    """What ``can_lock`` says in a process of that limit and without root's right to pass it."""
    code = f"from pipelines.training import nvme; print(nvme.can_lock({size}))"
    drop = ["setpriv", "--bounding-set=-ipc_lock", "--inh-caps=-ipc_lock"] if os.geteuid() == 0 else []
    done = subprocess.run(
        [*drop, sys.executable, "-c", code],
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_MEMLOCK, (limit, limit)),
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip()


@pytest.mark.skipif(shutil.which("setpriv") is None, reason="needs util-linux")
def test_memory_that_may_not_be_locked_is_found_out() -> None:
    assert locking(4 * 2**20, 2**20) == "True"
    assert locking(4 * 2**20, 8 * 2**20) == "False"


def test_bfloat16_takes_half_the_buffers() -> None:
    assert nvme.buffers(TrainingSettings()) == 2 * nvme.buffers(TrainingSettings(bf16=True)) == 2 * 10**9


# Real runs.


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    if LACKING:
        pytest.skip(f"DeepSpeed's operator for NVMe cannot be built here without {', '.join(LACKING)}")
    environment = {**os.environ, "DS_ACCELERATOR": "cpu", "OMP_NUM_THREADS": "2"}
    subprocess.run([sys.executable, "-c", OPERATOR], env=environment, check=True, timeout=900)
    made = World(tmp_path_factory.mktemp("nvme"), width=WIDTH)
    made.score(made.base, made.root / "whole")
    return made


def plan_of(world: World, name: str, offload: dict[str, Any]) -> Plan:
    """ZeRO-3 over all weights on two workers, a checkpoint in the middle."""
    training = {"mode": "full", "zero_stage": 3, "workers": 2, "offload": offload}
    plan = world.plan(name, training=training, max_steps=STEPS, save_every=STEPS // 2, learning_rate=1e-4)
    return replace(plan, start=str(world.base), reference=str(world.root / "whole"))


def losses(plan: Plan) -> list[float]:
    """The loss of each step, in order."""
    points = [point for point in curves.load(Path(plan.output)) if "loss" in point]
    assert [point["step"] for point in points] == list(range(1, STEPS + 1))
    return [point["loss"] for point in points]


def halfway(plan: Plan) -> Callable[[], bool]:
    return lambda: checkpoint.at(Path(plan.storage), STEPS // 2) is not None


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_weights_on_nvme_give_the_losses_of_weights_in_memory(world: World, tmp_path: Path) -> None:
    disk = tmp_path / "fast"
    inside = plan_of(world, "inside", {})
    outside = plan_of(world, "outside", {"parameters": "nvme", "nvme_path": str(disk)})
    (nvme.folder() / "async_io" / "lock").touch()  # as by a worker that was killed while it compiled
    ranks.train(inside, workers=2)
    ranks.train(outside, workers=2, until=halfway(outside))
    swapped = {file.parent.name for file in disk.glob("llumi-training-*/*/zero_stage_3/*/*/*.swp")}
    assert swapped == {"rank0", "rank1"}
    ranks.train(outside, workers=2)
    assert losses(outside) == pytest.approx(losses(inside), rel=0, abs=1e-5)
    assert losses(inside)[0] - losses(inside)[-1] > 0.05
    assert not list(disk.glob("llumi-training-*/*"))
