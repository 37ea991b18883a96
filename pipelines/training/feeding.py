"""How rows come to the steps of TRL's trainers: in our order, from the node's disk or from a stream."""

from collections.abc import Sequence
from typing import Any

import torch
from datasets import Dataset
from torch.utils.data import DataLoader, Sampler
from transformers import TrainingArguments

from configs.errors import TrainingError
from configs.training import Batching
from pipelines.training.plan import Plan
from pipelines.training.sampling import Packed, Shuffled, order_of
from pipelines.training.streaming import StreamedRows, shard


class Fed:
    """Part of a trainer: its order of rows, and its loader of training rows."""

    args: TrainingArguments
    train_dataset: Dataset
    data_collator: Any
    accelerator: Any

    order: Shuffled | Packed | None = None
    batching: Batching = "length_grouped"
    max_length = 0
    """Tokens that a packed micro-batch holds for each row it counts as."""
    plan: Plan | None = None
    """Of a run whose rows are streamed."""
    looked_at = False
    """Whether this worker's first micro-batch was found to be masked as it should be."""

    def take(self, plan: Plan) -> None:
        """Bring rows as the plan says; DPO's are never laid end to end."""
        training = plan.training
        self.batching = training.batching if plan.task != "dpo" else padded(training.batching)
        self.max_length = training.max_length
        self.plan = plan if training.ingest == "stream" else None

    def _get_train_sampler(self, train_dataset: Dataset | None = None) -> Sampler[Any]:
        self.order = order_of(
            self.batching,
            self.train_dataset["length"],
            self.args.seed,
            micro_batch=self.args.train_batch_size,
            micro_batches=self.args.gradient_accumulation_steps * self.args.world_size,
            max_length=self.max_length,
        )
        return self.order

    def get_train_dataloader(self) -> DataLoader[Any]:
        """transformers' loader; of rows from a stream, or of packed ones, which it does not know."""
        if self.plan is not None:
            return self._get_dataloader(  # type: ignore[attr-defined]
                dataset=self.streamed(self.plan),
                description="Training",
                batch_size=self.args.train_batch_size,
                sampler_fn=self._get_train_sampler,
                is_training=True,
            )
        if self.batching != "packed":
            return super().get_train_dataloader()  # type: ignore[misc]
        rows = self._remove_unused_columns(self.train_dataset, description="Training")  # type: ignore[attr-defined]
        loader = DataLoader(
            rows,
            batch_sampler=self._get_train_sampler(),
            collate_fn=self.data_collator,
            num_workers=self.args.dataloader_num_workers,
            pin_memory=self.args.dataloader_pin_memory,
        )
        return self.accelerator.prepare(loader)

    def streamed(self, plan: Plan) -> StreamedRows:
        """The rows of this worker as Ray Data sends them, from the step on that training stands at."""
        return StreamedRows(
            lambda: shard(plan),
            len(self.train_dataset),
            lambda: self.state.global_step,  # type: ignore[attr-defined]
        )

    def training_step(self, model: Any, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> torch.Tensor:
        if not self.looked_at:
            self.looked_at = True
            self.check_masks(inputs)
        return super().training_step(model, inputs, *args, **kwargs)  # type: ignore[misc]

    def check_masks(self, inputs: dict[str, Any]) -> None:
        """Raises TrainingError, on all workers alike, where the first micro-batch of one is masked wrongly."""
        end = self.processing_class.eos_token_id  # type: ignore[attr-defined]
        wrong = torch.tensor([len(wrongly_masked(inputs, end))], device=self.args.device)
        found = int(self.accelerator.gather(wrong).sum())
        if found:
            raise TrainingError(
                f"{found} sequences of the first micro-batches learn padding, or do not end learning with the "
                "end-of-sequence token: their tokens are not those that tokens.py makes; make them again with --force"
            )


def padded(batching: Batching) -> Batching:
    """What stands in for a way of batching where rows have to be padded."""
    return batching if batching == "random" else "length_grouped"


def wrongly_masked(inputs: dict[str, Any], end: int) -> Sequence[int]:
    """The sequences of a collated micro-batch that learn padding or nothing, or do not end to learn at ``end``.

    ``inputs`` hold ``input_ids`` [sequences, tokens], ``attention_mask`` but for rows without padding,
    and ``labels`` or, for pairs, ``completion_mask``.
    """
    ids = inputs["input_ids"]
    learned = inputs["labels"] != -100 if "labels" in inputs else inputs["completion_mask"].bool()
    if "attention_mask" not in inputs:  # one long sequence; each of its rows ends before the next position 0
        following = torch.cat([inputs["position_ids"][0, 1:], ids.new_zeros(1)])
        last = (following == 0).nonzero().flatten()
        good = (ids[0, last] == end) & learned[0, last]
        return [int(at) for at in (~good).nonzero().flatten()]
    padding = inputs["attention_mask"] == 0
    positions = torch.arange(ids.shape[1], device=ids.device).expand_as(ids)
    last = torch.where(learned, positions, -1).amax(dim=1)
    ended = ids.gather(1, last.clamp(min=0)[:, None])[:, 0] == end
    good = ended & (last >= 0) & ~(learned & padding).any(dim=1)
    return [int(at) for at in (~good).nonzero().flatten()]
