"""What our trainers add to TRL's, in this process and without DeepSpeed."""

import math
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import trl
import trl.trainer.utils
from datasets import Dataset
from peft import PeftModel
from transformers import TrainerControl, TrainerState
from trl import DPOConfig, SFTConfig

from configs.errors import TrainingError
from configs.settings import Settings
from pipelines.training import build
from pipelines.training.dpo import LN2, DpoTrainer
from pipelines.training.rows import cache_folder, open_rows
from pipelines.training.tokens import REFERENCE_COLUMNS
from pipelines.training.trainers import KeepOrder, LmTrainer, SftTrainer, score_labels_only_on_the_cpu
from pipelines.training.weights import load_model, load_tokenizer
from tests.pipelines.training.conftest import Build, Inputs

PLAIN: dict[str, Any] = {
    "max_steps": 1,
    "per_device_train_batch_size": 2,
    "use_cpu": True,
    "bf16": False,
    "report_to": "none",
    "save_strategy": "no",
    "max_length": None,
    "disable_tqdm": True,
    "gradient_checkpointing": False,
}


def dataset(folder: Path, cache: Path) -> Dataset:
    return Dataset.from_parquet([str(f) for f in sorted((folder / "train").glob("*.parquet"))], cache_dir=str(cache))


@pytest.fixture
def rows(settings: Settings, dpo_inputs: Inputs, tmp_path: Path) -> Iterator[dict[str, Dataset]]:
    """GM's pairs as workers open them, with the reference's log-probabilities."""
    plan = build.plan_of(settings, dpo_inputs, tmp_path, "gm", "dpo1", tmp_path.name)
    yield open_rows(plan)
    shutil.rmtree(cache_folder(plan))


@pytest.fixture
def dpo(base_model: Path, sft_adapter: Path, rows: dict[str, Dataset], tmp_path: Path) -> DpoTrainer:
    return DpoTrainer(train_dataset=rows["train"], **dpo_words(base_model, sft_adapter, tmp_path))


def dpo_words(base: Path, adapter: Path, output: Path, **args: Any) -> dict[str, Any]:
    """What both our trainer and TRL's are given beside rows."""
    return {
        "model": PeftModel.from_pretrained(load_model(str(base)), str(adapter), is_trainable=True),
        "args": DPOConfig(output_dir=str(output), **PLAIN | args),
        "processing_class": load_tokenizer(str(base)),
    }


def test_dpo_holds_no_reference_in_memory(dpo: DpoTrainer) -> None:
    assert dpo.ref_model is None
    assert set(dpo.model.peft_config) == {"default"}
    assert not [name for name in dpo.model.state_dict() if "ref" in name]
    assert [name for name, weight in dpo.model.named_parameters() if weight.requires_grad and "lora_" in name]
    dpo.train()


class StockDpo(trl.DPOTrainer):
    """TRL's trainer with its frozen copy of the adapter, which is only told that the rows are tokens already."""

    batching = DpoTrainer.batching
    max_length = DpoTrainer.max_length

    def _prepare_dataset(self, dataset: Dataset, *_: Any, **__: Any) -> Dataset:
        return dataset


def test_stored_log_probabilities_train_the_very_model_that_a_reference_in_memory_does(
    base_model: Path, sft_adapter: Path, rows: dict[str, Dataset], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two epochs of our trainer and of TRL's, from one seed and in one order."""
    pairs = rows["train"]
    fast = {"max_steps": 16, "learning_rate": 1e-2, "logging_steps": 1}
    monkeypatch.setattr(StockDpo, "_get_train_sampler", DpoTrainer._get_train_sampler)
    ours = DpoTrainer(train_dataset=pairs, **dpo_words(base_model, sft_adapter, tmp_path / "ours", **fast))
    stock = StockDpo(
        train_dataset=pairs.remove_columns(list(REFERENCE_COLUMNS)),
        **dpo_words(base_model, sft_adapter, tmp_path / "stock", **fast),
    )
    losses = []
    for trainer in (ours, stock):
        trainer.train()
        losses.append([point["loss"] for point in trainer.state.log_history if "loss" in point])
    assert losses[0] == pytest.approx(losses[1], abs=1e-4)
    assert losses[0][0] == pytest.approx(LN2, abs=1e-3) and losses[0][-1] < LN2 - 0.05
    weights = dict(stock.model.named_parameters())
    assert all(torch.allclose(w, weights[n], atol=1e-4) for n, w in ours.model.named_parameters() if "lora_" in n)


def test_rows_without_a_reference_are_refused(
    base_model: Path, sft_adapter: Path, rows: dict[str, Dataset], tmp_path: Path
) -> None:
    bare = rows["validation"].remove_columns("ref_chosen_logps")
    with pytest.raises(TrainingError, match="no ref_chosen_logps and ref_rejected_logps: run the stage's reference"):
        DpoTrainer(train_dataset=rows["train"], eval_dataset=bare, **dpo_words(base_model, sft_adapter, tmp_path))


def test_a_wrong_reference_stops_dpo_at_its_first_step_with_both_numbers(dpo: DpoTrainer) -> None:
    with torch.no_grad():
        for name, weight in dpo.model.named_parameters():
            if "lora_B" in name:
                weight.add_(0.05)
    with pytest.raises(TrainingError, match=r"first DPO loss is \d\.\d+ and must be ln 2 = 0\.693147"):
        dpo.train()
    assert dpo.state.global_step == 0


@pytest.mark.parametrize("loss", [math.log(2) + 2e-3, math.log(2) - 2e-3, math.nan, 0.0])
def test_a_first_loss_that_is_not_ln_2_is_refused(dpo: DpoTrainer, loss: float) -> None:
    with pytest.raises(TrainingError):
        dpo.check_reference(torch.tensor(loss))


def test_rounding_is_no_wrong_reference(dpo: DpoTrainer) -> None:
    dpo.check_reference(torch.tensor(math.log(2) + 5e-4))


def test_bfloat16_may_round_a_margin_by_a_nat_and_not_by_more(dpo: DpoTrainer) -> None:
    dpo.args.bf16 = True
    dpo.check_reference(torch.tensor(math.log(2) + dpo.beta / 2))
    with pytest.raises(TrainingError, match="must be ln 2"):
        dpo.check_reference(torch.tensor(math.log(2) + dpo.beta))


def test_a_restart_in_a_later_epoch_goes_on_in_that_epoch_s_order(dpo: DpoTrainer) -> None:
    fresh = list(dpo._get_train_sampler())
    state = TrainerState()
    state.epoch = 1.5
    KeepOrder(dpo).on_epoch_begin(dpo.args, state, TrainerControl())
    assert dpo.order is not None and dpo.order.epoch == 1
    assert list(dpo.order) != fresh


def test_language_modelling_learns_every_token_but_padding(base_model: Path, tokenised: Build, tmp_path: Path) -> None:
    """The plain loss that the base is trained with is TRL's, where every token is a label."""
    rows = dataset(tokenised("sft"), tmp_path / "cache").select_columns(["input_ids", "length"])
    losses = []
    for kind in (LmTrainer, SftTrainer):
        trainer = kind(
            model=load_model(str(base_model)),
            args=SFTConfig(output_dir=str(tmp_path), dataset_kwargs={"skip_prepare_dataset": True}, **PLAIN),
            train_dataset=rows,
            processing_class=load_tokenizer(str(base_model)),
        )
        batch = next(iter(trainer.get_train_dataloader()))
        assert (batch["labels"][batch["attention_mask"] == 0] == -100).all()
        assert (batch["labels"] != -100).sum() == batch["attention_mask"].sum()
        losses.append(trainer.compute_loss(trainer.model, dict(batch)).item())
        trainer.train()
        assert trainer.tokens_here == batch["attention_mask"].sum()
    assert losses[0] == pytest.approx(losses[1], abs=1e-5)


def test_skipping_positions_without_label_changes_no_loss(
    base_model: Path, tokenised: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """TRL's head with and without our switch, on one batch, down to the gradient."""
    trainer = SftTrainer(
        model=load_model(str(base_model)),
        args=SFTConfig(output_dir=str(tmp_path), dataset_kwargs={"skip_prepare_dataset": True}, **PLAIN),
        train_dataset=dataset(tokenised("sft"), tmp_path / "cache"),
        processing_class=load_tokenizer(str(base_model)),
    )
    batch = next(iter(trainer.get_train_dataloader()))
    every = trl.trainer.utils._use_triton
    results = []
    for switch in (lambda: monkeypatch.setattr(trl.trainer.utils, "_use_triton", every), score_labels_only_on_the_cpu):
        switch()
        trainer.model.zero_grad()
        loss = trainer.compute_loss(trainer.model, dict(batch))
        loss.backward()
        results.append((loss.item(), trainer.model.get_input_embeddings().weight.grad.clone()))
    monkeypatch.setattr(trl.trainer.utils, "_use_triton", every)
    assert results[0][0] == pytest.approx(results[1][0], abs=1e-6)
    assert torch.allclose(results[0][1], results[1][1], atol=1e-6)
