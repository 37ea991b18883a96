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

from serving.asking import Asking, prepared, together
from serving.bodies import (
    DraftBody,
    EditBody,
    ExampleBody,
    GenerateRequest,
    GenerateResponse,
    ImproveRequest,
    ImproveResponse,
    PreservationBody,
    RefusalBody,
)
from serving.drafting import Drafted, draft, drafts, streams
from serving.edits import edits
from serving.errors import ERRORS
from serving.preservation import common_words, preservation
from serving.recording import recorded
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
        if body.stream:
            events = generated_events(services, request, body, asking)
            return await streamed(request, events, lambda error: event(error.body, "error"))
        written = await unless_gone(request, drafts(services, asking.model, asking.asked, body.n))
        return await generated(services, request, body, asking, written)

    @routes.post("/v1/improve", response_model=ImproveResponse, responses=ERRORS, operation_id="improve")
    async def improve(body: ImproveRequest, request: Request) -> Any:
        """A revision of what a helper wrote, and what changed."""
        sampling = body.sampling(services.generation, most_tokens(services))
        asking = await prepared(services, request, "im", body.post, body.draft, sampling)
        drafted = await unless_gone(request, draft(services, asking.model, asking.asked))
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


async def generated(
    services: Services, request: Request, body: GenerateRequest, asking: Asking, written: Sequence[Drafted]
) -> GenerateResponse:
    """The answer, recorded."""
    version = await recorded(services, request, "generate", asking, written)
    return GenerateResponse(
        **shared(asking, written, version, body.show_examples),
        drafts=[] if asking.asked.withheld else [draft_body(one) for one in written],
    )


def draft_body(drafted: Drafted) -> DraftBody:
    """One draft as the interface says it."""
    return DraftBody(
        text=drafted.text,
        finish_reason=drafted.finish_reason,
        refusal=RefusalBody.of(drafted.refusal),
        logprobs=None if drafted.logprobs is None else [float(value) for value in drafted.logprobs],
    )


async def improved(
    services: Services, request: Request, body: ImproveRequest, asking: Asking, drafted: Drafted
) -> ImproveResponse:
    """The answer, recorded; comparing the texts takes a thread, since it may take a moment."""
    changes: list[EditBody] = []
    score = None
    if drafted.text is not None:
        changes, score = await asyncio.to_thread(compared, body.draft, drafted.text, services)
    version = await recorded(services, request, "improve", asking, [drafted])
    common = shared(asking, [drafted], version, body.show_examples)
    return ImproveResponse(**common, revision=drafted.text, edits=changes, preservation=score)


def compared(before: str, after: str, services: Services) -> tuple[list[EditBody], PreservationBody]:
    """Edits and score of a revision."""
    changes = [EditBody(op=edit.op, draft=edit.draft, revision=edit.revision) for edit in edits(before, after)]
    return changes, PreservationBody(**asdict(preservation(before, after, services.embedder)))


def shared(asking: Asking, written: Sequence[Drafted], version: str | None, show_examples: bool) -> dict[str, Any]:
    """What both answers say."""
    return {
        **vars(asking.safety(written)),
        "request_id": asking.asked.request_id,
        "version": version,
        "finish_reason": written[0].finish_reason,
        "usage": together(written),
        "examples": [
            ExampleBody(post=one.post, reply=one.reply, score=one.score, similarity=one.similarity)
            for one in asking.examples
        ]
        if show_examples
        else None,
    }


async def generated_events(
    services: Services, request: Request, body: GenerateRequest, asking: Asking
) -> AsyncGenerator[bytes, None]:
    """The events of a streamed answer."""
    safety = asking.safety().model_dump(mode="json", include={"risk", "resources_required"})
    start = event({"request_id": asking.asked.request_id, "model": asking.name, **safety}, "start")
    done: dict[int, Drafted] = {}
    async for number, item in streams(services, asking.model, asking.asked, body.n):
        if start:
            yield start
            start = b""
        if isinstance(item, Drafted):
            done[number] = item
        else:
            yield event({"draft": number, "text": item}, "text")
    answer = await generated(services, request, body, asking, [done[number] for number in sorted(done)])
    yield event(answer.model_dump(mode="json"), "end")
