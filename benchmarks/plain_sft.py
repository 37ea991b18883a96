"""SFT on torchrun, DeepSpeed and TRL, with none of our code: the baseline of ``step_time``.

    torchrun --nproc-per-node 2 benchmarks/plain_sft.py job.json

``job.json`` holds base, rows (a Parquet file of ``input_ids`` and ``labels``), the arguments of
TRL's SFTConfig (DeepSpeed's configuration among them), those of PEFT's LoraConfig, and where to write.
As our workers do, it has TRL skip positions without a label on the CPU, and DeepSpeed build nothing.
"""

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("DS_ACCELERATOR", "cpu")
os.environ.setdefault("TORCHDYNAMO_DISABLE", "1")

import deepspeed
import torch
import trl.trainer.utils
from datasets import Dataset
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
from trl import SFTConfig, SFTTrainer


class FirstStep(TrainerCallback):
    """Both clocks, the wall's and this process's, when the first step was through."""

    at: tuple[float, float] | None = None

    def on_step_end(self, *_: Any, **__: Any) -> None:
        """A step is through."""
        self.at = self.at or (time.perf_counter(), time.process_time())


def main(job: dict[str, Any]) -> None:
    """Train, and write the seconds from the first step's end to the last's."""
    deepspeed.ops.__compatible_ops__ = {}
    deepspeed.init_distributed(dist_backend="gloo", auto_mpi_discovery=False, verbose=False)
    trl.trainer.utils._use_triton = lambda device: device.type in {"cpu", "cuda"}
    torch.manual_seed(1)
    model = AutoModelForCausalLM.from_pretrained(job["base"], dtype=torch.float32, attn_implementation="sdpa")
    trainer = SFTTrainer(
        model=get_peft_model(model, LoraConfig(**job["lora"])),
        args=SFTConfig(**job["arguments"], dataset_kwargs={"skip_prepare_dataset": True}),
        train_dataset=Dataset.from_parquet(job["rows"]).select_columns(["input_ids", "labels"]),
        processing_class=AutoTokenizer.from_pretrained(job["base"]),
    )
    first = FirstStep()
    trainer.add_callback(first)
    trainer.train()
    assert first.at is not None
    clocks = {"seconds": time.perf_counter() - first.at[0], "cpu_seconds": time.process_time() - first.at[1]}
    if trainer.is_world_process_zero():
        losses = [point["loss"] for point in trainer.state.log_history if "loss" in point]
        told = {
            **clocks,
            "steps": trainer.state.global_step,
            "first_loss": losses[0],
            "last_loss": losses[-1],
        }
        Path(job["output"]).write_text(json.dumps(told), encoding="utf-8")
    torch.distributed.barrier()  # gloo aborts a rank whose peer has left
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))
