"""What generates text, seen from outside: a protocol that every engine keeps.

Callers speak in messages and text, engines in tokens: rendering, the limits of a request and
the way from tokens back to text belong to the engine, so that no caller can send it a request
that would break it.
"""

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Literal, Protocol, Self, runtime_checkable

from configs.errors import EngineError
from configs.serving import GenerationSettings

Messages = Sequence[Mapping[str, str]]
FinishReason = Literal["stop", "length", "cancelled"]


class BadSampling(EngineError, ValueError):
    """A sampling parameter has a value that no engine takes."""

    def __init__(self, field: str, accepted: str):
        super().__init__(f"{field} must be {accepted}")
        self.field, self.accepted = field, accepted

    def __reduce__(self) -> tuple[Any, ...]:
        return (BadSampling, (self.field, self.accepted))


@dataclass(frozen=True)
class Sampling:
    """How one request is sampled; raises BadSampling for a value that no engine takes."""

    max_new_tokens: int
    temperature: float = 0.7
    top_p: float = 0.95
    repetition_penalty: float = 1.0
    stop: tuple[str, ...] = ()
    """Texts that end the answer; the earliest in it counts, and neither it nor what follows is given."""
    seed: int | None = None
    """The same request with the same seed gives the same text, whatever else the engine writes; None = vary."""
    logprobs: bool = False
    """Give the log-probability of each token written."""

    def __post_init__(self) -> None:
        # One value that is no number would spoil the whole batch that its request is in.
        self._check("max_new_tokens", self.max_new_tokens >= 1, "at least 1")
        self._check("temperature", 0 <= self.temperature <= 2, "from 0 to 2")
        self._check("top_p", 0 < self.top_p <= 1, "above 0 and at most 1")
        self._check("repetition_penalty", 1 <= self.repetition_penalty <= 10, "from 1 to 10")
        self._check("stop", all(self.stop), "texts that are not empty")
        self._check("seed", self.seed is None or -(2**63) <= self.seed < 2**63, "a whole number of 64 bits")

    def _check(self, name: str, well: bool, accepted: str) -> None:
        if not well:
            raise BadSampling(name, accepted)

    @classmethod
    def of(cls, settings: GenerationSettings) -> Self:
        """The sampling that the configuration asks for."""
        return cls(
            max_new_tokens=settings.max_new_tokens,
            temperature=settings.temperature,
            top_p=settings.top_p,
            repetition_penalty=settings.repetition_penalty,
        )


@dataclass(frozen=True)
class Usage:
    """Tokens of one request."""

    prompt_tokens: int
    new_tokens: int


class Logprob(float):
    """log p of one token; a number that knows the ``token``'s text, as OpenAI's interface tells both."""

    token: str

    def __new__(cls, value: float, token: str = "") -> Self:
        """Of ``value``, at most 0."""
        made = super().__new__(cls, value)
        made.token = token
        return made

    def __getnewargs__(self) -> tuple[float, str]:  # type: ignore[override]
        return float(self), self.token


@dataclass(frozen=True)
class Piece:
    """Some more text of a request; the last piece carries ``finish_reason``."""

    text: str
    usage: Usage
    finish_reason: FinishReason | None = None
    logprobs: tuple[Logprob, ...] | None = None
    """log p(token | what is before it) by the model itself, before temperature, nucleus and penalty, of
    the tokens that came since the last piece; None where the request did not ask for them."""


@dataclass(frozen=True)
class Limits:
    """What one engine takes."""

    context_tokens: int
    """Most tokens of one request, prompt and new ones together."""
    max_requests: int
    """Most requests generated at once; more wait."""


class PromptTooLong(EngineError):
    """Prompt and new tokens together exceed what the engine can hold for one request."""

    def __init__(self, prompt_tokens: int, new_tokens: int, limit: int):
        super().__init__(
            f"the prompt has {prompt_tokens} tokens and up to {new_tokens} are to be written, "
            f"the engine holds {limit} for one request; shorten the text or lower generation.max_new_tokens"
        )
        self.numbers = (prompt_tokens, new_tokens, limit)

    def __reduce__(self) -> tuple[Any, ...]:
        return (PromptTooLong, self.numbers)


@runtime_checkable
class Engine(Protocol):
    """One model that writes; safe for many requests at once from one event loop."""

    async def start(self) -> None:
        """Load the model and prove that it writes; raises ModelNotFound or EngineError."""

    def generate(self, request_id: str, prompt: Messages, sampling: Sampling) -> AsyncGenerator[Piece, None]:
        """The answer to ``prompt``, piece by piece.

        Closing the iterator early frees what the request held. ``request_id`` must differ from
        that of every request in progress. Raises PromptTooLong before anything is generated,
        EngineError where the engine cannot take or finish the request.
        """

    def cancel(self, request_id: str) -> None:
        """End a request, whose iterator then finishes as ``cancelled``; unknown ids are ignored."""

    def healthy(self) -> bool:
        """Whether the engine can still generate."""

    def limits(self) -> Limits:
        """What the engine takes."""

    def in_progress(self) -> int:
        """Requests that the engine still holds, waiting ones included."""

    async def stop(self) -> None:
        """Free the model; requests in progress fail."""


async def complete(engine: Engine, request_id: str, prompt: Messages, sampling: Sampling) -> Piece:
    """The whole answer as one piece."""
    texts: list[str] = []
    logprobs: list[Logprob] = []
    async with aclosing(engine.generate(request_id, prompt, sampling)) as pieces:
        async for piece in pieces:
            texts.append(piece.text)
            logprobs.extend(piece.logprobs or ())
            if piece.finish_reason is not None:
                whole = tuple(logprobs) if sampling.logprobs else None
                return Piece("".join(texts), piece.usage, piece.finish_reason, whole)
    raise EngineError("the engine ended a request without saying why")
