"""From a post to a text that a helper may see: triage, generation, guard, again, or a refusal.

    risk = await assess(services, services.gm, request_id, post)
    asked = Asked(request_id, post, draft, prompt, sampling, risk, may_draft_acute="acute" in caller.scopes)
    drafted = await draft(services, services.gm, asked)

Every route goes this way, so no text reaches a client that the guard has not seen. A stream is
released sentence by sentence after the guard saw all of it so far; what it sees too late to
take back ends the stream, and the client must drop what it showed.
"""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from typing import Literal

from pipelines.generation.engine import Logprob, Messages, Piece, Sampling, Usage
from serving.merging import merged
from serving.models import ModelLike, writer
from serving.safety.release import Release
from serving.safety.risk import Risk
from serving.services import Services
from serving.wire import unavailable

Ended = Literal["stop", "length", "content_filter"]
"""By itself or at a stop text; at ``max_tokens``; kept back by the triage or the guard."""
NOTHING = Usage(0, 0)
SEEDS = 2**63
"""Seeds are taken modulo this."""
SEED_STEP = 1_000_003
"""Between the seeds of one answer's regenerations: far from those of the other drafts of the request."""


@dataclass(frozen=True)
class Asked:
    """One request for text, its post triaged."""

    request_id: str
    post: str
    draft: str | None
    prompt: Messages
    sampling: Sampling
    risk: Risk
    may_draft_acute: bool = False
    """The caller's key has the scope ``acute``."""

    @property
    def withheld(self) -> bool:
        """Nothing is written: the post is at acute risk and the caller may have no draft for such a one."""
        return self.risk.level == "acute" and not self.may_draft_acute


@dataclass(frozen=True)
class Refusal:
    """Why there is no text; carries no words of anybody."""

    code: Literal["acute_risk", "guard"]
    message: str
    rules: tuple[str, ...] = ()
    """Ids of the rules that the last answer broke."""


@dataclass(frozen=True)
class Drafted:
    """What came of a request; either ``text`` or ``refusal`` is None."""

    text: str | None
    refusal: Refusal | None
    risk: Risk
    resources_required: bool
    """The caller must show local crisis resources: by the triage, or because an answer broke a rule of harm."""
    regenerations: int
    usage: Usage
    """Tokens of all attempts."""
    finish_reason: Ended
    logprobs: tuple[Logprob, ...] | None = None


@dataclass
class Attempts:
    """What the attempts at one answer have come to."""

    services: Services
    model: ModelLike
    asked: Asked
    regenerations: int = 0
    usage: Usage = NOTHING
    broken: tuple[str, ...] = ()
    harmful: bool = False
    sampling: Sampling = field(init=False)

    def __post_init__(self) -> None:
        self.sampling = self.asked.sampling

    def add(self, usage: Usage) -> None:
        """Count the tokens of one attempt."""
        self.usage = Usage(self.usage.prompt_tokens + usage.prompt_tokens, self.usage.new_tokens + usage.new_tokens)

    def breaks(self, text: str) -> bool:
        """Whether the text breaks a rule, which is then remembered."""
        guard, asked = self.services.guard, self.asked
        self.broken = guard.look(text, post=asked.post, draft=asked.draft, prompt=asked.prompt)
        self.harmful |= guard.harmful(self.broken)
        return bool(self.broken)

    def again(self) -> bool:
        """Prepare one more attempt, unless there were enough."""
        settings = self.services.serving.safety
        if self.regenerations >= settings.regenerations:
            return False
        self.regenerations += 1
        first, seed = self.asked.sampling, self.asked.sampling.seed
        self.sampling = replace(
            first,
            temperature=max(first.temperature, settings.regeneration_temperature),
            seed=None if seed is None else (seed + self.regenerations * SEED_STEP) % SEEDS,
        )
        return True

    async def count(self, *, again: bool) -> None:
        """Tell the metrics of one attempt, and of what follows where it broke a rule."""
        metrics, by = self.services.metrics, await writer(self.model, self.asked.request_id)
        metrics.answered(*by, self.broken)
        if again:
            metrics.regenerated(*by)
        elif self.broken:
            metrics.refused("guard", *by)

    def written(self, text: str, last: Piece | None, logprobs: tuple[Logprob, ...] | None) -> Drafted:
        """An attempt passed the guard; raises ApiError where the engine gave it up half-way, as one that is stopped."""
        finish = (last and last.finish_reason) or "stop"
        if finish == "cancelled":
            raise unavailable("the model was stopped during this request", "unavailable")
        return self.outcome(text, None, finish, logprobs)

    def refused(self) -> Drafted:
        """No attempt passed the guard."""
        tries = "once" if not self.regenerations else f"{self.regenerations + 1} times"
        message = f"no text that keeps the rules was written, tried {tries}; a helper should write this one"
        return self.outcome(None, Refusal("guard", message, self.broken), "content_filter")

    def outcome(
        self, text: str | None, refusal: Refusal | None, finish: Ended, logprobs: tuple[Logprob, ...] | None = None
    ) -> Drafted:
        """What came of it."""
        risk = self.asked.risk
        required = risk.resources_required or self.harmful
        return Drafted(text, refusal, risk, required, self.regenerations, self.usage, finish, logprobs)


async def assess(services: Services, model: ModelLike, request_id: str, post: str, draft: str | None = None) -> Risk:
    """The triage of one request to a model, counted."""
    risk = await services.triage.assess(post, draft)
    services.metrics.triage(risk.level, *await writer(model, request_id))
    return risk


async def withheld(services: Services, model: ModelLike, asked: Asked) -> Drafted:
    """The refusal of a draft for a post at acute risk."""
    services.metrics.refused("acute_risk", *await writer(model, asked.request_id))
    message = (
        "the post shows signs of acute risk: bring it before a trained person now and show local crisis resources; "
        "drafts for such posts need a key with the scope acute"
    )
    refusal = Refusal("acute_risk", message, asked.risk.signals)
    return Drafted(None, refusal, asked.risk, asked.risk.resources_required, 0, NOTHING, "content_filter")


async def draft(services: Services, model: ModelLike, asked: Asked) -> Drafted:
    """One text for a request, or the reason why there is none; raises ApiError where the model fails."""
    if asked.withheld:
        return await withheld(services, model, asked)
    attempts = Attempts(services, model, asked)
    while True:
        piece = await model.write(asked.request_id, asked.prompt, attempts.sampling)
        attempts.add(piece.usage)
        broken = attempts.breaks(piece.text)
        again = broken and attempts.again()
        await attempts.count(again=again)
        if not broken:
            return attempts.written(piece.text.strip(), piece, piece.logprobs)
        if not again:
            return attempts.refused()


def several(asked: Asked, n: int) -> list[Asked]:
    """The request ``n`` times, each with a seed of its own where it has one; the id stays, and with it the version.

    One that is withheld is refused once.
    """
    if asked.withheld:
        return [asked]
    seed = asked.sampling.seed
    return [
        replace(asked, sampling=replace(asked.sampling, seed=None if seed is None else (seed + i) % SEEDS))
        for i in range(n)
    ]


async def drafts(services: Services, model: ModelLike, asked: Asked, n: int) -> list[Drafted]:
    """``n`` texts at once, each by itself; where one fails, the others are cancelled and its ApiError raised."""
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(draft(services, model, one)) for one in several(asked, n)]
    except BaseExceptionGroup as failed:
        raise failed.exceptions[0] from None
    return [task.result() for task in tasks]


async def stream(services: Services, model: ModelLike, asked: Asked) -> AsyncGenerator[str | Drafted, None]:
    """The text sentence by sentence, then its ``Drafted`` as the last item; closing it cancels.

    Pull the first item before a status is sent: up to there an answer that breaks a rule is
    written again unseen, and an ApiError is still a status. Later a broken rule ends the stream
    as ``content_filter``.
    """
    if asked.withheld:
        yield await withheld(services, model, asked)
        return
    attempts = Attempts(services, model, asked)
    while True:
        release = Release(attempts.breaks)
        last: Piece | None = None
        logprobs: list[Logprob] = []
        async with aclosing(model.stream(asked.request_id, asked.prompt, attempts.sampling)) as pieces:
            async for piece in pieces:
                last = piece
                logprobs.extend(piece.logprobs or ())
                if passed := release.add(piece.text, last=piece.finish_reason is not None):
                    yield passed
                if release.stopped:
                    break
        attempts.add(last.usage if last else NOTHING)
        again = release.stopped and not release.released and attempts.again()  # what was shown is not written again
        await attempts.count(again=again)
        if not release.stopped:
            yield attempts.written(release.released, last, tuple(logprobs) if asked.sampling.logprobs else None)
            return
        if not again:
            yield attempts.refused()
            return


def streams(
    services: Services, model: ModelLike, asked: Asked, n: int
) -> AsyncGenerator[tuple[int, str | Drafted], None]:
    """``n`` streams at once, each item with the number of its text."""
    return merged([stream(services, model, one) for one in several(asked, n)])
