"""Stops a training that goes wrong before its checkpoints do, and says on which rows.

After every optimizer step, and before anything is saved, the workers tell each other their
loss and whether they were told to end: one collective call on three numbers. A loss or a
gradient that is not finite, and a loss that has long been many times its running median, stop
all of them with the ids - never the text - of the rows at hand; the last checkpoint was saved
from healthy weights and stays. A worker told to end has everyone save first.
"""

import json
import logging
import math
import os
import statistics
import sys
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from datasets import Dataset
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from configs.errors import TrainingError
from configs.training import DivergenceSettings
from pipelines.training import checkpoint, notice
from pipelines.training.plan import Plan

logger = logging.getLogger("llumi.training")

STOPPED = "stopped.json"
"""Left in the run's storage: the step, the loss, and the ids of the rows."""
FLOOR = math.log(2)
"""Smallest median in nats that a loss is compared with: pairs that are all but learnt lie far below, and jump."""
IDS = ("post_id", "comment_id", "chosen_id", "rejected_id")
SHOWN = 4
ASK_EVERY_S = 2.0
WATCHER = "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER"


class Divergence:
    """Whether losses have left their course; pure, and the same on every worker."""

    def __init__(self, settings: DivergenceSettings):
        self.settings = settings
        self.losses: deque[float] = deque(maxlen=settings.window)
        self.high = 0

    def median(self) -> float:
        """The running median, at least ``FLOOR``."""
        return max(statistics.median(self.losses), FLOOR) if self.losses else math.inf

    def after(self, loss: float) -> bool:
        """Whether this step's loss makes it divergence; high losses do not count into the median."""
        if not self.settings.factor or loss <= self.settings.factor * self.median():
            self.losses.append(loss)
            self.high = 0
            return False
        self.high += 1
        return self.high >= self.settings.steps


class Watch(TrainerCallback):
    """Looks at every step's loss, gradient and notices; ``saw`` is called for every micro-batch."""

    def __init__(self, plan: Plan, rows: Dataset, trainer: Any = None):
        self.plan = plan
        self.rows = rows
        self.trainer = trainer
        self.divergence = Divergence(plan.training.divergence)
        self.losses: list[torch.Tensor] = []
        self.positions: list[list[int]] = []
        self.asked = time.monotonic()
        self.ask = watched()

    def saw(self, loss: torch.Tensor, positions: Sequence[int]) -> None:
        """A micro-batch's share of the step's loss, and its rows' positions among the training rows."""
        self.losses.append(loss.detach())
        self.positions.append(list(positions))

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        notice.arm(True)

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        notice.arm(False)

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> TrainerControl:
        losses = torch.stack([loss.float() for loss in self.losses]).tolist() if self.losses else [0.0]
        positions, self.losses, self.positions = self.positions, [], []
        asking = self.ask and dist.get_rank() == 0 and time.monotonic() - self.asked > ASK_EVERY_S
        told = gathered([sum(losses), self.grad_norm(), float(notice.told()), float(asking)], args.device)
        loss, norm = told[:, 0].mean().item(), told[:, 1].max().item()
        if not torch.isfinite(told[:, :2]).all():
            if not torch.isfinite(told[:, 0]).all():  # else the gradient's share of a row is not known
                positions = [rows for value, rows in zip(losses, positions, strict=False) if not math.isfinite(value)]
            self.stop(f"the loss is {loss:g}, the gradient's norm {norm:g}", state.global_step, loss, positions)
        median = self.divergence.median()
        if self.divergence.after(loss):
            over = f"the loss is {loss:.4g}, for {self.divergence.high} steps over {self.divergence.settings.factor:g}"
            self.stop(f"{over} times its running median {median:.4g}", state.global_step, loss, positions)
        preempted = bool(told[:, 3].any()) and self.preempted()
        if (preempted or bool(told[:, 2].any())) and state.global_step < state.max_steps:
            control.should_save = True
        return control

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if notice.told():
            logger.warning("%s: told to end, saved at step %d", self.plan.name, state.global_step)
            notice.leave()

    def grad_norm(self) -> float:
        """The last step's gradient norm before clipping; 0 where DeepSpeed keeps none."""
        norm = getattr(getattr(self.trainer, "model_wrapped", None), "get_global_grad_norm", lambda: None)()
        return 0.0 if norm is None else float(norm)

    def preempted(self) -> bool:
        """Whether Ray was told that a node of this run will go; all workers ask alike."""
        import ray.train

        self.asked = time.monotonic()
        return ray.train.get_preemption_info() is not None

    def stop(self, what: str, step: int, loss: float, positions: list[list[int]]) -> None:
        """Raise on all workers, once the rows of all are known; no row's text is in it."""
        told: list[Any] = [None] * dist.get_world_size()
        dist.all_gather_object(told, [ids_of(self.rows, rows) for rows in positions if rows])
        batches = [batch for batches in told for batch in batches]
        storage = Path(self.plan.storage)
        last = checkpoint.newest(storage)
        kept = f"the checkpoint of step {last.marker.step} stays" if last else "no checkpoint was saved yet"
        if dist.get_rank() == 0:
            self.write({"step": step, "loss": repr(loss), "why": what, "batches": batches})
        ids = [name for batch in batches for name in batch]
        more = f" and {len(ids) - SHOWN} more" if len(ids) > SHOWN else ""
        raise TrainingError(
            f"{what} at step {step}, on the rows {', '.join(ids[:SHOWN])}{more}; {kept}. Look at these rows (all are "
            f"named in {storage / STOPPED}), or lower the stage's learning_rate"
        )

    def write(self, record: dict[str, Any]) -> None:
        """Leave the record in storage; one that fails costs the record only."""
        path = Path(self.plan.storage) / STOPPED
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(record, indent=2), encoding="utf-8")
        except OSError as error:
            logger.warning("%s was not written: %s", path, error.strerror)


def watched() -> bool:
    """Whether Ray Train looks out for nodes that will go (on by default; fit.py turns it off without GPUs)."""
    return os.environ.get(WATCHER, "1") != "0" and "ray" in sys.modules and sys.modules["ray"].is_initialized()


def gathered(values: list[float], device: torch.device) -> torch.Tensor:
    """All workers' values, [workers, values]."""
    own = torch.tensor(values, dtype=torch.float32, device=device)
    every = torch.empty(dist.get_world_size() * len(values), dtype=torch.float32, device=device)
    dist.all_gather_into_tensor(every, own)
    return every.view(-1, len(values)).cpu()


def ids_of(rows: Dataset, positions: Sequence[int]) -> list[str]:
    """The rows' ids, ``post/comment`` or ``post/chosen/rejected``; their positions where they have none."""
    columns = [name for name in IDS if name in rows.column_names]
    if not columns:
        return [f"row {position}" for position in positions]
    picked = rows.select_columns(columns)[list(positions)]
    return ["/".join(map(str, names)) for names in zip(*(picked[name] for name in columns), strict=True)]
