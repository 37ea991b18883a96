"""The engine of GPU nodes: vLLM's AsyncLLM, with models merged or with adapters named a request.

vLLM gives tokens; text, stop texts and limits are this project's own as in the transformers engine,
so that both answer alike. Engines over one base share one AsyncLLM: the base's weights are there once
and requests of several adapters are in one batch.

Runs where vLLM is installed (``pip install 'llumi[gpu]'``) and a CUDA device is visible; elsewhere
``start`` refuses and says which of both is missing. Written against vLLM 0.32; nobody has run it yet.

Not covered: several GPUs for one model. Seeds: vLLM draws a request's tokens from a generator of its
own, so the batch changes its text only through rounding.
"""

import asyncio
import json
from collections.abc import AsyncGenerator, Mapping
from importlib.util import find_spec
from itertools import count
from pathlib import Path
from typing import Any

from configs.errors import EngineError, ModelNotFound, UsageError
from configs.serving import EngineSettings
from pipelines.generation.engine import Engine, Limits, Messages, Piece, PromptTooLong, Sampling, complete
from pipelines.generation.loaded import end_ids
from pipelines.generation.writing import Writing
from pipelines.training.encode import encode_prompt
from pipelines.training.weights import ADAPTER_CONFIG, base_name, is_whole_model, load_tokenizer

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


def shared(base: str, adapters: Mapping[str, Path], settings: EngineSettings) -> dict[str, Engine]:
    """An engine for each adapter, all over one AsyncLLM; raises UsageError where one is no adapter."""
    whole = [str(adapter) for adapter in adapters.values() if is_whole_model(adapter)]
    if whole:
        raise UsageError(f"{whole[0]} is a whole model, so it shares no base: set serving.topology.kind to separate")
    core = Core(base, list(adapters.values()), settings)
    return {name: VllmEngine(base, adapter, settings, core=core) for name, adapter in adapters.items()}


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
                self.llm = await asyncio.to_thread(self._load)
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
        from vllm import AsyncEngineArgs
        from vllm.v1.engine.async_llm import AsyncLLM

        self.tokenizer = load_tokenizer(self.base, self.revision)
        config = AutoConfig.from_pretrained(self.base, revision=self.revision)
        try:
            generation = GenerationConfig.from_pretrained(self.base, revision=self.revision)
        except OSError:  # a model need not have one
            generation = GenerationConfig.from_model_config(config)
        self.end_ids = end_ids(generation, self.tokenizer)
        positions = getattr(config, "max_position_embeddings", None)
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


class VllmEngine:
    """An ``Engine`` around AsyncLLM: one model, or one adapter of a base that others share."""

    def __init__(
        self,
        base: str,
        adapter: Path | None,
        settings: EngineSettings,
        *,
        revision: str | None = None,
        dtype: str = "bfloat16",
        core: Core | None = None,
    ):
        if adapter is not None and is_whole_model(adapter):
            base, adapter = str(adapter), None
        self._core = core or Core(base, [adapter] if adapter else [], settings, revision, dtype)
        self._adapter, self._settings = adapter, settings
        self._entered = False
        self._tickets = count()
        self._open: dict[str, asyncio.Queue[Any]] = {}

    async def start(self) -> None:
        """Load, and generate two tokens: a service that starts is one that works."""
        await self._core.enter()
        self._entered = True
        await complete(self, "start", [{"role": "user", "content": "Hello"}], Sampling(2, temperature=0.0))

    async def generate(self, request_id: str, prompt: Messages, sampling: Sampling) -> AsyncGenerator[Piece, None]:
        """See ``Engine.generate``."""
        if not self.healthy():
            raise EngineError("the engine is not running: it was not started, was stopped or has failed")
        prompt_ids = encode_prompt(self._core.tokenizer, prompt)
        limit = self.limits().context_tokens
        if len(prompt_ids) + sampling.max_new_tokens > limit:
            raise PromptTooLong(len(prompt_ids), sampling.max_new_tokens, limit)
        if request_id in self._open:
            raise EngineError("a request of the same id is in progress; ids must differ")
        outputs: asyncio.Queue[Any] = asyncio.Queue()
        self._open[request_id] = outputs
        # A ticket is never used twice, by whatever engine shares the AsyncLLM.
        ticket = f"{request_id}#{id(self)}.{next(self._tickets)}"
        writing = Writing(self._core, len(prompt_ids), sampling)
        # A task of its own, so that a cancellation need not wait for the next token.
        written = asyncio.create_task(self._write(ticket, prompt_ids, sampling, outputs))
        try:
            while writing.finish_reason is None:
                output = await outputs.get()
                if output is None:
                    yield writing.cancelled()
                    return
                if isinstance(output, EngineError):
                    raise output
                tokens, logprobs, last = output
                piece = writing.add(tokens, logprobs, last=last)
                if piece is not None:
                    yield piece
        finally:
            del self._open[request_id]
            written.cancel()

    async def _write(
        self, ticket: str, prompt_ids: list[int], sampling: Sampling, outputs: "asyncio.Queue[Any]"
    ) -> None:
        """Puts (tokens, log-probabilities, last) of each step, or an EngineError; cancelled, vLLM drops the request."""
        from vllm import SamplingParams, TokensPrompt
        from vllm.lora.request import LoRARequest

        lora = None
        if self._adapter is not None:
            number = 1 + self._core.adapters.index(self._adapter)
            lora = LoRARequest(str(self._adapter), number, str(self._adapter))
        parameters = SamplingParams(**arguments(sampling, self._core.end_ids))
        try:
            prompt = TokensPrompt(prompt_token_ids=prompt_ids)
            async for output in self._core.llm.generate(prompt, parameters, ticket, lora_request=lora):
                outputs.put_nowait((*step(output.outputs[0]), output.finished))
        except asyncio.CancelledError:
            raise
        except Exception as error:
            # Whatever vLLM raises ends this request; its own message may hold the prompt.
            outputs.put_nowait(EngineError(f"vLLM failed on this request ({type(error).__name__})"))

    def cancel(self, request_id: str) -> None:
        """See ``Engine.cancel``."""
        outputs = self._open.get(request_id)
        if outputs is not None:
            outputs.put_nowait(None)

    def healthy(self) -> bool:
        """Whether vLLM's own process lives."""
        return self._entered and self._core.llm is not None and not self._core.llm.errored

    def limits(self) -> Limits:
        """What the settings hold, or the model's longest sequence where that is shorter."""
        return Limits(self._core.context_tokens, self._settings.max_requests)

    def in_progress(self) -> int:
        """Requests that vLLM still holds, those of engines that share it included."""
        return self._core.llm.get_num_unfinished_requests() if self._core.llm is not None else 0

    async def stop(self) -> None:
        """Leave the AsyncLLM, which ends with its last user."""
        if self._entered:
            self._entered = False
            for outputs in self._open.values():
                outputs.put_nowait(EngineError("the engine stopped while the request was in progress"))
            await self._core.leave()


def arguments(sampling: Sampling, end_ids: tuple[int, ...]) -> dict[str, Any]:
    """vLLM's ``SamplingParams`` of one request: tokens as they come, no text, no cut of the vocabulary but top_p."""
    from vllm.sampling_params import RequestOutputKind

    return {
        "max_tokens": sampling.max_new_tokens,
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "repetition_penalty": sampling.repetition_penalty,
        "seed": sampling.seed,
        "stop_token_ids": list(end_ids),
        "logprobs": 0 if sampling.logprobs else None,
        "detokenize": False,
        "output_kind": RequestOutputKind.DELTA,
    }


def step(completion: Any) -> tuple[list[int], list[float]]:
    """The tokens of one of vLLM's outputs, and their log-probabilities where they were asked for."""
    tokens = list(completion.token_ids)
    if completion.logprobs is None:
        return tokens, []
    return tokens, [found[token].logprob for token, found in zip(tokens, completion.logprobs, strict=True)]


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
