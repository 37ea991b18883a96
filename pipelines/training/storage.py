"""Where checkpoints go: whether they will find room, asked before any worker starts, and retries while they are copied.

A probe file is written, since only writing shows a disk that is mounted read-only or a quota
that is used up. It is small: what N checkpoints need is compared with what the file system
says is free, because filling it would take as long as training.
"""

import errno
import logging
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from configs.errors import NoSpace, TrainingError
from pipelines.training.plan import Plan

logger = logging.getLogger("llumi.training")

PROBE = ".probe"
PROBE_BYTES = 2**20
OPTIMIZER_BYTES = 12
"""Of a trained weight: its float32 copy and Adam's two moments."""
GB = 10**9
LONGEST_WAIT_S = 60.0


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
    """Checkpoints that are in storage at once: the newest, the one being written, and the best where there is one."""
    return plan.training.keep_checkpoints + 1 + (plan.stage.evaluate_every > 0)


def needed(plan: Plan) -> int:
    """Bytes that the run's checkpoints take at most: each weight once for DeepSpeed and once for everyone else."""
    halved = plan.training.bf16 and (plan.training.mode == "full" or plan.training.zero_stage == 3)
    return copies(plan) * trained_weights(plan) * (OPTIMIZER_BYTES + 2 * (2 if halved else 4))


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


def waits(retries: int, first: float) -> Iterator[float]:
    """Seconds before each retry: doubled each time, at most a minute."""
    return (min(first * 2**k, LONGEST_WAIT_S) for k in range(retries))


def attempted(call: Callable[[], object], pauses: Iterator[float], sleep: Callable[[float], None]) -> str | None:
    """Call until storage takes it; None on success, else what the last attempt met."""
    while True:
        try:
            call()
        except OSError as error:  # shutil.Error, which copytree raises, is one too
            met = reason(error)
        else:
            return None
        pause = next(pauses, None)
        if pause is None:
            return met
        logger.warning("storage failed, next attempt in %.1f s: %s", pause, met)
        sleep(pause)


def reason(error: OSError) -> str:
    """What storage said, in a few words."""
    if isinstance(error, shutil.Error) and error.args and isinstance(error.args[0], list):
        return str(error.args[0][0][-1])
    return error.strerror or type(error).__name__
