"""The native interface: drafts of a reply, and revisions of a helper's draft.

    POST /v1/generate  {"post": {"title", "text"}, "n", "stream", ...}  -> {"drafts": [...], "risk", ...}
    POST /v1/improve   {"post": {"title", "text"}, "draft", ...}        -> {"revision", "edits", "preservation", ...}

A stream of /v1/generate has the events ``start`` (ids and risk), ``text`` (some more of a draft),
``end`` (the whole answer, as without streaming) or ``error``. Text comes in sentences that the
guard let pass; where ``end`` has no text for a draft, what was shown of it must be taken back.
"""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from dataclasses import asdict
from typing import Any

from fastapi import APIRouter, Request

from serving.asking import Asking, merged, prepared, together, whole
from serving.bodies import (
    DraftBody,
    EditBody,
    Ended,
    ExampleBody,
    GenerateRequest,
    GenerateResponse,
    ImproveRequest,
    ImproveResponse,
    PreservationBody,
    RefusalBody,
    RiskBody,
)
from serving.drafting import Drafted, draft, drafts, several, stream, withheld
from serving.edits import edits
from serving.errors import ERRORS
from serving.preservation import common_words, preservation
from serving.recording import record
from serving.services import Services
from serving.sse import event, event_schema, streamed, unless_gone
from serving.wire import ApiError

EVENTS = {"text/event-stream": {"schema": event_schema("start", "text", "end", "error")}}


def router(services: Services) -> APIRouter:
    """The two routes."""
    routes = APIRouter(tags=["drafts"])
    if services.embedder is None:
        common_words()  # loaded before the first revision waits for it

    @routes.post(
        "/v1/generate",
        response_model=GenerateResponse,
        responses={200: {"content": EVENTS}, **ERRORS},
        operation_id="generate",
    )
    async def generate(body: GenerateRequest, request: Request) -> Any:
        """Drafts of a reply to a post."""
        check_drafts(body.n, services)
        sampling = body.sampling(services.generation, most_tokens(services), logprobs=body.logprobs)
        asking = await prepared(services, request, "gm", body.post, None, sampling)
        refused = withheld(services, asking.asked)
        if body.stream:
            events = generated_events(services, request, body, asking, refused)
            return await streamed(request, events, lambda error: event(error.body, "error"))
        written = [] if refused else await unless_gone(request, drafts(services, asking.model, asking.asked, body.n))
        return await generated(services, request, body, asking, [whole(one) for one in written], refused)

    @routes.post("/v1/improve", response_model=ImproveResponse, responses=ERRORS, operation_id="improve")
    async def improve(body: ImproveRequest, request: Request) -> Any:
        """A revision of what a helper wrote, and what changed."""
        sampling = body.sampling(services.generation, most_tokens(services))
        asking = await prepared(services, request, "im", body.post, body.draft, sampling)
        drafted = whole(await unless_gone(request, draft(services, asking.model, asking.asked)))
        return await improved(services, request, body, asking, drafted)

    return routes


def most_tokens(services: Services) -> int:
    """Most new tokens that a request may ask for."""
    return max(services.serving.api.max_new_tokens, services.generation.max_new_tokens)


def check_drafts(n: int, services: Services, status: int = 422) -> None:
    """Raises ApiError where more drafts are asked for than the service writes."""
    most = services.serving.api.max_drafts
    if n > most:
        message = f"n is {n}, at most {most} drafts are written for one request (serving.api.max_drafts)"
        raise ApiError(status, message, code="too_large", param="n")


def ended(drafted: Drafted) -> Ended:
    """Why a text ended, as the interface says it."""
    reason = drafted.finish_reason
    assert reason != "cancelled"
    return reason


async def generated(
    services: Services,
    request: Request,
    body: GenerateRequest,
    asking: Asking,
    written: Sequence[Drafted],
    refused: Drafted | None,
) -> GenerateResponse:
    """The answer, recorded."""
    common = await shared(request, asking, [refused] if refused else written, body.show_examples)
    answer = GenerateResponse(
        **common,
        drafts=[
            DraftBody(
                text=one.text,
                finish_reason=ended(one),
                refusal=RefusalBody.of(one.refusal),
                logprobs=None if one.logprobs is None or one.text is None else [float(value) for value in one.logprobs],
            )
            for one in written
        ],
    )
    await record(services, request, "generate", asking, answer.version, body.post, [one.text for one in written])
    return answer


async def improved(
    services: Services, request: Request, body: ImproveRequest, asking: Asking, drafted: Drafted
) -> ImproveResponse:
    """The answer, recorded; comparing the texts takes a thread, since it may take a moment."""
    changes: list[EditBody] = []
    score = None
    if drafted.text is not None:
        found, kept = await asyncio.to_thread(compared, body.draft, drafted.text, services)
        changes, score = found, kept
    common = await shared(request, asking, [drafted], body.show_examples)
    answer = ImproveResponse(**common, revision=drafted.text, edits=changes, preservation=score)
    await record(services, request, "improve", asking, answer.version, body.post, [drafted.text], body.draft)
    return answer


def compared(before: str, after: str, services: Services) -> tuple[list[EditBody], PreservationBody]:
    """Edits and score of a revision."""
    changes = [EditBody(op=edit.op, draft=edit.draft, revision=edit.revision) for edit in edits(before, after)]
    return changes, PreservationBody(**asdict(preservation(before, after, services.embedder)))


async def shared(request: Request, asking: Asking, written: Sequence[Drafted], show_examples: bool) -> dict[str, Any]:
    """What both answers say, and the access log."""
    request.state.usage = usage = together(written)
    given = [one for one in written if one.text is not None]
    return {
        "request_id": asking.asked.request_id,
        "version": await asking.version(),
        "finish_reason": ended(written[0]),
        "usage": usage,
        "risk": RiskBody.of(asking.asked.risk),
        "resources_required": any(one.resources_required for one in written),
        "refusal": None if given else RefusalBody.of(written[0].refusal),
        "post_cut": asking.post_cut,
        "examples": [
            ExampleBody(post=one.post, reply=one.reply, score=one.score, similarity=one.similarity)
            for one in asking.examples
        ]
        if show_examples
        else None,
    }


async def generated_events(
    services: Services, request: Request, body: GenerateRequest, asking: Asking, refused: Drafted | None
) -> AsyncGenerator[bytes, None]:
    """The events of a streamed answer."""
    asked = asking.asked
    start = {
        "request_id": asked.request_id,
        "model": asking.name,
        "risk": RiskBody.of(asked.risk).model_dump(),
        "resources_required": asked.risk.resources_required,
    }
    done: dict[int, Drafted] = {}
    started = False
    streams = [stream(services, asking.model, one) for one in several(asking.asked, body.n)] if refused is None else []
    async for number, item in merged(streams):
        if not started:
            started = True
            yield event(start, "start")
        if isinstance(item, Drafted):
            done[number] = whole(item)
        else:
            yield event({"draft": number, "text": item}, "text")
    if not started:
        yield event(start, "start")
    answer = await generated(services, request, body, asking, [done[number] for number in sorted(done)], refused)
    yield event(answer.model_dump(mode="json"), "end")
