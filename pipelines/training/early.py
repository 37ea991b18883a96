"""Evaluating while training, stopping when it no longer helps, and exporting the best step.

Everything is decided from the evaluations in the trainer's state, which travels with every
checkpoint: a restart, and one with other workers, decides as the undisturbed run would. Each
new best step is saved as it comes, and kept until training ends (checkpoint.py).
"""

import json
import logging
import math
from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from configs.training import StageSettings
from pipelines.training import checkpoint
from pipelines.training.plan import Task

logger = logging.getLogger("llumi.training")

ADAPTER = "adapter_model.safetensors"
WHOLE = "model.safetensors"
INDEX = "model.safetensors.index.json"


@dataclass(frozen=True)
class Goal:
    """The held-out figure that decides."""

    name: str
    """Its name in the trainer's log."""
    rises: bool
    """Whether more is better."""

    def gain(self, value: float, over: float) -> float:
        """How much better ``value`` is; -inf where it is no number."""
        return (value - over if self.rises else over - value) if math.isfinite(value) else -math.inf


ACCURACY = Goal("eval_rewards/accuracies", rises=True)
LOSS = Goal("eval_loss", rises=False)
GOALS: Mapping[Task, Goal] = {"dpo": ACCURACY, "sft": LOSS, "lm": LOSS}


def evaluations(history: Iterable[Mapping[str, Any]], goal: Goal) -> list[tuple[int, float]]:
    """Step and figure of each evaluation in a trainer's ``log_history``, oldest first."""
    return [(int(point["step"]), float(point[goal.name])) for point in history if goal.name in point]


def best(found: Sequence[tuple[int, float]], goal: Goal) -> tuple[int, float] | None:
    """The earliest of the best evaluations; None where there is none with a number."""
    winner: tuple[int, float] | None = None
    for step, value in found:
        if math.isfinite(value) and (winner is None or goal.gain(value, winner[1]) > 0):
            winner = (step, value)
    return winner


def fruitless(found: Sequence[tuple[int, float]], goal: Goal, min_delta: float) -> int:
    """How many evaluations came since the last one that was better than all before it by more than ``min_delta``."""
    reached, since = None, 0
    for _, value in found:
        if math.isfinite(value) and (reached is None or goal.gain(value, reached) > min_delta):
            reached, since = value, 0
        else:
            since += 1
    return since


class EvaluateAndStop(TrainerCallback):
    """Asks for evaluations, has each best step saved, and stops as the stage's ``early_stopping`` says."""

    def __init__(self, stage: StageSettings, goal: Goal):
        self.stage = stage
        self.goal = goal

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> TrainerControl:
        due = state.global_step % self.stage.evaluate_every == 0
        control.should_evaluate = due and state.global_step < state.max_steps  # loop.py evaluates the last step
        if self.exhausted(evaluations(state.log_history, self.goal)):  # a restart after the decision
            control.should_training_stop = True
        return control

    def on_evaluate(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> TrainerControl:
        found = evaluations(state.log_history, self.goal)
        decided: list[Any] = [best(found, self.goal), self.exhausted(found)]
        if dist.is_initialized():
            dist.broadcast_object_list(decided, src=0)  # all ranks saw the same figures; this makes sure
        if decided[0] is not None:
            state.best_global_step, state.best_metric = decided[0]
        if state.best_global_step == state.global_step and state.global_step < state.max_steps:
            control.should_save = True
        control.should_training_stop = control.should_training_stop or bool(decided[1])
        return control

    def exhausted(self, found: Sequence[tuple[int, float]]) -> bool:
        """Whether the evaluations so far say to stop."""
        stopping = self.stage.early_stopping
        return stopping is not None and fruitless(found, self.goal, stopping.min_delta) >= stopping.patience


def evaluated(state: TrainerState) -> bool:
    """Whether the last step has been evaluated already."""
    return any(LOSS.name in point and point["step"] == state.global_step for point in state.log_history)


def restore_best(trainer: Any, storage: Path) -> int:
    """Put the best step's weights into the model; returns the step whose weights it now holds.

    Called by all workers after training. Where the best step's checkpoint is not in storage, the
    last step's weights stay, with a warning.
    """
    state = trainer.state
    step, last = state.best_global_step, int(state.global_step)
    if step is None or step == last:
        return last
    folder = checkpoint.at(storage, step)
    found = [None if folder is None else str(folder)]
    if dist.is_initialized():
        dist.broadcast_object_list(found, src=0)
    if found[0] is None:
        logger.warning("the checkpoint of the best step %d is not in storage: the last step %d is exported", step, last)
        return last
    load_weights(trainer.accelerator.unwrap_model(trainer.model), Path(found[0]))
    return int(step)


def load_weights(model: Any, folder: Path) -> None:
    """Load a checkpoint's weights into the model as it trains, sharded by ZeRO-3 or not, whatever number of workers.

    Only weights: optimizer states of another number of workers would not fit, and are not needed.
    """
    from safetensors.torch import load_file

    if (folder / ADAPTER).is_file():
        from peft import set_peft_model_state_dict

        with whole([p for p in model.parameters() if p.requires_grad]):
            set_peft_model_state_dict(model, load_file(folder / ADAPTER))
        return
    named = dict(model.named_parameters())
    for file in files_of_model(folder):
        for name, weight in load_file(folder / file).items():
            if name in named:
                with whole([named[name]]), torch.no_grad():
                    named[name].copy_(weight)


def files_of_model(folder: Path) -> list[str]:
    """Files of a whole model's weights, one or several with an index."""
    if not (folder / INDEX).is_file():
        return [WHOLE]
    index = json.loads((folder / INDEX).read_text(encoding="utf-8"))
    return sorted(set(index["weight_map"].values()))


def whole(parameters: Sequence[Any]) -> Any:
    """Within, the parameters are whole and may be written to, on every worker alike."""
    sharded = [p for p in parameters if hasattr(p, "ds_id")]
    if not sharded:
        return nullcontext()
    from deepspeed.runtime.zero import GatheredParameters

    return GatheredParameters(sharded, modifier_rank=0)
