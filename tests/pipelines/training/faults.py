"""What the tests of faults share: a plan without a model, a process group of one, a file system of given size."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch.distributed as dist

from configs.training import StageSettings, TrainingSettings, UploadSettings
from pipelines.training.plan import Plan


def plan_at(root: Path, *, retries: int = 2, **training: object) -> Plan:
    """A plan of SFT whose storage lies in ``root``."""
    settings = TrainingSettings.model_validate({"upload": UploadSettings(retries=retries, backoff_s=0.01), **training})
    return Plan(
        name="gm-sft-0123456789ab",
        task="sft",
        tokens="tokens",
        reference=None,
        base="base",
        revision=None,
        start=None,
        output=str(root / "output"),
        storage=str(root / "storage" / "gm-sft-0123456789ab"),
        attention="sdpa",
        stage=StageSettings(),
        training=settings,
        seed=1,
    )


@contextmanager
def alone() -> Iterator[None]:
    """A process group of this process only."""
    if dist.is_initialized():
        yield
        return
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        yield
    finally:
        dist.destroy_process_group()


@contextmanager
def mounted(folder: Path, options: str) -> Iterator[Path]:
    """A tmpfs at ``folder``; the caller skips where mounting is not allowed."""
    folder.mkdir(parents=True, exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], check=True, capture_output=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def may_mount(scratch: Path) -> bool:
    """Whether this user may mount a tmpfs (root on Linux, outside most sandboxes)."""
    try:
        with mounted(scratch / "probe-of-mounting", "size=64k"):
            return True
    except (subprocess.CalledProcessError, FileNotFoundError):
        return False
