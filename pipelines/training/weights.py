"""The base model, and the adapter or whole model that training made of it: loading, with errors that name the way out.

Imports torch only where weights are loaded, so that the driver can check a base in a moment.
"""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from configs.errors import ConfigError, ModelNotFound
from pipelines.manifest import Input
from pipelines.training.plan import Plan

CONFIG = "config.json"
ADAPTER_CONFIG = "adapter_config.json"
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
    """The base's tokenizer; one without a padding token pads with that of unknown words, else with its end.

    Which token pads is no matter, as all masks are drawn by position and none by token. Raises
    ModelNotFound where it cannot be loaded, ConfigError where it has no chat template or no end token.
    """
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(base, revision=revision)
    except (OSError, ValueError) as error:
        raise ModelNotFound(not_loadable(base, error)) from None
    if not tokenizer.chat_template:
        raise ConfigError(f"the tokenizer of {base} has no chat template; set model.base to an instruction model")
    if tokenizer.eos_token is None:
        raise ConfigError(f"the tokenizer of {base} has no end-of-sequence token, so no reply could ever end")
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.unk_token or tokenizer.eos_token
    return tokenizer


def load_model(
    base: str,
    revision: str | None = None,
    attention: str = "sdpa",
    bf16: bool = False,
    *,
    four_bit: bool = False,
    kernels: bool = False,
) -> Any:
    """A whole model's weights; a folder with a configuration but no weights gives a freshly initialised model.

    ``four_bit`` holds linear layers in 4 bits, by bitsandbytes; ``kernels`` takes layers from the
    hub's kernels. Raises ModelNotFound where there is no model.
    """
    import torch
    from safetensors import SafetensorError
    from transformers import AutoConfig, AutoModelForCausalLM

    dtype = torch.bfloat16 if bf16 else torch.float32
    words: dict[str, Any] = {"dtype": dtype, "attn_implementation": attention}
    try:
        if Path(base).is_dir() and not any(Path(base).glob("*.safetensors")):
            return AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(base), **words)
        if four_bit:
            words["quantization_config"] = nf4(dtype)
        if kernels:
            words["use_kernels"] = True
        return AutoModelForCausalLM.from_pretrained(base, revision=revision, **words)
    except (OSError, ValueError, SafetensorError) as error:
        raise ModelNotFound(not_loadable(base, error)) from None


def nf4(dtype: Any) -> Any:
    """4 bits a weight as QLoRA has them (Dettmers et al. 2023): NormalFloat, its scales quantised again.

    They are stored in numbers of the type that is computed with, since ZeRO-3 shards parameters
    of one type only.
    """
    from transformers import BitsAndBytesConfig

    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
        bnb_4bit_quant_storage=dtype,
    )


def is_whole_model(folder: Path) -> bool:
    """Whether a stage's output holds a whole model (``training.mode: full``) and not an adapter."""
    return (folder / CONFIG).is_file() and not (folder / ADAPTER_CONFIG).is_file()


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
    """The header of a safetensors file, and each tensor's first bytes."""
    with path.open("rb") as file:
        described = header(file)
        yield described
        start = file.tell()
        for name, tensor in sorted(json.loads(described).items()):
            if name != "__metadata__":
                begin, end = tensor["data_offsets"]
                file.seek(start + begin)
                yield file.read(min(SAMPLE, end - begin))


def header(file: BinaryIO) -> bytes:
    """The header of a safetensors file (its length in 8 bytes, then JSON): what tensors it holds, and where."""
    return file.read(int.from_bytes(file.read(8), "little"))


def trainable_model(plan: Plan) -> Any:
    """The model a worker trains: all weights, or the base with a fresh or a continued adapter."""
    from transformers import set_seed

    set_seed(plan.seed)  # every worker draws the same initial weights
    mode = "full" if plan.task == "lm" else plan.training.mode
    whole = plan.start if mode == "full" and plan.start else plan.base
    model = load_model(
        whole,
        plan.revision if whole == plan.base else None,
        plan.attention,
        plan.training.bf16,
        four_bit=mode == "qlora",
        kernels=plan.kernels,
    )
    return model if mode == "full" else with_adapter(model, plan)


def with_adapter(model: Any, plan: Plan) -> Any:
    """``model`` with the plan's adapter before it, or a fresh one, to train."""
    from peft import LoraConfig, PeftModel, get_peft_model

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
