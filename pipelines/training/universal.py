"""A checkpoint of some number of workers, made one that any number can load.

DeepSpeed saves each worker's shard of the optimizer's state and loads it only into as many
workers. Its universal checkpoint (Lian et al. 2024, arXiv:2406.18820) holds whole tensors by
parameter instead. Checkpoints are converted only when the number has changed, since that
reads and writes all of the state once: by rank 0 in a process of its own, which frees the
memory again, while the others wait for a file - a collective call would run into a timeout.
Without ZeRO every worker holds all of the state and nothing need be converted.

The states of the random generators belong to single workers and are not converted: with
another number of workers, dropout draws other numbers, as it must.
"""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import torch.distributed as dist

from configs.errors import TrainingError
from pipelines.training.checkpoint import Checkpoint

SHARDS = "global_step*/*_optim_states.pt"
KEPT = ("trainer_state.json", "scheduler.pt")
"""What a resumed trainer reads beside DeepSpeed's state."""
DONE, FAILED = "CONVERTED", "FAILED"
PARALLEL_FROM_BYTES = 256 * 2**20
PROCESSES = 4
POLL_S = 0.2


def needed(found: Checkpoint, workers: int) -> bool:
    """Whether ``workers`` cannot load the checkpoint as it is."""
    return found.marker.world_size != workers and any(found.folder.glob(SHARDS))


def converted(found: Checkpoint) -> Path:
    """The checkpoint's universal form, beside it; called by all ranks.

    Raises TrainingError on all ranks where it cannot be made.
    """
    target = found.folder.parent / f"universal-{found.marker.step:08d}"
    if dist.get_rank() == 0:
        met = convert(found.folder, target)
        target.mkdir(exist_ok=True)
        (target / (DONE if met is None else FAILED)).write_text(met or "", encoding="utf-8")
    while not (target / DONE).exists():
        if (target / FAILED).exists():
            raise TrainingError(
                f"{found.folder.name} of {found.marker.world_size} workers cannot be converted to "
                f"{dist.get_world_size()}: {(target / FAILED).read_text(encoding='utf-8')}; set training.workers to "
                f"{found.marker.world_size} to go on"
            )
        time.sleep(POLL_S)
    return target


def convert(source: Path, target: Path) -> str | None:
    """Write the universal form of ``source`` into ``target``; None, or the last line of what went wrong."""
    shards = next(source.glob("global_step*"))
    size = sum(file.stat().st_size for file in shards.glob("*"))
    processes = str(PROCESSES if size >= PARALLEL_FROM_BYTES else 1)
    shutil.rmtree(target, ignore_errors=True)
    output = target / shards.name
    try:
        output.mkdir(parents=True)
        for name in KEPT:
            shutil.copyfile(source / name, target / name)
    except OSError as error:
        return error.strerror or type(error).__name__
    words = ["--input_folder", str(shards), "--output_folder", str(output), "--inject_missing_state"]
    words += ["--num_extract_workers", processes, "--num_merge_workers", processes]
    done = subprocess.run(
        [sys.executable, "-m", "deepspeed.checkpoint.ds_to_universal", *words],
        env={**os.environ, "CUDA_VISIBLE_DEVICES": "", "DS_ACCELERATOR": "cpu"},  # it only moves files
        capture_output=True,
        text=True,
    )
    lines = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
    return None if done.returncode == 0 else lines[-1]
