"""Rows laid end to end: the same loss, and refusal where attention would not keep them apart."""

from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from trl import SFTConfig

from configs import load
from configs.errors import ConfigError
from pipelines.training import batching
from pipelines.training.sampling import Packed
from pipelines.training.trainers import SftTrainer
from pipelines.training.weights import load_model, load_tokenizer
from tests.pipelines.training.steps import END, tiny_base
from tests.pipelines.training.test_trainers import PLAIN

FLASH = "model.attention=flash_attention_2"
GPU = "training.gpus_per_worker=1"


@pytest.mark.parametrize("way", ["padding_free", "packed"])
@pytest.mark.parametrize(
    ("sets", "reason"),
    [
        ([GPU], "needs FlashAttention, and model.attention is sdpa.*set model.attention to flash_attention_2"),
        ([FLASH], "needs FlashAttention, which has no CPU; set training.gpus_per_worker"),
        ([FLASH, GPU], None),
        (["model.attention=kernels-community/flash-attn3", GPU], None),
    ],
)
def test_rows_are_laid_end_to_end_only_where_attention_keeps_them_apart(
    way: str, sets: list[str], reason: str | None
) -> None:
    settings = load("demo", [f"training.batching={way}", *sets])
    if reason is None:
        batching.check(settings.training, settings.model.attention)
        return
    with pytest.raises(ConfigError, match=rf"training\.batching: {way} {reason}"):
        batching.check(settings.training, settings.model.attention)


def test_packing_chooses_from_the_whole_set_and_so_refuses_a_stream() -> None:
    settings = load("demo", ["training.batching=packed", "training.ingest=stream", FLASH, GPU])
    with pytest.raises(ConfigError, match=r"packed chooses rows from all over the set.*set training\.batching"):
        batching.check(settings.training, settings.model.attention)


@pytest.mark.parametrize("way", ["length_grouped", "random"])
def test_padded_rows_run_anywhere_streamed_or_not(way: str) -> None:
    settings = load("demo", [f"training.batching={way}", "training.ingest=stream"])
    batching.check(settings.training, settings.model.attention)


def rows_of(lengths: list[int]) -> Dataset:
    ids = [[*(3 + (k * 7 + at) % 200 for at in range(length - 1)), END] for k, length in enumerate(lengths)]
    labels = [[-100] * (length // 2) + row[length // 2 :] for row, length in zip(ids, lengths, strict=True)]
    numbers = {"length": lengths, "row": list(range(len(lengths)))}
    return Dataset.from_dict({"input_ids": ids, "labels": labels, **numbers})


def trainer(base: Path, rows: Dataset, way: Any, output: Path, **words: Any) -> SftTrainer:
    """Our trainer, in this process; attention is torch's, whose mask of all tokens by all keeps rows apart too."""
    args = SFTConfig(
        output_dir=str(output),
        dataset_kwargs={"skip_prepare_dataset": True},
        padding_free=way in batching.WITHOUT_PADDING,
        **{**PLAIN, **words},
    )
    made = SftTrainer(
        model=load_model(str(base)), args=args, train_dataset=rows, processing_class=load_tokenizer(str(base))
    )
    made.batching, made.max_length = way, 40
    return made


def test_rows_laid_end_to_end_give_the_loss_and_gradient_of_padded_ones(tmp_path: Path) -> None:
    base, rows = tiny_base(tmp_path / "base"), rows_of([9, 31, 14, 22])
    found = {}
    for way in ("length_grouped", "padding_free"):
        made = trainer(base, rows, way, tmp_path, per_device_train_batch_size=4)
        batch = next(iter(made.get_train_dataloader()))
        assert ("attention_mask" in batch) == (way == "length_grouped")
        loss = made.compute_loss(made.model, {k: v for k, v in batch.items() if k != "row"})
        loss.backward()
        found[way] = loss.item(), made.model.get_input_embeddings().weight.grad.clone()
    assert found["padding_free"][0] == pytest.approx(found["length_grouped"][0], abs=1e-5)
    assert torch.allclose(found["padding_free"][1], found["length_grouped"][1], atol=1e-5)


def test_packed_rows_are_trained_on_whole_and_counted(tmp_path: Path) -> None:
    base, rows = tiny_base(tmp_path / "base"), rows_of([9, 31, 14, 22, 8, 36, 5])
    made = trainer(base, rows, "packed", tmp_path, per_device_train_batch_size=2, max_steps=-1, num_train_epochs=1)
    batches = list(made.get_train_dataloader())
    assert isinstance(made.order, Packed)
    assert sorted(row for batch in batches for row in batch["row"].tolist()) == list(range(7))
    assert all(batch["input_ids"].shape[0] == 1 and batch["input_ids"].shape[1] <= 2 * 40 for batch in batches)
    made.train()
    assert made.state.global_step == len(batches) == len(made.order)
    assert made.tokens_here == sum(rows["length"])


def test_a_set_of_one_row_trains_on_it_alone(tmp_path: Path) -> None:
    """A step needs more rows than there are: it takes the one again, which leaves the mean loss as it is."""
    base = tiny_base(tmp_path / "base")
    made = trainer(base, rows_of([12]), "length_grouped", tmp_path, per_device_train_batch_size=4)
    batch = next(iter(made.get_train_dataloader()))
    assert batch["row"].tolist() == [0, 0, 0, 0]
    made.train()
    assert made.state.global_step == 1
