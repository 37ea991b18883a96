"""What a worker's machine must have before weights can lie on NVMe, seen to before any is loaded.

DeepSpeed reads and writes the disk by an operator that torch compiles at its first use, which takes
minutes. torch guards that by a file, and a worker killed meanwhile leaves it behind: whoever comes
after waits for it for ever, without a word. So the workers of a machine take turns under a lock of
the kernel's, which ends with its holder, and in a folder of their own, where a file that lies there
is a dead worker's. DeepSpeed also locks its buffers into memory, and ends the process where it may
not: that is tried first, so that the reason is told.
"""

import ctypes
import fcntl
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from configs.errors import TrainingError
from configs.training import TrainingSettings
from pipelines.training.plan import Plan

FOLDERS = "TORCH_EXTENSIONS_DIR"
"""Where torch compiles extensions; unset, it is a folder of the user's cache."""
WANTED = "libaio's headers (Debian: libaio-dev), ninja, a C++ compiler and, for GPUs, the CUDA toolkit"


def on_disk(plan: Plan, folder: Path) -> Plan:
    """The plan with ``folder`` for its weights: DeepSpeed names files by rank alone, and runs would share them."""
    offload = plan.training.offload.model_copy(update={"nvme_path": str(folder)})
    return replace(plan, training=plan.training.model_copy(update={"offload": offload}))


def ready(training: TrainingSettings) -> None:
    """Called by all ranks; raises TrainingError on all of them where one has not what it takes."""
    if training.offload.parameters != "nvme":
        return
    import torch.distributed as dist

    reasons: list[str | None] = [None] * dist.get_world_size()
    dist.all_gather_object(reasons, why_not(training))
    if met := next(filter(None, reasons), None):
        raise TrainingError(f"training.offload.parameters: {met}, or offload to cpu")


def why_not(training: TrainingSettings) -> str | None:
    """What this machine lacks, and what to do about it."""
    size = buffers(training)
    if not can_lock(size):
        return (
            f"for nvme DeepSpeed locks {size / 2**30:.1f} GiB of each worker's memory, which {socket.gethostname()} "
            "does not allow; raise its limit (`ulimit -l`)"
        )
    try:
        load_operator()
    except Exception as error:  # whatever a compiler's absence comes out as
        told = (str(error).strip().splitlines() or [""])[0]
        return (
            f"DeepSpeed's operator for nvme cannot be built on {socket.gethostname()} ({type(error).__name__}: "
            f"{told}); install {WANTED} there"
        )
    return None


def buffers(training: TrainingSettings) -> int:
    """Bytes that DeepSpeed locks into memory in each worker, whatever the model."""
    from deepspeed.runtime.zero.offload_config import DeepSpeedZeroOffloadParamConfig

    given = DeepSpeedZeroOffloadParamConfig()
    return int(given.buffer_count * given.buffer_size) * (2 if training.bf16 else 4)


def can_lock(size: int) -> bool:
    """Whether this process may lock so many bytes; they are unlocked and freed again."""
    import numpy as np

    try:
        held = np.empty(size, np.uint8)
    except MemoryError:
        return False
    libc, where = ctypes.CDLL(None), (ctypes.c_void_p(held.ctypes.data), ctypes.c_size_t(size))
    locked: bool = libc.mlock(*where) == 0
    libc.munlock(*where)
    return locked


def load_operator() -> None:
    """Compile DeepSpeed's operator where no worker of this machine has yet, and load it into this process."""
    from deepspeed.ops.op_builder import AsyncIOBuilder

    with turn(folder()):
        AsyncIOBuilder().load(verbose=False)


def folder() -> Path:
    """Where LLUMI compiles it, a folder for each version of torch and of DeepSpeed."""
    import deepspeed
    import torch
    from torch.utils.cpp_extension import get_default_build_root

    root = Path(os.environ.get(FOLDERS) or get_default_build_root())
    return root / f"llumi-torch-{torch.__version__}-deepspeed-{deepspeed.__version__}"


@contextmanager
def turn(own: Path) -> Iterator[None]:
    """Within, no other worker of this machine compiles, and torch does so in ``own``."""
    own.mkdir(parents=True, exist_ok=True)
    before = os.environ.get(FOLDERS)
    with (own / "turn").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        for left in own.glob("*/lock"):
            left.unlink()
        os.environ[FOLDERS] = str(own)
        try:
            yield
        finally:
            os.environ.pop(FOLDERS)
            if before is not None:
                os.environ[FOLDERS] = before
