"""The parts of ``gpu_training`` that need more than torch, transformers and PEFT: stock TRL, and DeepSpeed."""

import os
import socket
import time
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback

from benchmarks import gpu_steps as steps


class Marks(TrainerCallback):
    """The clock after each step, once the device has done it."""

    def __init__(self, device: torch.device):
        self.device = device
        self.marks: list[float] = []

    def on_step_end(self, *_: Any, **__: Any) -> None:
        """A step is through."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        self.marks.append(time.perf_counter())


def by_trl(task: str, size: steps.Size, device: torch.device, asked: dict[str, Any], scratch: Path) -> dict[str, Any]:
    """TRL's own trainer as it is, but for rows that are tokens already.

    DPO continues an adapter, as our stages do, so TRL makes a frozen copy of it for the reference.
    Adapter weights are float32 and run under autocast, as PEFT and TRL have them by default.
    """
    from datasets import Dataset
    from peft import PeftModel
    from trl import DPOConfig, DPOTrainer, SFTConfig, SFTTrainer

    on_gpu = device.type == "cuda"
    dtype = torch.bfloat16 if on_gpu else torch.float32
    model = steps.make_model(size, device, dtype, asked["attention"], checkpointing=asked["checkpointing"])
    flops = steps.flops_per_token(model, size)
    done = steps.done_per_token(model, size, checkpointing=asked["checkpointing"])
    model.save_pretrained(scratch / "start")
    model = PeftModel.from_pretrained(model.unload(), str(scratch / "start"), is_trainable=True)
    count = asked["warmup"] + asked["steps"]
    rows = size.rows if task == "sft" else size.pairs
    common: dict[str, Any] = {
        "output_dir": str(scratch / "out"),
        "per_device_train_batch_size": rows,
        "max_steps": count,
        "learning_rate": steps.LEARNING_RATE,
        "lr_scheduler_type": "constant",
        "max_grad_norm": steps.CLIP,
        "bf16": on_gpu,
        "use_cpu": not on_gpu,
        "gradient_checkpointing": asked["checkpointing"],
        "gradient_checkpointing_kwargs": {"use_reentrant": False} if asked["checkpointing"] else None,
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "max_length": None,
        "seed": 0,
    }
    tokenizer = word_tokenizer(size.vocabulary)
    words = {"model": model, "processing_class": tokenizer}
    if task == "sft":
        made = [steps.sft_batch(size, torch.device("cpu"), seed) for seed in range(count)]
        columns = {name: [row for one in made for row in one[name].tolist()] for name in ("input_ids", "labels")}
        settings = SFTConfig(**common, dataset_kwargs={"skip_prepare_dataset": True})
        trainer: Any = SFTTrainer(args=settings, train_dataset=Dataset.from_dict(columns), **words)
    else:

        class Tokens(DPOTrainer):
            def _prepare_dataset(self, dataset: Any, *_: Any, **__: Any) -> Any:
                return dataset

        settings = DPOConfig(**common, beta=steps.BETA)
        trainer = Tokens(args=settings, train_dataset=Dataset.from_dict(pair_columns(size, count)), **words)
    marks = Marks(device)
    trainer.add_callback(marks)
    trainer.train()
    losses = [point["loss"] for point in trainer.state.log_history if "loss" in point]
    shown = {"first_loss": losses[0], "last_loss": losses[-1], "storing_s": None, "head": "trl", "loop": "transformers"}
    return {**shown, "marks": marks.marks, "flops_per_token": flops, "done_per_token": done}


def pair_columns(size: steps.Size, count: int) -> dict[str, list[list[int]]]:
    """The pairs of ``dpo_batch`` as the columns that TRL's collator takes."""
    prompt = size.sequence - size.completion
    found: dict[str, list[list[int]]] = {"prompt_ids": [], "chosen_ids": [], "rejected_ids": []}
    for seed in range(count):
        ids = steps.dpo_batch(size, torch.device("cpu"), seed)["input_ids"]
        found["prompt_ids"] += ids[: size.pairs, :prompt].tolist()
        found["chosen_ids"] += ids[: size.pairs, prompt:].tolist()
        found["rejected_ids"] += ids[size.pairs :, prompt:].tolist()
    return found


def word_tokenizer(vocabulary: int) -> Any:
    """A tokenizer that exists, since TRL asks for one; it never sees a text."""
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    known = {"<s>": 1, "</s>": 2, "<pad>": 0, **{f"w{number}": number for number in range(3, min(vocabulary, 64))}}
    made = Tokenizer(models.WordLevel(known, unk_token="<pad>"))
    return PreTrainedTokenizerFast(tokenizer_object=made, bos_token="<s>", eos_token="</s>", pad_token="<pad>")


def engine_for(model: Any, bf16: bool) -> Any:
    """DeepSpeed's engine at ZeRO-2 with one worker, as our zero.py configures it."""
    on_gpu = next(model.parameters()).is_cuda
    alone = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port()}
    for name, value in alone.items():
        os.environ.setdefault(name, value)
    if not on_gpu:
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    import deepspeed

    if not on_gpu:
        deepspeed.ops.__compatible_ops__ = {}  # it would probe for operators that nothing here uses, with a compiler
    deepspeed.init_distributed(dist_backend="nccl" if on_gpu else "gloo", auto_mpi_discovery=False, verbose=False)
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    engine, *_ = deepspeed.initialize(
        model=model,
        optimizer=torch.optim.AdamW(weights, lr=steps.LEARNING_RATE, weight_decay=0.0),
        config={
            "train_micro_batch_size_per_gpu": 1,
            "gradient_clipping": steps.CLIP,
            "bf16": {"enabled": bf16},
            "zero_optimization": {"stage": 2, "overlap_comm": on_gpu},
            "steps_per_print": 1_000_000_000,
        },
    )
    return engine


def free_port() -> str:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])
