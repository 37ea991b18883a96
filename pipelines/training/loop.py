"""What every training worker does, from its plan to the finished adapter.

The driver imports this module too, to name the function to Ray, so what is heavy is
imported inside. Nothing in ``run`` needs Ray: any process group of torch's will do.
"""

import json
import os
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

from configs.errors import TrainingError
from pipelines.interrupted import is_running
from pipelines.training import nvme
from pipelines.training.imports import lean_imports
from pipelines.training.plan import Plan

FAILURE = "failure.json"
"""Left in the plan's output for an error that no retry can mend, so that Ray does not try."""
SUMMARY = "summary.json"
"""Left there on success: seconds, steps and tokens, for the manifest."""
STARTS = "starts.jsonl"
"""Kept in storage: a line for each time that the workers began, with the step they began at."""


def train_loop_per_worker(config: dict[str, Any]) -> None:
    """Train as ``config["plan"]`` says; if a worker dies, Ray calls this again on all and it resumes.

    A TrainingError is raised by all workers together and would come again: it is left for the
    driver instead. Any other error goes to Ray, which retries.
    """
    plan: Plan = config["plan"]
    folders = [scratch_folder(plan.name)]
    if plan.training.offload.parameters == "nvme":
        folders.append(scratch_folder(plan.name, plan.training.offload.nvme_path))
        plan = nvme.on_disk(plan, folders[-1])
    try:
        run(plan, folders[0], Clock(config["started"]))
    except TrainingError as error:
        (Path(plan.output) / FAILURE).write_text(json.dumps({"message": str(error)}), encoding="utf-8")
    finally:
        for folder in folders:
            shutil.rmtree(folder, ignore_errors=True)


def scratch_folder(name: str, disk: str | None = None) -> Path:
    """This process's own empty folder on the node's disk; those of the run's killed processes are deleted."""
    parent = Path(disk or tempfile.gettempdir()) / f"llumi-training-{name}"
    for left in parent.glob("[0-9]*"):
        if not is_running(int(left.name)):
            shutil.rmtree(left, ignore_errors=True)
    own = parent / str(os.getpid())
    shutil.rmtree(own, ignore_errors=True)
    own.mkdir(parents=True)
    return own


def run(plan: Plan, scratch: Path, clock: "Clock") -> None:
    """Load, train, evaluate, write; ``scratch`` is this worker's own folder."""
    clock.lap("start")
    with lean_imports():
        import torch
        import torch.distributed as dist

        from pipelines.training import artefacts, checkpoint, early, elastic, metrics, trainers, universal, zero
        from pipelines.training.rows import open_rows
        from pipelines.training.weights import load_tokenizer, trainable_model

        zero.join(on_gpu=plan.training.gpus_per_worker > 0)
    clock.lap("import")
    plan = elastic.fitted(plan, dist.get_world_size())
    found = checkpoint.resume_point(plan)
    convert = found is not None and universal.needed(found, dist.get_world_size())
    resumed = None if found is None else universal.converted(found) if convert else found.folder
    note_start(plan, found.marker.step if found else 0)
    # Before the weights: ZeRO-3 shards them while they load.
    arguments = trainers.arguments(plan, scratch, universal=convert)
    nvme.ready(plan.training)
    tokenizer = load_tokenizer(plan.base, plan.revision)
    rows = open_rows(plan)
    trainer = trainers.make_trainer(plan, arguments, trainable_model(plan), tokenizer, rows)
    trainer.saving.skipped = found.marker.skipped if found else 0
    trainer.add_callback(trainers.OnFirstStep(lambda: clock.lap("first_step")))
    clock.lap("load")
    trainer.train(resume_from_checkpoint=str(resumed) if resumed else None)
    clock.lap("steps")
    if "validation" in rows and not early.evaluated(trainer.state):
        trainer.evaluate()
    clock.lap("evaluate")
    exported = early.restore_best(trainer, Path(plan.storage))
    artefacts.write(plan, trainer)
    clock.lap("save")
    tokens = int(trainer.accelerator.reduce(torch.tensor(trainer.tokens_here, device=trainer.args.device)))
    peak = metrics.most_memory(trainer.accelerator)
    if trainer.is_world_process_zero():
        done = summary(trainer, clock.seconds, tokens, found.marker.step if found else 0)
        done |= {"exported_step": exported, "memory_peak_gib": round(peak, 3)}
        (Path(plan.output) / SUMMARY).write_text(json.dumps(done), encoding="utf-8")


def note_start(plan: Plan, step: int) -> None:
    """Add a line to the run's record of starts; a storage that fails costs the record only."""
    import torch.distributed as dist

    if dist.get_rank() == 0:
        line = json.dumps({"step": step, "workers": dist.get_world_size()})
        try:
            Path(plan.storage).mkdir(parents=True, exist_ok=True)
            with (Path(plan.storage) / STARTS).open("a", encoding="utf-8") as file:
                file.write(line + "\n")
        except OSError:
            return


def starts(storage: Path) -> list[dict[str, int]]:
    """A run's record of starts: ``step`` and ``workers`` of each, oldest first."""
    path = storage / STARTS
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.is_file() else []


def summary(trainer: Any, seconds: dict[str, float], tokens: int, resumed_at: int) -> dict[str, Any]:
    """Figures of this run; rates count what was done since the start or the last restart."""
    training = seconds.get("first_step", 0.0) + seconds["steps"]
    return {
        "seconds": {name: round(value, 2) for name, value in seconds.items()},
        "steps": trainer.state.global_step,
        "resumed_at_step": resumed_at,
        "checkpoints_skipped": trainer.saving.skipped,
        "tokens": tokens,
        "tokens_per_second": round(tokens / max(training, 1e-9), 1),
        "world_size": trainer.args.world_size,
        "trainable_parameters": trainable_parameters(trainer.model),
    }


def trainable_parameters(model: Any) -> int:
    """Number of trained weights; under ZeRO-3 the whole, not this worker's share."""
    return sum(getattr(p, "ds_numel", p.numel()) for p in model.parameters() if p.requires_grad)


class Clock:
    """Seconds spent in each named part, beginning at ``started`` (seconds since 1970, the driver's clock)."""

    def __init__(self, started: float):
        self.last = started
        self.seconds: dict[str, float] = {}

    def lap(self, part: str) -> None:
        """End the part that has been running."""
        now = time.time()
        self.seconds[part] = now - self.last
        self.last = now
