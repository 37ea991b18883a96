"""TRL's DPO on token ids, with the reference's log-probabilities in the rows and no reference model in memory.

Added to TRL's: objectives that it lacks (objectives.py), figures over all held-out pairs that
do not depend on batches or on how many workers there are, and the refusal of a reference that
is not the model training started from.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import trl.trainer.dpo_trainer
from datasets import Dataset
from torch.nn.functional import logsigmoid
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from trl import DPOConfig, DPOTrainer

from configs.errors import TrainingError
from pipelines.training.metrics import divergence
from pipelines.training.objectives import Objective, Pairs
from pipelines.training.token_rows import ROW, TokenRows
from pipelines.training.tokens import MARGIN, REFERENCE_COLUMNS

LN2 = math.log(2)
TOLERANCE = 1e-3
"""How far the first DPO loss may lie from ln 2."""
BF16_NATS = 1.0
"""How far in bfloat16 the mean margin of a first micro-batch may lie from 0 besides, in nats.

There the reference, computed in other batches, is rounded otherwise than the policy. A reply's
log-probability was seen to differ by 0.02 nats (4 layers, 40 tokens, on the CPU) and should differ
by more as layers and tokens do, with their root: by some tenths for 7B. A wrong adapter is off by
many nats. What is held to ``TOLERANCE`` in bfloat16 are the reference's own first batches, once more.
"""
REFERENCE_ADAPTER = "ref"
"""What TRL calls the copy that it makes."""


class DpoTrainer(TokenRows, DPOTrainer):
    """TRL's DPO on ``prompt_ids``, ``chosen_ids``, ``rejected_ids`` and the reference's log-probabilities of both."""

    objective: Objective | None = None
    """What is minimised, where that is not TRL's own loss."""
    scored_again: Callable[[Any], Sequence[float]] | None = None
    """The reference's first batches under a model: margins in nats (``reference.scored_again``)."""

    def __init__(self, *, train_dataset: Dataset, eval_dataset: Dataset | None = None, **rest: Any):
        for rows in (train_dataset, eval_dataset):
            if rows is not None and not {*REFERENCE_COLUMNS} <= {*rows.column_names}:
                raise TrainingError(
                    f"DPO's rows have no {' and '.join(REFERENCE_COLUMNS)}: run the stage's reference first"
                )
        self.held_out: list[torch.Tensor] = []
        with reference_in_the_rows(rest["args"]):
            super().__init__(train_dataset=train_dataset, eval_dataset=eval_dataset, **rest)
        # TRL's frozen copy of an adapter that training continues.
        if REFERENCE_ADAPTER in getattr(self.model, "peft_config", {}):
            self.model.delete_adapter(REFERENCE_ADAPTER)

    def _precompute_ref_logps(self, dataset: Dataset, *_: Any) -> Dataset:
        return dataset

    def pursue(self, objective: Objective) -> None:
        """Minimise ``objective``, of which TRL has been told its part (``Objective.arguments``)."""
        self.objective = objective
        if objective.mean_weight is not None:
            self.carry(MARGIN)
        if objective.stage.beta_to is not None:
            self.add_callback(BetaSchedule(self, objective))

    def _prepare_inputs(self, inputs: dict[str, Any]) -> dict[str, Any]:
        """Keep the reference in float32: under DeepSpeed, transformers would round -501 to bfloat16's -500."""
        kept = [name for name in (*REFERENCE_COLUMNS, MARGIN) if name in inputs]
        exact = {name: inputs[name].to(self.args.device) for name in kept}
        prepared: dict[str, Any] = super()._prepare_inputs(inputs)
        return {**prepared, **exact}

    def compute_loss(self, model: Any, inputs: dict[str, Any], *_: Any, **__: Any) -> torch.Tensor:
        heard = Listener(model)
        known = {name: value for name, value in inputs.items() if name not in (ROW, MARGIN)}
        loss: torch.Tensor = super().compute_loss(heard, known)
        pairs = Pairs.of(heard.outputs.log_probs, known)
        if self.objective is not None and self.objective.ours:
            loss = self.objective.loss(pairs, self.beta, inputs.get(MARGIN))
        with torch.no_grad():
            self.note(pairs)
            if self.state.global_step == 0 and self.model.training:
                self.check_reference(-logsigmoid(self.beta * pairs.margin).mean())
                self.check_again()
        return loss

    def note(self, pairs: Pairs) -> None:
        """Keep the batch's figures: of training their mean, of held-out pairs each pair's."""
        chosen, rejected = divergence(pairs).chunk(2)
        each = torch.stack([self.beta * pairs.margin, (pairs.margin > 0).float(), chosen, rejected], dim=1)
        every = self.accelerator.gather_for_metrics(each)
        if self.model.training:
            self._metrics["train"]["kl"].append(every[:, 2:].mean().item())
            if self.objective is not None and self.objective.stage.beta_to is not None:
                self._metrics["train"]["beta"].append(self.beta)
        else:
            self.held_out.append(every.float().cpu())

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        if self.held_out and not self.model.training:
            margin, right, chosen, rejected = torch.cat(self.held_out).double().mean(0).tolist()
            self.held_out.clear()
            own = {"rewards/margins": margin, "rewards/accuracies": right, "kl": (chosen + rejected) / 2}
            self._metrics["eval"].update({name: [value] for name, value in own.items()})
        super().log(logs, *args, **kwargs)

    def check_reference(self, loss: torch.Tensor, rounding: float | None = None) -> None:
        """Before any step, policy and reference are one model, so every pair's sigmoid loss is ln 2.

        All workers learn of the largest deviation and raise together: one that raised alone
        would leave the others waiting for it. ``rounding`` is what may be added to ``TOLERANCE``, by
        default what bfloat16 needs. Raises TrainingError with both numbers.
        """
        losses = self.accelerator.gather(loss.detach().float().reshape(1))
        worst = max(losses.tolist(), key=lambda value: abs(value - LN2) if math.isfinite(value) else math.inf)
        if rounding is None:  # the loss's slope in the margin is beta / 2
            rounding = self.beta / 2 * BF16_NATS if self.args.bf16 else 0.0
        if not abs(worst - LN2) <= TOLERANCE + rounding:
            raise TrainingError(
                f"the first DPO loss is {worst:.6f} and must be ln 2 = {LN2:.6f}: the reference is not the model that "
                "training started from; check the adapter this stage continues and the base it was trained on"
            )

    def check_again(self) -> None:
        """In bfloat16, hold the policy to ``TOLERANCE`` on the very batches that the reference was computed in."""
        if self.scored_again is None or not self.args.bf16:
            return
        whole = self.accelerator.unwrap_model(self.model)
        whole.eval()
        margins = self.scored_again(whole.get_base_model() if hasattr(whole, "get_base_model") else whole)
        whole.train()
        self.scored_again = None
        own = torch.tensor(margins, device=self.args.device)
        self.check_reference(-logsigmoid(self.beta * own).mean(), rounding=0.0)


class Listener:
    """A model that keeps what it last answered: TRL's loss keeps the log-probabilities to itself."""

    def __init__(self, model: Any):
        self.model = model
        self.outputs: Any = None

    def __call__(self, **inputs: Any) -> Any:
        self.outputs = self.model(**inputs)
        return self.outputs


class BetaSchedule(TrainerCallback):
    """Sets beta before each step, from the step's number alone: a restart goes on where it was."""

    def __init__(self, trainer: DpoTrainer, objective: Objective):
        self.trainer = trainer
        self.objective = objective

    def on_step_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self.trainer.beta = self.objective.beta(state.global_step, state.max_steps)


@contextmanager
def reference_in_the_rows(args: DPOConfig) -> Iterator[None]:
    """Within, TRL's trainer is made without a model for the reference, which it would otherwise load or compute with.

    Told so in its arguments, it would first hash all weights, to name a file it is not to write.
    """
    args.precompute_ref_log_probs = True
    hash_of = trl.trainer.dpo_trainer.hash_module
    trl.trainer.dpo_trainer.hash_module = lambda *_: ""
    try:
        yield
    finally:
        trl.trainer.dpo_trainer.hash_module = hash_of
