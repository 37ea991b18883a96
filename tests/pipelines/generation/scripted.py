"""An engine without a model for tests of what stands on one: deterministic, quick, and as strict as the others.

A token is a word with the space before it. What is written follows from the prompt and the seed
alone, or is given: ``ScriptedEngine(answer="I hear you.")``, ``answer=lambda prompt, sampling: ...``.

    engine = ScriptedEngine(token_s=0.05)   # slow: a word every 50 ms
    engine = ScriptedEngine(dies_after=3)   # fails for good once it has written three words
    engine.die()                            # fails now, with every request in progress
"""

import asyncio
import hashlib
import math
import random
import re
from collections.abc import AsyncGenerator, Callable
from contextlib import suppress

from configs.errors import EngineError
from pipelines.generation.engine import Limits, Logprob, Messages, Piece, PromptTooLong, Sampling, Usage
from pipelines.generation.text import Stops

TEXT = (
    "I hear how heavy this week was for you and it makes sense that you feel tired after all of it "
    "maybe one small thing could help today like a short walk or a call with someone you trust"
)
WORDS = TEXT.split()

Answer = str | Callable[[Messages, Sampling], str]


class ScriptedEngine:
    """An ``Engine`` whose answers are known."""

    def __init__(
        self,
        answer: Answer | None = None,
        *,
        context_tokens: int = 2000,
        max_requests: int = 8,
        token_s: float = 0.0,
        start_s: float = 0.0,
        dies_after: int | None = None,
    ):
        self.answer = answer
        self.token_s, self.start_s, self.dies_after = token_s, start_s, dies_after
        self.written = 0
        """Words written since the start."""
        self.seen: list[tuple[str, Messages, Sampling]] = []
        """Every request that was taken, in order."""
        self._limits = Limits(context_tokens, max_requests)
        self._places = asyncio.Semaphore(max_requests)
        self._ended: dict[str, asyncio.Event] = {}
        self._alive = False
        self._varied = 0

    async def start(self) -> None:
        """See ``Engine.start``."""
        await asyncio.sleep(self.start_s)
        self._alive = True

    async def generate(self, request_id: str, prompt: Messages, sampling: Sampling) -> AsyncGenerator[Piece, None]:
        """See ``Engine.generate``."""
        self._check()
        prompt_tokens = sum(len(message["content"].split()) for message in prompt)
        if prompt_tokens + sampling.max_new_tokens > self._limits.context_tokens:
            raise PromptTooLong(prompt_tokens, sampling.max_new_tokens, self._limits.context_tokens)
        if request_id in self._ended:
            raise EngineError("a request of the same id is in progress; ids must differ")
        self.seen.append((request_id, prompt, sampling))
        self._ended[request_id] = asyncio.Event()
        try:
            async with self._places:
                async for piece in self._write(request_id, prompt, sampling, prompt_tokens):
                    yield piece
        finally:
            del self._ended[request_id]

    async def _write(
        self, request_id: str, prompt: Messages, sampling: Sampling, prompt_tokens: int
    ) -> AsyncGenerator[Piece, None]:
        tokens = self._tokens(prompt, sampling)
        stops = Stops(sampling.stop)
        for new, token in enumerate(tokens[: sampling.max_new_tokens], 1):
            logprobs = (Logprob(-math.log(len(WORDS)), token),) if sampling.logprobs else None
            if await self._cancelled(request_id):
                none = () if sampling.logprobs else None
                yield Piece(stops.rest(), Usage(prompt_tokens, new - 1), "cancelled", none)
                return
            self.written += 1
            text = stops.add(token)
            last = new == min(len(tokens), sampling.max_new_tokens)
            usage = Usage(prompt_tokens, new)
            if stops.met:
                yield Piece(text, usage, "stop", logprobs)
                return
            if last:
                text += stops.rest()
            yield Piece(text, usage, ("stop" if new == len(tokens) else "length") if last else None, logprobs)
            if self.dies_after is not None and self.written >= self.dies_after:
                self.die()
            self._check()

    async def _cancelled(self, request_id: str) -> bool:
        """After the time that a word takes."""
        ended = self._ended[request_id]
        with suppress(TimeoutError):
            async with asyncio.timeout(self.token_s):
                await ended.wait()
        self._check()
        return ended.is_set()

    def _tokens(self, prompt: Messages, sampling: Sampling) -> list[str]:
        if self.answer is not None:
            text = self.answer if isinstance(self.answer, str) else self.answer(prompt, sampling)
            return re.findall(r"\s*\S+", text) or [""]
        variation = sampling.seed
        if sampling.temperature == 0:
            variation = 0
        elif variation is None:
            self._varied += 1
            variation = -self._varied
        said = "\n".join(f"{message['role']}:{message['content']}" for message in prompt)
        chance = random.Random(hashlib.sha256(f"{variation}/{said}".encode()).digest())
        words = [chance.choice(WORDS) for _ in range(chance.randint(8, 60))]
        return [words[0].capitalize(), *(f" {word}" for word in words[1:-1]), f" {words[-1]}."]

    def _check(self) -> None:
        if not self._alive:
            raise EngineError("the engine is not running: it was not started, was stopped or has failed")

    def die(self) -> None:
        """Fail for good."""
        self._alive = False
        for ended in self._ended.values():
            ended.set()

    def cancel(self, request_id: str) -> None:
        """See ``Engine.cancel``."""
        ended = self._ended.get(request_id)
        if ended is not None:
            ended.set()

    def healthy(self) -> bool:
        """See ``Engine.healthy``."""
        return self._alive

    def limits(self) -> Limits:
        """See ``Engine.limits``."""
        return self._limits

    def in_progress(self) -> int:
        """Requests taken and not finished."""
        return len(self._ended)

    async def stop(self) -> None:
        """See ``Engine.stop``."""
        self.die()
