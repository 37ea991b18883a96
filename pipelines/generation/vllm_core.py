"""One AsyncLLM of vLLM's, and what it is started with: the model and the adapters that engines write with.

Engines over one base share it: the base's weights are there once, requests of several adapters are in
one batch, and it ends with its last user.
"""

import asyncio
import json
import os
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from configs.errors import EngineError, LlumiError, ModelNotFound
from configs.serving import EngineSettings
from pipelines.generation.loaded import end_ids
from pipelines.training.weights import ADAPTER_CONFIG, base_name, load_tokenizer

RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
"""The largest ranks of adapters that vLLM can be started for; a smaller one takes the next."""


def why_not() -> str | None:
    """Why vLLM cannot run on this machine; None where it can."""
    if find_spec("vllm") is None:
        return "vLLM is not installed here: pip install 'llumi[gpu]', or set serving.engine.kind=transformers"
    import torch

    if not torch.cuda.is_available():
        return "vLLM needs a CUDA device and none is visible here: see the GPUs that the replica was given"
    return None


class Core:
    """One AsyncLLM, there while at least one engine uses it."""

    def __init__(
        self,
        base: str,
        adapters: list[Path],
        settings: EngineSettings,
        revision: str | None = None,
        dtype: str = "bfloat16",
    ):
        self.base, self.adapters, self.settings = base_name(base), adapters, settings
        self.revision, self.dtype = revision, dtype
        self.llm: Any = None
        self.tokenizer: Any = None
        self.end_ids: tuple[int, ...] = ()
        self.context_tokens = settings.pages * settings.page_size
        self._users = 0
        self._lock = asyncio.Lock()

    async def enter(self) -> None:
        """Load the model, if nobody did yet; raises EngineError, ModelNotFound."""
        async with self._lock:
            if self.llm is None:
                reason = why_not()
                if reason is not None:
                    raise EngineError(reason)
                try:
                    self.llm = await asyncio.to_thread(self._load)
                except LlumiError:
                    raise
                except Exception as error:  # nobody has asked anything yet, so no words are in it
                    raise EngineError(f"vLLM does not start on {self.base}: {error}") from error
            self._users += 1

    async def leave(self) -> None:
        """Free the model with its last user."""
        async with self._lock:
            self._users -= 1
            if self._users == 0:
                llm, self.llm = self.llm, None
                await asyncio.to_thread(llm.shutdown)

    def _load(self) -> Any:
        from transformers import AutoConfig, GenerationConfig

        # Else it tells its makers of the machine and the model.
        os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
        from vllm import AsyncEngineArgs
        from vllm.v1.engine.async_llm import AsyncLLM

        self.tokenizer = load_tokenizer(self.base, self.revision)
        config = AutoConfig.from_pretrained(self.base, revision=self.revision)
        try:
            generation = GenerationConfig.from_pretrained(self.base, revision=self.revision)
        except OSError:  # a model need not have one
            generation = GenerationConfig.from_model_config(config)
        self.end_ids = end_ids(generation, self.tokenizer)
        positions = getattr(config.get_text_config(), "max_position_embeddings", None)
        self.context_tokens = min(self.context_tokens, positions or self.context_tokens)
        return AsyncLLM.from_engine_args(AsyncEngineArgs(**self.arguments()))

    def arguments(self) -> dict[str, Any]:
        """What vLLM is started with (its ``AsyncEngineArgs``)."""
        arguments: dict[str, Any] = {
            "model": self.base,
            "revision": self.revision,
            "dtype": self.dtype,
            "max_model_len": self.context_tokens,
            "max_num_seqs": self.settings.max_requests,
            "max_num_batched_tokens": max(self.settings.max_batch_tokens, self.settings.max_requests),
            "enable_chunked_prefill": True,
            "gpu_memory_utilization": self.settings.gpu_memory,
            # Log-probabilities of the model itself, as the transformers engine gives them.
            "logprobs_mode": "raw_logprobs",
            # The request says all about its sampling; the model's own file must not.
            "generation_config": "vllm",
            # A line of its log may show prompts.
            "enable_log_requests": False,
            "disable_log_stats": True,
        }
        if self.adapters:
            arguments |= {
                "enable_lora": True,
                "max_loras": len(self.adapters),
                "max_lora_rank": smallest_rank(max(rank(adapter) for adapter in self.adapters)),
            }
        return arguments


def rank(adapter: Path) -> int:
    """The rank of an adapter's matrices; raises ModelNotFound."""
    try:
        return int(json.loads((adapter / ADAPTER_CONFIG).read_text(encoding="utf-8"))["r"])
    except FileNotFoundError:
        raise ModelNotFound(f"{adapter} holds no adapter: {ADAPTER_CONFIG} is not there") from None


def smallest_rank(needed: int) -> int:
    """The least rank that vLLM can be started for and that holds ``needed``; raises EngineError."""
    fitting = [rank for rank in RANKS if rank >= needed]
    if not fitting:
        raise EngineError(f"the adapter's rank is {needed}, vLLM holds at most {RANKS[-1]}: serve it merged")
    return fitting[0]
