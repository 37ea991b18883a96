"""What a training run leaves: weights, tokenizer, generation settings, curves - and nothing of this machine.

PEFT and TRL write more than that: a card and a configuration that name local paths, the
pickled arguments. Whoever loads the model needs none of it.
"""

import json
import shutil
from pathlib import Path
from typing import Any

from configs.serving import GenerationSettings
from pipelines.training import curves
from pipelines.training.plan import Plan, portable_name

ADAPTER_CONFIG = "adapter_config.json"
GENERATION_CONFIG = "generation_config.json"
LOADABLE = (
    *("*.safetensors", "*.safetensors.index.json", "config.json", ADAPTER_CONFIG, GENERATION_CONFIG),
    *("tokenizer.json", "tokenizer_config.json", "tokenizer.model", "special_tokens_map.json", "added_tokens.json"),
    *("vocab.json", "vocab.txt", "merges.txt", "chat_template.jinja"),
)
"""What a server needs of a folder. Reports, settings and logs beside it may hold texts or paths and stay."""
STRAY = ("training_args.bin", "README.md")


def write(plan: Plan, trainer: Any) -> None:
    """Write the finished model into ``plan.output``; called by all workers, as ZeRO-3 gathers from all."""
    import torch.distributed as dist

    from pipelines.training.rows import cache_folder

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


def write_generation(folder: Path, generation: GenerationSettings) -> None:
    """Have a server of ``folder`` sample as ours does, and stop where the model's turn ends.

    What the base's own configuration says of end tokens is kept and the tokenizer's end added;
    a tokenizer without a padding token pads with its end.
    """
    from transformers import AutoTokenizer, GenerationConfig

    tokenizer = AutoTokenizer.from_pretrained(folder)
    known = GenerationConfig.from_pretrained(folder) if (folder / GENERATION_CONFIG).is_file() else GenerationConfig()
    several = known.eos_token_id if isinstance(known.eos_token_id, list) else [known.eos_token_id]
    ends = list(dict.fromkeys(end for end in [tokenizer.eos_token_id, *several] if end is not None))
    values: dict[str, Any] = {
        "bos_token_id": known.bos_token_id if known.bos_token_id is not None else tokenizer.bos_token_id,
        "eos_token_id": ends[0] if len(ends) == 1 else ends,
        "pad_token_id": tokenizer.eos_token_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id,
        "max_new_tokens": generation.max_new_tokens,
        "do_sample": generation.temperature > 0,
    }
    if generation.temperature > 0:  # top_k is said to be off, as transformers would take the 50 likeliest
        values |= {"temperature": generation.temperature, "top_p": generation.top_p, "top_k": 0}
    if generation.repetition_penalty != 1.0:
        values["repetition_penalty"] = generation.repetition_penalty
    GenerationConfig(**values).save_pretrained(folder)


def loadable(folder: Path) -> list[Path]:
    """The files of ``folder`` that a server needs, by name."""
    return sorted({file for pattern in LOADABLE for file in folder.glob(pattern) if file.is_file()})
