"""TRL's SFT and DPO trainers, fed with rows that are already token ids.

Only what differs from TRL is here: rows are not prepared again, their order survives a
restart, DPO takes its reference's log-probabilities from the rows and refuses those of another
model than it started from, and on the CPU the language-model head is computed for completion
tokens only, as TRL does on GPUs.
"""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import trl.trainer.utils
from datasets import Dataset
from torch.utils.data import Sampler
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from trl import DPOConfig, DPOTrainer, SFTConfig, SFTTrainer

from configs.errors import TrainingError
from pipelines.training.checkpoint import ReportCheckpoints
from pipelines.training.plan import Plan, Task
from pipelines.training.sampling import LengthGrouped
from pipelines.training.tokens import REFERENCE_COLUMNS
from pipelines.training.zero import deepspeed_config

LN2 = math.log(2)
TOLERANCE = 1e-3
"""How far the first DPO loss may lie from ln 2."""
BF16_NATS = 1.0
"""How far in bfloat16 the mean margin of a first micro-batch may lie from 0 besides, in nats.

There the reference, computed in other batches, is rounded otherwise than the policy. A reply's
log-probability was seen to differ by 0.02 nats (4 layers, 40 tokens, on the CPU) and should differ
by more as layers and tokens do, with their root: by some tenths for 7B. A wrong adapter is off by
many nats.
"""
REFERENCE_ADAPTER = "ref"
"""What TRL calls the copy that it makes."""


class TokenRows:
    """What both trainers do alike."""

    args: TrainingArguments
    train_dataset: Dataset

    order: LengthGrouped | None = None
    tokens_here = 0
    """Tokens that this worker has trained on since it started, padding not counted."""

    def _get_train_sampler(self, train_dataset: Dataset | None = None) -> Sampler[int]:
        step = self.args.train_batch_size * self.args.gradient_accumulation_steps * self.args.world_size
        self.order = LengthGrouped(self.train_dataset["length"], step, self.args.seed)
        return self.order

    def training_step(self, model: Any, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> torch.Tensor:
        self.tokens_here += int(inputs["attention_mask"].sum())
        loss: torch.Tensor = super().training_step(model, inputs, *args, **kwargs)  # type: ignore[misc]
        return loss

    def _prepare_dataset(self, dataset: Dataset, *_: Any, **__: Any) -> Dataset:
        return dataset

    def create_model_card(self, *_: Any, **__: Any) -> None:
        """TRL would write one into every checkpoint; ours is written once, beside the adapter."""


class SftTrainer(TokenRows, SFTTrainer):
    """TRL's SFT on ``input_ids`` and ``labels``."""


class LmTrainer(SftTrainer):
    """Language modelling on ``input_ids``, with the model's own loss.

    Every position is scored here, and for that TRL's fused head takes twice the time of the
    plain one on the CPU: it spares the memory of whole logits, which are small where the
    vocabulary is.
    """

    def compute_loss(self, *args: Any, **kwargs: Any) -> Any:
        return Trainer.compute_loss(self, *args, **kwargs)


class DpoTrainer(TokenRows, DPOTrainer):
    """TRL's DPO on ``prompt_ids``, ``chosen_ids``, ``rejected_ids`` and the reference's log-probabilities of both."""

    def __init__(self, *, train_dataset: Dataset, eval_dataset: Dataset | None = None, **rest: Any):
        for rows in (train_dataset, eval_dataset):
            if rows is not None and not {*REFERENCE_COLUMNS} <= {*rows.column_names}:
                raise TrainingError(
                    f"DPO's rows have no {' and '.join(REFERENCE_COLUMNS)}: run the stage's reference first"
                )
        super().__init__(train_dataset=train_dataset, eval_dataset=eval_dataset, **rest)
        # Told so in its arguments, TRL would hash all weights and compute the columns again.
        self.precompute_ref_logps = True
        if REFERENCE_ADAPTER in self.model.peft_config:  # TRL's frozen copy of an adapter that training continues
            self.model.delete_adapter(REFERENCE_ADAPTER)

    def _prepare_inputs(self, inputs: dict[str, Any]) -> dict[str, Any]:
        """Keep the reference in float32: under DeepSpeed, transformers would round -501 to bfloat16's -500."""
        exact = {name: inputs[name].to(self.args.device) for name in REFERENCE_COLUMNS}
        prepared: dict[str, Any] = super()._prepare_inputs(inputs)
        return {**prepared, **exact}

    def compute_loss(self, *args: Any, **kwargs: Any) -> Any:
        result = super().compute_loss(*args, **kwargs)
        if self.state.global_step == 0 and self.model.training:
            self.check_reference(result[0] if isinstance(result, tuple) else result)
        return result

    def check_reference(self, loss: torch.Tensor) -> None:
        """Before any step, policy and reference are one model, so every pair's loss is ln 2.

        All workers learn of the largest deviation and raise together: one that raised alone
        would leave the others waiting for it. Raises TrainingError with both numbers.
        """
        losses = self.accelerator.gather(loss.detach().float().reshape(1))
        worst = max(losses.tolist(), key=lambda value: abs(value - LN2) if math.isfinite(value) else math.inf)
        rounding = self.beta / 2 * BF16_NATS if self.args.bf16 else 0.0  # the loss's slope in the margin is beta / 2
        if not abs(worst - LN2) <= TOLERANCE + rounding:
            raise TrainingError(
                f"the first DPO loss is {worst:.6f} and must be ln 2 = {LN2:.6f}: the reference is not the model that "
                "training started from; check the adapter this stage continues and the base it was trained on"
            )


class KeepOrder(TrainerCallback):
    """Tells the sampler which epoch begins.

    accelerate does so too, but not through the extra layer it adds after a restart in
    mid-epoch, and a resumed second epoch would go through the first one's order.
    """

    def __init__(self, trainer: TokenRows):
        self.trainer = trainer

    def on_epoch_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if self.trainer.order is not None:
            self.trainer.order.set_epoch(int(state.epoch or 0))


class OnFirstStep(TrainerCallback):
    """Calls back once, after the first step, in which the optimizer is built too."""

    def __init__(self, call: Callable[[], None]):
        self.call: Callable[[], None] | None = call

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if self.call is not None:
            self.call()
            self.call = None


class StopOnBadLoss(TrainerCallback):
    """Stops training that has diverged; the logged loss is the mean over workers, so all stop."""

    def on_log(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, logs: dict[str, Any], **_: Any
    ) -> None:
        loss = logs.get("loss")
        if loss is not None and not math.isfinite(float(loss)):
            raise TrainingError(f"the loss is {loss} at step {state.global_step}: lower the stage's learning_rate")


def arguments(plan: Plan, folder: Path) -> SFTConfig | DPOConfig:
    """Our settings as TRL's; ``folder`` is this worker's own scratch folder for checkpoints."""
    stage, training = plan.stage, plan.training
    on_gpu = training.gpus_per_worker > 0
    common: dict[str, Any] = {
        "output_dir": str(folder),
        "per_device_train_batch_size": stage.micro_batch,
        "per_device_eval_batch_size": stage.micro_batch,
        "gradient_accumulation_steps": stage.accumulation,
        "num_train_epochs": stage.epochs,
        "max_steps": stage.max_steps or -1,
        "learning_rate": stage.learning_rate,
        "lr_scheduler_type": stage.schedule,
        "warmup_steps": min(stage.warmup_share, 0.999),
        "weight_decay": stage.weight_decay,
        "max_grad_norm": training.grad_norm,
        "bf16": training.bf16,
        "use_cpu": not on_gpu,
        "gradient_checkpointing": training.gradient_checkpointing,
        "deepspeed": deepspeed_config(training),
        "logging_steps": training.log_every,
        "logging_first_step": True,
        "logging_nan_inf_filter": False,
        "save_strategy": "no",  # checkpoint.py says when
        "eval_strategy": "no",  # loop.py evaluates once, at the end
        "report_to": "none",
        "disable_tqdm": True,
        "dataloader_num_workers": 2 if on_gpu else 0,
        "dataloader_pin_memory": on_gpu,
        "seed": plan.seed,
        "data_seed": plan.seed,
        "max_length": None,  # tokens.py dropped what is too long
    }
    if plan.task == "dpo":
        return DPOConfig(**common, beta=stage.beta)
    return SFTConfig(**common, dataset_kwargs={"skip_prepare_dataset": True})


def score_labels_only_on_the_cpu() -> None:
    """Have TRL's fused head skip positions without a label on the CPU as well.

    TRL does so where Triton runs and elsewhere scores every position, to keep shapes static
    for compilers that need it. Nothing is compiled here, and prompts are most of a row.
    """
    trl.trainer.utils._use_triton = lambda device: device.type in {"cpu", "cuda", "xpu"}


KINDS: dict[Task, Any] = {"lm": LmTrainer, "sft": SftTrainer, "dpo": DpoTrainer}


def make_trainer(plan: Plan, args: SFTConfig | DPOConfig, model: Any, tokenizer: Any, rows: dict[str, Dataset]) -> Any:
    """The trainer of the plan's task, on ``rows`` "train" and perhaps "validation"."""
    if plan.training.gpus_per_worker == 0:
        score_labels_only_on_the_cpu()
    trainer = KINDS[plan.task](
        model=model,
        args=args,
        train_dataset=rows["train"],
        eval_dataset=rows.get("validation"),
        processing_class=tokenizer,
        callbacks=[ReportCheckpoints(Path(plan.storage), plan.stage.save_every), StopOnBadLoss()],
    )
    trainer.add_callback(KeepOrder(trainer))
    return trainer
