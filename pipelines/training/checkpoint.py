"""Checkpoints that a killed run can trust: whole, or not there; and a storage that fails costs no run.

Each rank saves into a folder of its own - only rank 0 holds what all share, the others their
ZeRO shards - and copies it into one folder of the run's storage. When all ranks have, rank 0
writes the marker ``COMPLETE`` with every file's size. Only marked folders whose files are all
there are resumed from; what else lies in storage is what a kill left, and is deleted.

Ray Train is not handed the checkpoints. It would register each one in a file of its own some
time after it was stored, so that a kill in between sends the retry back to step 0, and a full
disk at that moment ends the whole run. Here the marker is the register: a copy that fails is
tried again, at last left out and counted, and training goes on.
"""

import json
import logging
import re
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch.distributed as dist
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from configs.errors import TrainingError
from pipelines.training.plan import Plan
from pipelines.training.storage import attempted, reason, waits

logger = logging.getLogger("llumi.training")

MARKER = "COMPLETE"
NAME = re.compile(r"checkpoint-(\d+)$")


@dataclass(frozen=True)
class Marker:
    """What ``COMPLETE`` says of its checkpoint."""

    run: str
    """Name of the run (stage and hash of settings and inputs) that saved it."""
    step: int
    """Optimizer steps done."""
    world_size: int
    """Workers whose shards it holds."""
    files: dict[str, int]
    """Size in bytes of every file, by its path in the folder."""
    skipped: int = 0
    """Checkpoints of the run that could not be stored before this one."""


@dataclass(frozen=True)
class Checkpoint:
    """A marked folder in storage."""

    folder: Path
    marker: Marker


def name_of(step: int) -> str:
    """Folder name of the checkpoint after ``step`` optimizer steps."""
    return f"checkpoint-{step:08d}"


def step_of(folder: Path) -> int:
    """Optimizer steps of a checkpoint's folder, -1 for any other name."""
    match = NAME.search(folder.name)
    return int(match[1]) if match else -1


def read_marker(folder: Path) -> Marker | None:
    """The folder's marker, None where it has none or one that does not parse."""
    try:
        return Marker(**json.loads((folder / MARKER).read_text(encoding="utf-8")))
    except (FileNotFoundError, NotADirectoryError, ValueError, TypeError):
        return None


def marked(storage: Path) -> list[Checkpoint]:
    """The checkpoints in a run's storage that are complete, oldest first.

    A file that is missing or of another size makes a checkpoint incomplete; a storage that does
    not answer raises OSError, so that no good checkpoint is taken for a bad one.
    """
    found = [(folder, read_marker(folder)) for folder in sorted(storage.glob("checkpoint-*"), key=step_of)]
    return [Checkpoint(folder, marker) for folder, marker in found if marker is not None and whole(folder, marker)]


def whole(folder: Path, marker: Marker) -> bool:
    """Whether every file is there in its size."""
    try:
        return all((folder / name).stat().st_size == size for name, size in marker.files.items())
    except FileNotFoundError:
        return False


def newest(storage: Path) -> Checkpoint | None:
    """The complete checkpoint to resume from, None where there is none."""
    return max(marked(storage), key=lambda found: found.marker.step, default=None)


def at(storage: Path, step: int | None) -> Path | None:
    """The complete checkpoint of one step, None where it is not in storage."""
    return next((found.folder for found in marked(storage) if found.marker.step == step), None)


def check(plan: Plan) -> None:
    """Raises TrainingError where a checkpoint in the run's storage was saved by another run."""
    for found in marked(Path(plan.storage)):
        if found.marker.run != plan.name:
            raise TrainingError(
                f"{found.folder}: is a checkpoint of {found.marker.run}, that is of other settings or inputs than "
                f"{plan.name}; delete the folder {plan.storage} to train from the start"
            )


def resume_point(plan: Plan) -> Checkpoint | None:
    """Where all ranks resume: rank 0 clears storage of what a kill left, and decides."""
    found: list[Checkpoint | None] = [None]
    if dist.get_rank() == 0:
        storage = Path(plan.storage)
        keep(storage, {checkpoint.folder for checkpoint in marked(storage)})
        found = [newest(storage)]
    dist.broadcast_object_list(found, src=0)
    return found[0]


def keep(storage: Path, wanted: set[Path]) -> None:
    """Delete all checkpoints but the ``wanted``, whole ones and leftovers alike; one that stays is no harm."""
    for folder in [*storage.glob("checkpoint-*"), *storage.glob("universal-*")]:
        if folder not in wanted:
            try:
                (folder / MARKER).unlink(missing_ok=True)  # first, so that half a folder is never taken for a whole
            except OSError as error:
                logger.warning("%s stays: %s", folder.name, error.strerror)
            shutil.rmtree(folder, ignore_errors=True)


def retained(found: list[Checkpoint], newest_kept: int, best: int | None) -> set[Path]:
    """Folders to keep: the newest, and the one of the best step."""
    return {c.folder for c in found[-newest_kept:]} | {c.folder for c in found if c.marker.step == best}


class SaveCheckpoints(TrainerCallback):
    """Decides when to save, stores what was saved, and keeps the newest checkpoints and the best.

    The stage's ``save_every`` counts optimizer steps; 0 saves at each epoch's end. Others may
    ask for more (``control.should_save``). Nothing is saved after the last step, since the
    finished model is written right then.
    """

    def __init__(self, plan: Plan, skipped: int = 0, sleep: Callable[[float], None] = time.sleep):
        self.plan = plan
        self.storage = Path(plan.storage)
        self.every = plan.stage.save_every
        self.skipped = skipped
        """Checkpoints of this run that could not be stored."""
        self.sleep = sleep

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> TrainerControl:
        if self.every > 0 and state.global_step % self.every == 0 and state.global_step < state.max_steps:
            control.should_save = True
        return control

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> TrainerControl:
        if self.every == 0 and state.global_step < state.max_steps:
            control.should_save = True
        return control

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        local = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        self.store(local, state.global_step, state.best_global_step)
        shutil.rmtree(local, ignore_errors=True)

    def store(self, local: Path, step: int, best: int | None) -> bool:
        """Copy this rank's folder into storage, with the other ranks; whether the checkpoint is there now."""
        target = self.storage / name_of(step)
        if dist.get_rank() == 0:
            shutil.rmtree(target, ignore_errors=True)  # of an attempt that was killed, perhaps with more ranks
        dist.barrier()
        files = {str(p.relative_to(local)): p.stat().st_size for p in local.rglob("*") if p.is_file()}
        told: list[Any] = [None] * dist.get_world_size()
        dist.all_gather_object(told, (self.copy(local, target), files))
        failed = next((met for met, _ in told if met is not None), None)
        done = [failed]
        if dist.get_rank() == 0 and failed is None:
            everything = {name: size for _, own in told for name, size in own.items()}
            done = [self.mark(target, Marker(self.plan.name, step, len(told), everything, self.skipped))]
        dist.broadcast_object_list(done, src=0)
        self.finish(target, done[0], best)
        return done[0] is None

    def copy(self, local: Path, target: Path) -> str | None:
        """Copy into storage, with retries; None, or why it failed."""

        def call() -> None:
            shutil.copytree(local, target, copy_function=shutil.copyfile, dirs_exist_ok=True)

        return attempted(call, self.pauses(), self.sleep)

    def mark(self, target: Path, marker: Marker) -> str | None:
        """Write the marker, with retries; None, or why it failed."""
        text = json.dumps(asdict(marker))
        return attempted(lambda: (target / MARKER).write_text(text, encoding="utf-8"), self.pauses(), self.sleep)

    def pauses(self) -> Iterator[float]:
        """Seconds before each retry."""
        upload = self.plan.training.upload
        return waits(upload.retries, upload.backoff_s)

    def finish(self, target: Path, failed: str | None, best: int | None) -> None:
        """Count a checkpoint that was left out, or delete those that it makes superfluous."""
        self.skipped += failed is not None
        if dist.get_rank() != 0:
            return
        if failed is not None:
            logger.warning("%s: %s was not stored, training goes on: %s", self.plan.name, target.name, failed)
            shutil.rmtree(target, ignore_errors=True)
            return
        try:
            keep(self.storage, retained(marked(self.storage), self.plan.training.keep_checkpoints, best))
        except OSError as error:
            logger.warning("%s: older checkpoints stay for now: %s", self.plan.name, reason(error))
