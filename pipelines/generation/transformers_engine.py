"""The engine of tests, laptops and CPU nodes: continuous batching by transformers.

Its loop dies for good where a request does not fit its cache, drops requests with no more than
a warning once it is dead, and keeps nothing of a cancelled request but its callback. So each
request is measured before it is added, a refusal is an error, waiting ends when the loop does,
and every way out of ``generate`` takes the request out of the loop.

Not covered: several GPUs for one model, CUDA graphs, speculative decoding.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator
from itertools import count
from pathlib import Path
from threading import Thread
from typing import Any

from configs.errors import EngineError
from configs.serving import EngineSettings, GenerationSettings
from pipelines.generation.engine import Limits, Messages, Piece, PromptTooLong, Sampling, Usage, complete
from pipelines.generation.loaded import LoadedModel, load
from pipelines.generation.text import TextStream
from pipelines.training.encode import encode_prompt

WATCH_S = 1.0
"""Seconds of silence after which a waiting request looks whether the loop still runs."""
STOP_S = 10.0
"""Seconds that the loop has to end."""
GREEDY = {"temperature": 1.0, "top_k": 1, "top_p": 1.0}
"""Sampling settings under which only the likeliest token is left."""


class TransformersEngine:
    """An ``Engine`` around one continuous-batching manager."""

    def __init__(
        self,
        base: str,
        adapter: Path | None,
        engine: EngineSettings,
        generation: GenerationSettings,
        *,
        revision: str | None = None,
        gpu: bool = False,
    ):
        self._base, self._adapter, self._revision, self._gpu = base, adapter, revision, gpu
        self._engine, self._generation = engine, generation
        self._loaded: LoadedModel | None = None
        self._manager: Any = None
        self._tickets = count()
        self._open: dict[str, asyncio.Queue[Any]] = {}

    async def start(self) -> None:
        """Load, start the loop, and generate two tokens: a service that starts is one that works."""
        await asyncio.to_thread(self._load)
        hello = [{"role": "user", "content": "Hello"}]
        await complete(self, "start", hello, Sampling(2, temperature=0.0))

    def _load(self) -> None:
        from transformers import ContinuousBatchingConfig, GenerationConfig

        # Its warnings show token ids of prompts.
        logging.getLogger("ContinuousBatchingLogger").setLevel(logging.ERROR)
        loaded = load(self._base, self._adapter, self._revision, gpu=self._gpu)
        manager = loaded.model.init_continuous_batching(
            # A processor exists, and can be set a request, only where this config turns it on.
            generation_config=GenerationConfig(
                do_sample=True,
                temperature=0.5,
                top_p=0.5,
                top_k=loaded.model.config.vocab_size,
                eos_token_id=list(loaded.end_ids),
                pad_token_id=loaded.pad_id,
            ),
            continuous_batching_config=ContinuousBatchingConfig(
                page_size=self._engine.page_size,
                num_blocks=self._engine.pages,
                max_batch_tokens=self._engine.max_batch_tokens,
                max_requests_per_batch=self._engine.max_requests,
                per_request_processors=True,
                use_cuda_graph=False,
                use_async_batching=False,
                auto_switch_to_flash=False,
            ),
        )
        if self._generation.repetition_penalty != 1.0:
            from pipelines.generation.penalty import install

            install(manager)
        # The loop's thread inherits being a daemon from the one that starts it: a process
        # that forgot to stop the engine can still end.
        starter = Thread(target=manager.start, daemon=True)
        starter.start()
        starter.join()
        self._loaded, self._manager = loaded, manager

    async def generate(self, request_id: str, prompt: Messages, sampling: Sampling) -> AsyncGenerator[Piece, None]:
        """See ``Engine.generate``."""
        loaded = self._ready()
        prompt_ids = encode_prompt(loaded.tokenizer, prompt)
        self._admit(request_id, len(prompt_ids), sampling)
        # A ticket is never used twice, so that a late cancellation cannot hit another request.
        ticket = f"{request_id}#{next(self._tickets)}"
        outputs: asyncio.Queue[Any] = asyncio.Queue()
        self._open[request_id] = outputs
        done = False
        try:
            self._add(ticket, prompt_ids, sampling, outputs)
            text, new = TextStream(loaded.tokenizer), 0
            while not done:
                output = await self._next(outputs)
                if output is None:
                    yield Piece(text.rest(), Usage(len(prompt_ids), new), "cancelled")
                    return
                if output.error is not None:
                    raise EngineError("the engine failed while it generated; see the log of its replica")
                done = output.is_finished()
                piece = text.add(output.generated_tokens[new:])
                new = len(output.generated_tokens)
                usage = Usage(len(prompt_ids), new)
                if done:
                    ended = new > 0 and output.generated_tokens[-1] in loaded.end_ids
                    yield Piece(piece + text.rest(), usage, "stop" if ended else "length")
                elif piece:
                    yield Piece(piece, usage)
        finally:
            self._open.pop(request_id, None)
            if not done:
                self._abandon(ticket)

    def _ready(self) -> LoadedModel:
        if self._loaded is None or not self.healthy():
            raise EngineError("the engine is not running: it was not started, was stopped or has failed")
        return self._loaded

    def _admit(self, request_id: str, prompt_tokens: int, sampling: Sampling) -> None:
        limit = self.limits().context_tokens
        if prompt_tokens + sampling.max_new_tokens > limit:
            raise PromptTooLong(prompt_tokens, sampling.max_new_tokens, limit)
        if sampling.repetition_penalty not in (1.0, self._generation.repetition_penalty):
            raise EngineError("this engine was started without a repetition penalty; set generation.repetition_penalty")
        if request_id in self._open:
            raise EngineError("a request of the same id is in progress; ids must differ")

    def _add(self, ticket: str, prompt_ids: list[int], sampling: Sampling, outputs: asyncio.Queue[Any]) -> None:
        assert self._loaded is not None
        options: dict[str, Any] = dict(GREEDY)
        if sampling.temperature > 0:
            options = {"temperature": float(sampling.temperature), "top_p": float(sampling.top_p)}
        if sampling.repetition_penalty != 1.0:
            options["repetition_penalty"] = float(sampling.repetition_penalty)
        self._manager.register_result_handler(ticket, outputs.put_nowait)
        added = self._manager.add_request(
            prompt_ids,
            request_id=ticket,
            max_new_tokens=sampling.max_new_tokens,
            streaming=True,
            eos_token_id=list(self._loaded.end_ids),
            **options,
        )
        if added is None:
            raise EngineError("the engine refused the request: its loop has ended")

    async def _next(self, outputs: asyncio.Queue[Any]) -> Any:
        while True:
            try:
                # Not wait_for: up to Python 3.11 it swallows a cancellation that meets an output.
                async with asyncio.timeout(WATCH_S):
                    return await outputs.get()
            except TimeoutError:
                if not self.healthy() and outputs.empty():
                    raise EngineError("the engine stopped while the request was in progress") from None

    def _abandon(self, ticket: str) -> None:
        if self._manager is None:
            return
        self._manager.cancel_request(ticket)
        router = self._manager.output_router
        router.result_handlers.pop(ticket, None)
        # A token on its way when the handler goes lands in the common queue, which nobody reads.
        while not router.output_queue.empty():
            router.output_queue.get_nowait()

    def cancel(self, request_id: str) -> None:
        """See ``Engine.cancel``."""
        outputs = self._open.get(request_id)
        if outputs is not None:
            outputs.put_nowait(None)

    def healthy(self) -> bool:
        """Whether the loop's thread lives and has met no fatal error."""
        return (
            self._manager is not None
            and self._manager.is_running()
            and self._manager.background_thread_status.can_accept_new_requests() is None
        )

    def limits(self) -> Limits:
        """The cache's size, or the model's longest sequence where that is shorter."""
        cache = self._engine.pages * self._engine.page_size
        positions = self._loaded.positions if self._loaded else cache
        return Limits(min(cache, positions), self._engine.max_requests)

    def in_progress(self) -> int:
        """Requests that the loop still holds, waiting ones included."""
        processor = self._manager.batch_processor if self._manager else None
        if processor is None:
            return 0
        return len(processor.scheduler.active_requests) + len(processor.scheduler.waiting_requests)

    async def stop(self) -> None:
        """End the loop, fail what is in progress, drop the model."""
        manager, self._manager = self._manager, None
        if manager is not None:
            await asyncio.to_thread(manager.stop, block=True, timeout=STOP_S, hard_stop=True)
        self._loaded = None
