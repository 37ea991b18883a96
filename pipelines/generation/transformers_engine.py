"""The engine of tests, laptops and CPU nodes: continuous batching by transformers.

Its loop dies for good where a request does not fit its cache, drops requests with no more than
a warning once it is dead, and keeps nothing of a cancelled request but its callback. So each
request is measured before it is added, a refusal is an error, waiting ends when the loop does,
and every way out of ``generate`` takes the request out of the loop.

Not covered: several GPUs for one model, CUDA graphs, speculative decoding.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable
from functools import partial
from itertools import count
from pathlib import Path
from threading import Thread
from typing import Any

from configs.errors import EngineError
from configs.serving import EngineSettings
from pipelines.generation import ragged
from pipelines.generation.engine import Limits, Messages, Piece, PromptTooLong, Sampling, complete
from pipelines.generation.loaded import LoadedModel, load
from pipelines.generation.sampler import Drawing, Sampler
from pipelines.generation.writing import Writing
from pipelines.training.encode import encode_prompt

WATCH_S = 1.0
"""Seconds of silence after which a waiting request looks whether the loop still runs."""
STOP_S = 10.0
"""Seconds that the loop has to end."""


class TransformersEngine:
    """An ``Engine`` around one continuous-batching manager."""

    def __init__(
        self,
        base: str,
        adapter: Path | None,
        engine: EngineSettings,
        *,
        revision: str | None = None,
        gpu: bool = False,
        loader: Callable[[], LoadedModel] | None = None,
    ):
        """``loader`` brings the model where it is not to be loaded from ``base`` and ``adapter``."""
        self._loader, self._gpu = loader or partial(load, base, adapter, revision, gpu=gpu), gpu
        self._engine = engine
        self._loaded: LoadedModel | None = None
        self._manager: Any = None
        self._sampler = Sampler()
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
        self._loaded = loaded = self._loader()
        manager = loaded.model.init_continuous_batching(
            # Greedy, so that the token that the sampler marks is the one taken.
            generation_config=GenerationConfig(
                do_sample=False, eos_token_id=list(loaded.end_ids), pad_token_id=loaded.pad_id
            ),
            continuous_batching_config=ContinuousBatchingConfig(
                page_size=self._engine.page_size,
                num_blocks=self._engine.pages,
                max_batch_tokens=self._engine.max_batch_tokens,
                max_requests_per_batch=self._engine.max_requests,
                use_cuda_graph=False,
                use_async_batching=False,
                auto_switch_to_flash=False,
            ),
        )
        self._sampler.install(manager)
        if not self._gpu:
            ragged.install(manager, self.limits().context_tokens)
        # The loop's thread inherits being a daemon from the one that starts it: a process
        # that forgot to stop the engine can still end.
        starter = Thread(target=manager.start, daemon=True)
        starter.start()
        starter.join()
        self._manager = manager

    async def generate(self, request_id: str, prompt: Messages, sampling: Sampling) -> AsyncGenerator[Piece, None]:
        """See ``Engine.generate``."""
        loaded = self._ready()
        prompt_ids = encode_prompt(loaded.tokenizer, prompt)
        self._admit(request_id, len(prompt_ids), sampling)
        # A ticket is never used twice, so that a late cancellation cannot hit another request.
        ticket = f"{request_id}#{next(self._tickets)}"
        outputs: asyncio.Queue[Any] = asyncio.Queue()
        writing, drawing = Writing(loaded, len(prompt_ids), sampling), Drawing(sampling, len(prompt_ids))
        self._open[request_id] = outputs
        self._sampler.drawings[ticket] = drawing
        ended = False
        try:
            self._add(ticket, prompt_ids, sampling, outputs)
            while writing.finish_reason is None:
                output = await self._next(outputs)
                if output is None:
                    yield writing.cancelled()
                    return
                if output.error is not None:
                    raise EngineError("the engine failed while it generated; see the log of its replica")
                ended, before = output.is_finished(), writing.tokens
                tokens = output.generated_tokens[before:]
                piece = writing.add(tokens, drawing.logprobs[before : before + len(tokens)], last=ended)
                if piece is not None:
                    yield piece
        finally:
            del self._open[request_id]
            del self._sampler.drawings[ticket]
            if not ended:
                self._abandon(ticket)
            self._drop_unread()

    def _ready(self) -> LoadedModel:
        if self._loaded is None or not self.healthy():
            raise EngineError("the engine is not running: it was not started, was stopped or has failed")
        return self._loaded

    def _admit(self, request_id: str, prompt_tokens: int, sampling: Sampling) -> None:
        limit = self.limits().context_tokens
        if prompt_tokens + sampling.max_new_tokens > limit:
            raise PromptTooLong(prompt_tokens, sampling.max_new_tokens, limit)
        if request_id in self._open:
            raise EngineError("a request of the same id is in progress; ids must differ")

    def _add(self, ticket: str, prompt_ids: list[int], sampling: Sampling, outputs: asyncio.Queue[Any]) -> None:
        assert self._loaded is not None
        self._manager.register_result_handler(ticket, outputs.put_nowait)
        added = self._manager.add_request(
            prompt_ids,
            request_id=ticket,
            max_new_tokens=sampling.max_new_tokens,
            streaming=True,
            eos_token_id=list(self._loaded.end_ids),
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
        self._manager.output_router.result_handlers.pop(ticket, None)

    def _drop_unread(self) -> None:
        # A token on its way when its handler goes lands in the common queue, which nobody reads.
        if self._manager is not None:
            unread = self._manager.output_router.output_queue
            while not unread.empty():
                unread.get_nowait()

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
