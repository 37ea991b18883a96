"""Whether a run's checkpoints will find room, asked before any worker starts; and an empty place afterwards.

A probe file is written, since only writing shows a disk that is mounted read-only or a quota
that is used up. It is small: what N checkpoints need is compared with what the file system
says is free, because filling it would take as long as training.
"""

import errno
import os
import shutil
from pathlib import Path

from configs.errors import NoSpace, TrainingError
from pipelines.training.plan import Plan

PROBE = ".probe"
PROBE_BYTES = 2**20
BYTES_PER_TRAINED = 20
"""A checkpoint's bytes by trained weight in float32: the adapter or model 4, the same in DeepSpeed's state 4, and
the optimizer's master copy and two moments 12."""
GB = 10**9


def check(plan: Plan) -> None:
    """Raises NoSpace where the run's checkpoints do not fit, TrainingError where its storage cannot be written."""
    storage = Path(plan.storage)
    probe = storage / PROBE
    try:
        storage.mkdir(parents=True, exist_ok=True)
        with probe.open("wb") as file:
            file.write(b"\0" * PROBE_BYTES)
            file.flush()
            os.fsync(file.fileno())
        probe.unlink()
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            probe.unlink(missing_ok=True)
            raise NoSpace(f"output: {storage} is full ({error.strerror}): no checkpoint could be saved") from None
        raise TrainingError(
            f"output: {storage} cannot be written ({error.strerror}): checkpoints need storage that every node writes"
        ) from None
    need, free = needed(plan), shutil.disk_usage(storage).free + held(storage)
    if free < need:
        raise NoSpace(
            f"output: {storage} has {amount(free)} free, {copies(plan)} checkpoints need {amount(need)}; free "
            f"some, or lower training.keep_checkpoints"
        )


def copies(plan: Plan) -> int:
    """Checkpoints that are in storage at once: the newest, the best, and the one being written."""
    return plan.training.keep_checkpoints + 2


def needed(plan: Plan) -> int:
    """Bytes that the run's checkpoints take at most."""
    return copies(plan) * trained_weights(plan) * BYTES_PER_TRAINED


def held(storage: Path) -> int:
    """Bytes that earlier checkpoints of the run hold, which new ones replace."""
    return sum(file.stat().st_size for file in storage.rglob("*") if file.is_file())


def trained_weights(plan: Plan) -> int:
    """Weights that are trained, counted on a model without memory."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.from_pretrained(plan.base, revision=plan.revision)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    if plan.task == "lm" or plan.training.mode == "full":
        return sum(weight.numel() for weight in model.parameters())
    lora = plan.training.lora
    layers = [
        m for name, m in model.named_modules() if name.rpartition(".")[2] in lora.targets and hasattr(m, "weight")
    ]
    return sum(lora.r * (layer.weight.shape[0] + layer.weight.shape[1]) for layer in layers)


def amount(size: int) -> str:
    """Bytes in words."""
    return f"{size / GB:,.1f} GB" if size >= GB else f"{size / 10**6:.1f} MB"


def clear(plan: Plan) -> None:
    """Delete the storage of a finished run, and of earlier runs of its stage with other settings."""
    storage = Path(plan.storage)
    stage = plan.name.rpartition("-")[0]
    for left in storage.parent.glob(f"{stage}-*"):
        if left.name.rpartition("-")[0] == stage:
            shutil.rmtree(left, ignore_errors=True)
