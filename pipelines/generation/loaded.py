"""A model ready to write: weights with the adapter folded in, tokenizer, end tokens, device."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from configs.errors import ModelNotFound
from pipelines.training.weights import base_name, is_whole_model, load_model, load_tokenizer


class Detokenizer(Protocol):
    """What makes an answer of tokens."""

    @property
    def tokenizer(self) -> Any:
        """Text from tokens."""

    @property
    def end_ids(self) -> tuple[int, ...]:
        """Tokens that end an answer."""


@dataclass(frozen=True)
class LoadedModel:
    """What both ways of writing, continuous and padded batches, work with."""

    model: Any
    tokenizer: Any
    end_ids: tuple[int, ...]
    """Tokens that end an answer."""
    pad_id: int
    positions: int
    """Longest sequence in tokens that the model knows."""


def load(base: str, adapter: Path | None = None, revision: str | None = None, *, gpu: bool = False) -> LoadedModel:
    """The base with ``adapter`` merged into it, on the GPU in bfloat16 or on the CPU in float32.

    ``adapter`` may be the whole model that full fine-tuning made of the base. Merging costs a moment
    at the start and saves two small products a layer and token. Raises ModelNotFound where the base
    or the adapter is not there.
    """
    name = base_name(base)
    tokenizer = load_tokenizer(name, revision)
    if adapter is not None and is_whole_model(adapter):
        model = load_model(str(adapter), bf16=gpu)
    else:
        model = load_model(name, revision, bf16=gpu)
        model = merged(model, adapter) if adapter is not None else model
    model = model.to("cuda" if gpu else "cpu").eval()
    return LoadedModel(
        model=model,
        tokenizer=tokenizer,
        end_ids=end_ids(model.generation_config, tokenizer),
        pad_id=tokenizer.pad_token_id,
        positions=getattr(model.config, "max_position_embeddings", None) or 2**31,
    )


def merged(model: Any, adapter: Path) -> Any:
    """``model`` with the adapter's weights added to its own."""
    from peft import PeftModel

    if not (adapter / "adapter_config.json").is_file():
        raise ModelNotFound(f"{adapter} holds no adapter: adapter_config.json is not there")
    return PeftModel.from_pretrained(model, str(adapter)).merge_and_unload()


def end_ids(generation_config: Any, tokenizer: Any) -> tuple[int, ...]:
    """The tokenizer's end of sequence, and what else the model's generation config ends at."""
    configured = generation_config.eos_token_id
    several = configured if isinstance(configured, list) else [configured]
    return tuple(dict.fromkeys(i for i in [tokenizer.eos_token_id, *several] if i is not None))
