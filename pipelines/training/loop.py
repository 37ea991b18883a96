"""What every training worker does, from its plan to the finished adapter.

The driver imports this module too, to name the function to Ray, so what is heavy is
imported inside.
"""

import json
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

from configs.errors import TrainingError
from pipelines.training.imports import lean_imports
from pipelines.training.plan import Plan

FAILURE = "failure.json"
"""Left in the plan's output for an error that no retry can mend, so that Ray does not try."""
SUMMARY = "summary.json"
"""Left there on success: seconds, steps and tokens, for the manifest."""


def train_loop_per_worker(config: dict[str, Any]) -> None:
    """Train as ``config["plan"]`` says; if a worker dies, Ray calls this again on all and it resumes.

    A TrainingError is raised by all workers together and would come again: it is left for the
    driver instead. Any other error goes to Ray, which retries.
    """
    plan: Plan = config["plan"]
    scratch = Path(tempfile.mkdtemp(prefix="llumi-training-"))
    try:
        run(plan, scratch, Clock(config["started"]))
    except TrainingError as error:
        (Path(plan.output) / FAILURE).write_text(json.dumps({"message": str(error)}), encoding="utf-8")
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def run(plan: Plan, scratch: Path, clock: "Clock") -> None:
    """Load, train, evaluate, write; ``scratch`` is this worker's own folder."""
    clock.lap("start")
    with lean_imports():
        import torch

        from pipelines.training import artefacts, checkpoint, trainers, zero
        from pipelines.training.rows import open_rows
        from pipelines.training.weights import load_tokenizer, trainable_model

        zero.join(on_gpu=plan.training.gpus_per_worker > 0)
    clock.lap("import")
    arguments = trainers.arguments(plan, scratch)  # before the weights: ZeRO-3 shards them while they load
    tokenizer = load_tokenizer(plan.base, plan.revision)
    rows = open_rows(plan)
    trainer = trainers.make_trainer(plan, arguments, trainable_model(plan), tokenizer, rows)
    trainer.add_callback(trainers.OnFirstStep(lambda: clock.lap("first_step")))
    clock.lap("load")
    resumed = checkpoint.resume_point(Path(plan.storage))
    trainer.train(resume_from_checkpoint=str(resumed) if resumed else None)
    clock.lap("steps")
    if "validation" in rows:
        trainer.evaluate()
    clock.lap("evaluate")
    artefacts.write(plan, trainer)
    clock.lap("save")
    tokens = int(trainer.accelerator.reduce(torch.tensor(trainer.tokens_here, device=trainer.args.device)))
    if trainer.is_world_process_zero():
        done = summary(trainer, clock.seconds, tokens, checkpoint.step_of(resumed) if resumed else 0)
        (Path(plan.output) / SUMMARY).write_text(json.dumps(done), encoding="utf-8")


def summary(trainer: Any, seconds: dict[str, float], tokens: int, resumed_at: int) -> dict[str, Any]:
    """Figures of this run; rates count what was done since the start or the last restart."""
    training = seconds.get("first_step", 0.0) + seconds["steps"]
    return {
        "seconds": {name: round(value, 2) for name, value in seconds.items()},
        "steps": trainer.state.global_step,
        "resumed_at_step": resumed_at,
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
