"""What SFT's and DPO's trainers do alike: rows that are token ids already, in an order that survives a restart."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from datasets import Dataset
from transformers import TrainingArguments

from pipelines.training.feeding import Fed
from pipelines.training.metrics import Meter, standard_error
from pipelines.training.rows import ROW
from pipelines.training.watch import Watch


@dataclass(frozen=True)
class Carrying:
    """TRL's collator, and beside its batch some columns that it would leave out, one number a row."""

    collate: Callable[[Sequence[Mapping[str, Any]]], dict[str, Any]]
    columns: tuple[str, ...]

    def __call__(self, examples: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        batch = self.collate(examples)
        carried = [name for name in self.columns if name in examples[0]]
        return {**batch, **{name: torch.tensor([row[name] for row in examples]) for name in carried}}


class TokenRows(Fed):
    """What both trainers do alike."""

    args: TrainingArguments
    data_collator: Any

    carried: tuple[str, ...] = (ROW,)
    """Columns that come with a batch beside the model's inputs."""
    watch: Watch | None = None
    meter: Meter | None = None
    tokens_here = 0
    """Tokens that this worker has trained on since it started, padding not counted."""

    def __init__(self, *args: Any, **rest: Any):
        super().__init__(*args, **rest)
        self.data_collator = Carrying(self.data_collator, self.carried)
        self.batch_losses: list[float] = []
        """Held-out losses of the evaluation under way, one a batch and worker."""

    def carry(self, column: str) -> None:
        """Have one more column come with each batch."""
        self.carried = (*self.carried, column)
        self.data_collator = Carrying(self.data_collator.collate, self.carried)

    def _set_signature_columns_if_needed(self) -> None:
        super()._set_signature_columns_if_needed()  # type: ignore[misc]
        self._signature_columns: list[str]
        self._signature_columns += [name for name in self.carried if name not in self._signature_columns]

    def training_step(self, model: Any, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> torch.Tensor:
        mask = inputs.get("attention_mask")  # rows laid end to end have none, and no padding
        tokens = inputs["input_ids"].numel() if mask is None else int(mask.sum())
        self.tokens_here += tokens
        if self.meter is not None:
            self.meter.saw(tokens)
        positions = inputs.pop(ROW, ())
        loss: torch.Tensor = super().training_step(model, inputs, *args, **kwargs)
        if self.watch is not None:
            self.watch.saw(loss, [int(position) for position in positions])
        return loss

    def prediction_step(self, *args: Any, **kwargs: Any) -> tuple[torch.Tensor | None, Any, Any]:
        found: tuple[torch.Tensor | None, Any, Any] = super().prediction_step(*args, **kwargs)  # type: ignore[misc]
        if found[0] is not None:
            self.batch_losses += self.accelerator.gather(found[0].detach().float().reshape(1)).tolist()
        return found

    def _maybe_log_save_evaluate(self, *args: Any, **kwargs: Any) -> None:
        if self.meter is None:
            super()._maybe_log_save_evaluate(*args, **kwargs)  # type: ignore[misc]
            return
        with self.meter.paused():
            super()._maybe_log_save_evaluate(*args, **kwargs)  # type: ignore[misc]

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        if self.meter is not None and "loss" in logs:
            logs |= self.meter.read()
        if "eval_loss" in logs:
            error, batches = standard_error(self.batch_losses), len(self.batch_losses)
            self.batch_losses.clear()
            logs |= {"eval_loss_se": error, "eval_batches": batches} if error is not None else {}
        super().log(logs, *args, **kwargs)  # type: ignore[misc]

    def _prepare_dataset(self, dataset: Dataset, *_: Any, **__: Any) -> Dataset:
        return dataset

    def create_model_card(self, *_: Any, **__: Any) -> None:
        """TRL would write one into every checkpoint; ours is written once, beside the adapter."""
