"""Training workers without Ray: processes of one torch process group that run a worker's loop as it is."""

import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from pipelines.training.fit import CPU_WORKER_ENVIRONMENT, WORKER_ENVIRONMENT
from pipelines.training.plan import Plan
from tests.ports import free_port

WORKER = "from tests.pipelines.training.ranks import work; work()"


def work() -> None:
    """What each process does; a TrainingError leaves ``failure.json`` as it does under Ray Train."""
    import torch.distributed as dist

    from pipelines.training.loop import train_loop_per_worker

    plan = pickle.loads(Path(sys.argv[1]).read_bytes())
    dist.init_process_group("gloo")
    train_loop_per_worker({"plan": plan, "started": time.time()})


@contextmanager
def launched(plan: Plan, workers: int) -> Iterator[list[subprocess.Popen[str]]]:
    """Processes of ranks 0 to ``workers`` - 1, killed at the end if they still run."""
    Path(plan.output).mkdir(parents=True, exist_ok=True)
    file = Path(plan.output) / "plan.pickle"
    file.write_bytes(pickle.dumps(plan))
    group = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "WORLD_SIZE": str(workers)}
    common = {**os.environ, **WORKER_ENVIRONMENT, **CPU_WORKER_ENVIRONMENT, **group, "OMP_NUM_THREADS": "1"}
    started = [
        subprocess.Popen(
            [sys.executable, "-c", WORKER, str(file)],
            env={**common, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE if rank == 0 else subprocess.DEVNULL,
            text=True,
        )
        for rank in range(workers)
    ]
    try:
        yield started
    finally:
        for process in started:
            process.send_signal(signal.SIGKILL)
            process.wait()


def train(plan: Plan, workers: int, until: Callable[[], bool] = lambda: False) -> None:
    """Run to the end, or kill all (kill -9) as soon as ``until``; a run that fails raises with its last words."""
    with launched(plan, workers) as processes:
        end = time.monotonic() + 200
        while any(process.poll() is None for process in processes):
            if until():
                return
            assert time.monotonic() < end, "training hangs"
            time.sleep(0.02)
        assert processes[0].stderr is not None
        assert processes[0].returncode == 0, processes[0].stderr.read()[-2000:]
