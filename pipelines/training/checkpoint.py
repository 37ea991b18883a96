"""Checkpoints that a killed run can trust: whole, or not there.

Ray's stock callback copies everything from every rank, and on a shared disk two ranks can
write one file at once. Here each rank saves into a folder of its own - only rank 0 holds what
all share, the others their ZeRO shards - and reports it; Ray lays them together in storage.
When every rank's report has returned, rank 0 writes the marker ``COMPLETE``. Ray registers a
checkpoint only some time later, and a kill in between would send the retry back to step 0:
hence a worker starts from the newest marked folder where that is newer than Ray's.
"""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import ray.train
import torch.distributed as dist
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

MARKER = "COMPLETE"
NAME = re.compile(r"checkpoint-(\d+)$")


def name_of(step: int) -> str:
    """Folder name of the checkpoint after ``step`` optimizer steps."""
    return f"checkpoint-{step:08d}"


def step_of(folder: Path) -> int:
    """Optimizer steps of a checkpoint's folder, -1 for any other name."""
    match = NAME.search(folder.name)
    return int(match[1]) if match else -1


def marked(storage: Path) -> list[Path]:
    """The complete checkpoints in a run's storage, oldest first."""
    return sorted((marker.parent for marker in storage.glob(f"checkpoint-*/{MARKER}")), key=step_of)


def newest(storage: Path, registered: Path | None) -> Path | None:
    """Where to resume: the newest of the marked checkpoints and the one that Ray registered."""
    candidates = [*marked(storage), *([registered] if registered and registered.is_dir() else [])]
    return max(candidates, key=step_of, default=None)


def resume_point(storage: Path) -> Path | None:
    """``newest`` for this worker; rank 0 decides, so that all ranks load the same one."""
    registered = ray.train.get_checkpoint()
    found = [newest(storage, Path(registered.path) if registered else None)]
    if dist.is_initialized():
        dist.broadcast_object_list(found, src=0)
    return found[0]


class ReportCheckpoints(TrainerCallback):
    """Decides when to save, and hands each saved checkpoint to Ray Train.

    ``every`` counts optimizer steps; 0 saves at each epoch's end. Nothing is saved after the
    last step, since the finished model is written right then.
    """

    def __init__(self, storage: Path, every: int):
        self.storage = storage
        self.every = every

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> TrainerControl:
        due = self.every > 0 and state.global_step % self.every == 0
        control.should_save = due and state.global_step < state.max_steps
        return control

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> TrainerControl:
        control.should_save = self.every == 0 and state.global_step < state.max_steps
        return control

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        local = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        name = name_of(state.global_step)
        dist.barrier()
        ray.train.report(
            {"step": state.global_step, "epoch": state.epoch},
            checkpoint=ray.train.Checkpoint.from_directory(local),
            checkpoint_dir_name=name,
        )
        dist.barrier()
        if dist.get_rank() == 0:
            (self.storage / name / MARKER).write_text(json.dumps({"step": state.global_step}), encoding="utf-8")
        shutil.rmtree(local, ignore_errors=True)
