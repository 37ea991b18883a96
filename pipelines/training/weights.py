"""The base model and its adapter: loading, with errors that name the way out.

Imports torch only where weights are loaded, so that the driver can check a base in a moment.
"""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from configs.errors import ConfigError, ModelNotFound
from pipelines.manifest import Input
from pipelines.training.plan import Plan

CONFIG = "config.json"
SAMPLE = 4096
"""Bytes of a tensor that count in the hash of a model."""


def base_name(given: Input) -> str:
    """The base as workers open it: an absolute folder, or a Hugging Face name.

    Raises ModelNotFound where a folder is meant that is not there or holds no model.
    """
    base = given if isinstance(given, Path) else str(given)
    folder = Path(base).expanduser()
    if folder.is_dir():
        if not (folder / CONFIG).is_file():
            raise ModelNotFound(f"model.base: {base} holds no model ({CONFIG} is missing)")
        return str(folder.resolve())
    if isinstance(base, Path) or base.startswith((".", "/", "~")) or base.count("/") > 1:
        raise ModelNotFound(
            f"model.base: {base} is not there; give a folder with a model, a Hugging Face name or scratch"
        )
    return base


def load_tokenizer(base: str, revision: str | None = None) -> Any:
    """The base's tokenizer.

    Raises ModelNotFound where it cannot be loaded, ConfigError where it has no chat template.
    """
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(base, revision=revision)
    except (OSError, ValueError) as error:
        raise ModelNotFound(not_loadable(base, error)) from None
    if not tokenizer.chat_template:
        raise ConfigError(f"the tokenizer of {base} has no chat template; set model.base to an instruction model")
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def load_model(base: str, revision: str | None = None, attention: str = "sdpa", bf16: bool = False) -> Any:
    """The base's weights; a folder with a configuration but no weights gives a freshly initialised model."""
    import torch
    from safetensors import SafetensorError
    from transformers import AutoConfig, AutoModelForCausalLM

    dtype = torch.bfloat16 if bf16 else torch.float32
    try:
        if Path(base).is_dir() and not any(Path(base).glob("*.safetensors")):
            config = AutoConfig.from_pretrained(base)
            return AutoModelForCausalLM.from_config(config, dtype=dtype, attn_implementation=attention)
        return AutoModelForCausalLM.from_pretrained(base, revision=revision, dtype=dtype, attn_implementation=attention)
    except (OSError, ValueError, SafetensorError) as error:
        raise ModelNotFound(not_loadable(base, error)) from None


def weights_hash(base: str, revision: str | None, adapter: Path) -> str:
    """SHA-256 (hex) of a base with an adapter: of their configurations and of the start of every tensor.

    Reading 14 GB for each stage would cost minutes on shared storage; weights that were trained or
    merged again differ in the first numbers of most tensors. A base by name counts by name and revision.
    """
    digest = hashlib.sha256(b"" if Path(base).is_dir() else f"{base}@{revision}".encode())
    for folder in (Path(base), adapter):
        for path in sorted(folder.glob("*config.json")) if folder.is_dir() else []:
            digest.update(path.name.encode() + path.read_bytes())
        for path in sorted(folder.glob("*.safetensors")) if folder.is_dir() else []:
            digest.update(path.name.encode())
            for piece in samples(path):
                digest.update(piece)
    return digest.hexdigest()


def samples(path: Path) -> Iterator[bytes]:
    """The header of a safetensors file (its length in 8 bytes, then JSON), and each tensor's first bytes."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header = file.read(length)
        yield header
        for name, tensor in sorted(json.loads(header).items()):
            if name != "__metadata__":
                begin, end = tensor["data_offsets"]
                file.seek(8 + length + begin)
                yield file.read(min(SAMPLE, end - begin))


def trainable_model(plan: Plan) -> Any:
    """The model a worker trains: all weights for ``lm``, else the base with a fresh or a continued adapter."""
    from peft import LoraConfig, PeftModel, get_peft_model
    from transformers import set_seed

    set_seed(plan.seed)  # every worker draws the same initial weights
    model = load_model(plan.base, plan.revision, plan.attention, plan.training.bf16)
    if plan.task == "lm":
        return model
    # ZeRO-3 gathers parameters in one buffer and so needs them all in the base's precision.
    upcast = plan.training.zero_stage != 3
    if plan.start is not None:
        return PeftModel.from_pretrained(model, plan.start, is_trainable=True, autocast_adapter_dtype=upcast)
    lora = plan.training.lora
    config = LoraConfig(
        task_type="CAUSAL_LM",
        r=lora.r,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=list(lora.targets),
    )
    return get_peft_model(model, config, autocast_adapter_dtype=upcast)


def not_loadable(base: str, error: Exception) -> str:
    """What to do about a base that transformers could not load."""
    if Path(base).is_dir():
        return f"model.base: {base} holds no model that transformers can load: {first_line(error)}"
    return (
        f"model.base: {base} is neither a folder nor in this machine's Hugging Face cache, and the hub did not "
        f"give it; fetch it with `hf download {base}` (HF_TOKEN for gated models), or set model.base to a folder or "
        "scratch"
    )


def first_line(error: BaseException) -> str:
    """The first line of an error's message."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
