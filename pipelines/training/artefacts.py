"""What a training run leaves: weights, tokenizer, generation settings, curves - and nothing of this machine.

PEFT and TRL write more than that: a card and a configuration that name local paths, the
pickled arguments. Whoever loads the model needs none of it.
"""

import json
import shutil
from pathlib import Path
from typing import Any

import torch.distributed as dist

from pipelines.training import curves
from pipelines.training.plan import Plan, portable_name
from pipelines.training.rows import cache_folder

ADAPTER_CONFIG = "adapter_config.json"
STRAY = ("training_args.bin", "README.md")


def write(plan: Plan, trainer: Any) -> None:
    """Write the finished model into ``plan.output``; called by all workers, as ZeRO-3 gathers from all."""
    output = Path(plan.output)
    trainer.save_model(str(output))
    if trainer.is_world_process_zero():
        tidy(output, plan)
        trainer.model.generation_config.save_pretrained(output)
        curves.save(output, trainer.state.log_history)
    dist.barrier()
    if trainer.is_local_process_zero():
        shutil.rmtree(cache_folder(plan), ignore_errors=True)


def tidy(output: Path, plan: Plan) -> None:
    """Remove what no reader needs, and name the base without a path of this machine."""
    for name in STRAY:
        (output / name).unlink(missing_ok=True)
    path = output / ADAPTER_CONFIG
    if path.is_file():
        config = json.loads(path.read_text(encoding="utf-8"))
        config |= {"base_model_name_or_path": portable_name(plan.base), "revision": plan.revision}
        path.write_text(json.dumps(config, indent=2, sort_keys=True), encoding="utf-8")
