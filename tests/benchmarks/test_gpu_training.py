"""The GPU benchmark takes the steps that TRL takes, and runs from end to end where there is no GPU."""

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import gpu_steps as steps
from benchmarks import gpu_training
from benchmarks.gpu_libraries import pair_columns, word_tokenizer
from pipelines.training.metrics import flops_per_token

SIZE = steps.SIZES["tiny"]
CPU = torch.device("cpu")
SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "gpu_training.py"


def run(folder: Path, *arguments: str) -> dict[str, Any]:
    """The script in a process of its own, from another folder; its JSON."""
    command = [sys.executable, str(SCRIPT), "--config", "tiny", "--here", "--steps", "2", "--warmup", "1", *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.fixture
def model() -> Any:
    """A tiny model whose adapter is no longer fresh, without dropout."""
    made = steps.make_model(SIZE, CPU, torch.float32, "sdpa", checkpointing=False)
    with torch.no_grad():
        for name, weight in made.named_parameters():
            if "lora_B" in name:
                weight.normal_(std=0.05)
    return made.eval()


def gradients(model: Any, loss: torch.Tensor) -> dict[str, torch.Tensor]:
    """The adapter's gradients of a loss."""
    named = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
    return dict(zip(named, torch.autograd.grad(loss, list(named.values())), strict=True))


def arguments(folder: Path) -> dict[str, Any]:
    """What a trainer on the CPU is told."""
    quiet = {"report_to": "none", "save_strategy": "no", "disable_tqdm": True}
    return {"output_dir": str(folder), "use_cpu": True, "bf16": False, "max_length": None, **quiet}


def test_sft_is_trls_loss_with_trls_gradients(model: Any, tmp_path: Path) -> None:
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    batch = steps.sft_batch(SIZE, CPU, seed=3)
    loss = steps.sft_loss(steps.head_in_torch, model, batch)
    ours = gradients(model, loss)
    rows = Dataset.from_dict({name: batch[name].tolist() for name in ("input_ids", "labels")})
    config = SFTConfig(**arguments(tmp_path), dataset_kwargs={"skip_prepare_dataset": True})
    trainer = SFTTrainer(model=model, args=config, train_dataset=rows, processing_class=word_tokenizer(SIZE.vocabulary))
    theirs = trainer.compute_loss(trainer.model, trainer.data_collator(list(rows)))
    assert float(loss) == pytest.approx(float(theirs), abs=1e-5)
    for name, gradient in gradients(trainer.model, theirs).items():
        assert torch.allclose(gradient, ours[name], atol=1e-6), name


def test_dpo_is_trls_loss_with_trls_gradients_with_and_without_its_reference(model: Any, tmp_path: Path) -> None:
    from datasets import Dataset
    from trl import DPOConfig, DPOTrainer

    class Tokens(DPOTrainer):
        def _prepare_dataset(self, dataset: Any, *_: Any, **__: Any) -> Any:
            return dataset

    batch = steps.dpo_batch(SIZE, CPU, seed=0)
    loss = steps.dpo_loss(steps.head_in_torch, model, batch)
    ours = gradients(model, loss)
    stored = steps.reference_logps(steps.head_in_torch, model, batch)
    assert float(steps.dpo_loss(steps.head_in_torch, model, batch, stored)) == float(loss)
    rows = Dataset.from_dict(pair_columns(SIZE, 1))
    trainer = Tokens(
        model=model,
        args=DPOConfig(**arguments(tmp_path), beta=steps.BETA),
        train_dataset=rows,
        processing_class=word_tokenizer(SIZE.vocabulary),
    )
    trainer.model.delete_adapter("ref")  # so that its reference is the base, as ours is here
    theirs = trainer.compute_loss(trainer.model.eval(), trainer.data_collator(list(rows)))
    assert float(loss) == pytest.approx(float(theirs), abs=1e-5)
    assert abs(float(loss) - math.log(2)) > 1e-3
    for name, gradient in gradients(trainer.model, theirs).items():
        assert torch.allclose(gradient, ours[name], atol=1e-6), name


def test_the_reference_leaves_the_adapter_on_and_its_gradients_wanted(model: Any) -> None:
    batch = steps.dpo_batch(SIZE, CPU, seed=0)
    before = steps.head_in_torch(model, batch)
    steps.reference_logps(steps.head_in_torch, model, batch)
    assert torch.equal(steps.head_in_torch(model, batch), before)
    assert any(weight.requires_grad for weight in model.parameters())


def test_model_flops_are_counted_as_training_counts_them(model: Any) -> None:
    assert steps.flops_per_token(model, SIZE) == flops_per_token(model, SIZE.sequence)


def test_a_device_does_more_where_layers_are_computed_again(model: Any) -> None:
    layers = sum(w.numel() for w in model.parameters()) - 2 * SIZE.vocabulary * SIZE.hidden
    with_, without = (steps.done_per_token(model, SIZE, checkpointing=again) for again in (True, False))
    assert with_ - without == 2.0 * layers + 2.0 * SIZE.layers * SIZE.hidden * SIZE.sequence


def test_it_runs_from_end_to_end_and_both_loops_and_heads_learn_alike(tmp_path: Path) -> None:
    short = ["--config", "tiny", "--here", "--steps", "2", "--warmup", "1", "--no-stock"]
    assert gpu_training.main([*short, "--loop", "torch", "--head", "torch", "--output", str(tmp_path / "torch")]) == 0
    by_torch = json.loads((tmp_path / "torch").read_text())
    by_libraries = run(tmp_path, "--loop", "deepspeed", "--head", "trl")
    assert set(by_torch["dpo"]["ways"]) == {"stored", "reference"}
    assert set(by_libraries["dpo"]["ways"]) == {"stored", "reference", "trl"}
    for task in ("sft", "dpo"):
        for way, one in by_torch[task]["ways"].items():
            other = by_libraries[task]["ways"][way]
            assert (one["loop"], one["head"]) == ("torch", "torch")
            assert (other["loop"], other["head"]) == ("deepspeed ZeRO-2", "trl")
            assert one["last_loss"] == pytest.approx(other["last_loss"], abs=2e-5)
            assert one["tokens_per_s"] > 0 and one["mfu"] is None
    for way in by_libraries["dpo"]["ways"].values():
        assert way["first_loss"] == pytest.approx(math.log(2), abs=1e-5)
    assert by_libraries["dpo"]["stored / trl"]["tokens_per_s"] > 0
    assert 0 < by_libraries["sft"]["planner"]["allocated_gib"] < by_libraries["sft"]["planner"]["total_gib"]
