"""TRL's SFT and DPO trainers, fed with rows that are already token ids.

Only what differs from TRL is here: rows are not prepared again, their order survives a
restart, DPO takes its reference's log-probabilities from the rows and refuses those of another
model than it started from, and on the CPU the language-model head is computed for completion
tokens only, as TRL does on GPUs.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import trl.trainer.utils
from datasets import Dataset
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from trl import DPOConfig, SFTConfig, SFTTrainer

from pipelines.training import batching, reference
from pipelines.training.checkpoint import SaveCheckpoints
from pipelines.training.dpo import DpoTrainer
from pipelines.training.early import GOALS, EvaluateAndStop
from pipelines.training.metrics import Meter, flops_per_token, mean_context, peak_of
from pipelines.training.objectives import Objective
from pipelines.training.plan import Plan, Task
from pipelines.training.token_rows import ROW, TokenRows
from pipelines.training.tracking import Track, sinks_of
from pipelines.training.watch import Watch
from pipelines.training.zero import deepspeed_config


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


def arguments(plan: Plan, folder: Path, *, universal: bool = False) -> SFTConfig | DPOConfig:
    """Our settings as TRL's; ``folder`` is this worker's own scratch folder for checkpoints.

    ``universal``: training resumes from a checkpoint that universal.py converted.
    """
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
        "lr_scheduler_kwargs": dict(stage.schedule_options) or None,
        "warmup_steps": min(stage.warmup_share, 0.999),
        "weight_decay": stage.weight_decay,
        "max_grad_norm": training.grad_norm,
        "bf16": training.bf16,
        "use_cpu": not on_gpu,
        "gradient_checkpointing": training.gradient_checkpointing,
        "deepspeed": {**deepspeed_config(training), "checkpoint": {"load_universal": universal}},
        "logging_steps": training.log_every,
        "logging_first_step": True,
        "logging_nan_inf_filter": False,
        "save_strategy": "no",  # checkpoint.py says when
        "eval_strategy": "no",  # early.py says when, loop.py evaluates at the end
        "report_to": "none",  # tracking.py reports
        "disable_tqdm": True,
        "dataloader_num_workers": 2 if on_gpu and training.ingest == "memory_map" else 0,
        "dataloader_pin_memory": on_gpu,
        "seed": plan.seed,
        "data_seed": plan.seed,
        "max_length": None,  # tokens.py dropped what is too long
    }
    if plan.task == "dpo":
        return DPOConfig(**common, **objective_of(plan).arguments())
    end_to_end = batching.without_padding(training)
    return SFTConfig(**common, padding_free=end_to_end, dataset_kwargs={"skip_prepare_dataset": True})


def objective_of(plan: Plan) -> Objective:
    """What a DPO run minimises."""
    given = plan.stage.label_smoothing
    return Objective(plan.stage, plan.label_noise or 0.0 if given == "auto" else float(given), plan.mean_weight)


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
        train_dataset=with_positions(rows["train"]),
        eval_dataset=rows.get("validation"),
        processing_class=tokenizer,
    )
    trainer.take(plan)
    trainer.meter = meter(plan, trainer.model, rows["train"])
    if plan.task == "dpo":
        trainer.pursue(objective_of(plan))
        if plan.reference is not None:
            trainer.scored_again = partial(reference.scored_again, Path(plan.tokens), Path(plan.reference))
    trainer.saving, trainer.watch = SaveCheckpoints(plan), Watch(plan, rows["train"], trainer)
    for callback in (trainer.saving, trainer.watch, KeepOrder(trainer), Track(sinks_of(plan))):
        trainer.add_callback(callback)
    if plan.stage.evaluate_every and "validation" in rows:
        trainer.add_callback(EvaluateAndStop(plan.stage, GOALS[plan.task]))
    return trainer


def with_positions(rows: Dataset) -> Dataset:
    """The rows with a column of their positions, by which a batch can be traced to its rows' ids."""
    if ROW in rows.column_names or not isinstance(rows, Dataset):
        return rows
    return rows.add_column(ROW, np.arange(len(rows)))


def meter(plan: Plan, model: Any, rows: Dataset) -> Meter:
    """What measures this worker's rates; the device's peak is that of bfloat16."""
    device = torch.cuda.get_device_name() if plan.training.gpus_per_worker and plan.training.bf16 else None
    return Meter(flops_per_token(model, mean_context(torch.tensor(rows["length"]))), peak_of(device))
