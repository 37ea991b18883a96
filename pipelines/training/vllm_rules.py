"""What vLLM demands of a LoRA adapter, checked by name when one is exported, long before a server loads it.

The rules are those that vLLM documents (docs.vllm.ai, API reference: ``vllm.config.lora`` for the
ranks, ``vllm.lora.peft_helper`` for the features, ``vllm.lora.lora_model`` for the modules and the
tensors' names). Not covered: whether a base's architecture takes LoRA at all.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

VLLM = "0.32"
RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""Values of ``--max-lora-rank``: the memory of each adapter slot, so the smallest that holds the rank is best."""
MODULES = frozenset(
    {"q_proj", "k_proj", "v_proj", "o_proj", "qkv_proj", "gate_proj", "up_proj", "down_proj", "gate_up_proj"}
)
"""Linear layers of Mistral and Llama that take LoRA; the fused ones are split by vLLM itself."""
PARTS = (".lora_A.weight", ".lora_B.weight")


def max_rank(config: Mapping[str, Any]) -> int | None:
    """What ``--max-lora-rank`` has to be for an adapter of this ``adapter_config.json``; None where none is enough."""
    ranks = [config["r"], *(config.get("rank_pattern") or {}).values()]
    return next((rank for rank in RANKS if rank >= max(ranks)), None)


def rank_of(folder: Path) -> int | None:
    """``max_rank`` of the adapter in ``folder``, None where it holds a whole model."""
    path = folder / "adapter_config.json"
    return max_rank(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else None


def violations(folder: Path) -> list[str]:
    """Why vLLM would refuse the adapter in ``folder``, each reason naming the field; none where it would not."""
    config = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
    found = []
    if max_rank(config) is None:
        found.append(f"training.lora.r is {config['r']}, its largest rank is {RANKS[-1]}")
    if config.get("bias", "none") != "none":
        found.append(f"bias is {config['bias']}, it takes none")
    if config.get("modules_to_save"):
        found.append(f"modules_to_save holds {', '.join(config['modules_to_save'])}, it takes none")
    if config.get("use_dora"):
        found.append("use_dora is set, it takes plain LoRA only")
    if config.get("rank_pattern") or config.get("alpha_pattern"):
        found.append("rank_pattern or alpha_pattern is set, it takes one rank and one alpha")
    targets = config["target_modules"]
    names = {targets} if isinstance(targets, str) else set(targets)
    if strange := sorted({name.split(".")[-1] for name in names} - MODULES):
        found.append(f"training.lora.targets names {', '.join(strange)}, it adapts {', '.join(sorted(MODULES))}")
    if others := [name for name in tensors(folder) if not name.endswith(PARTS)]:
        found.append(f"{len(others)} tensors are no LoRA factors, the first is {others[0]}")
    return found


def tensors(folder: Path) -> list[str]:
    """Names of the adapter's tensors, from the header alone."""
    with (folder / "adapter_model.safetensors").open("rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    return sorted(set(header) - {"__metadata__"})
