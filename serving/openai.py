"""POST /v1/chat/completions: the route, its answer as a whole and as a stream.

A stream is made of ``chat.completion.chunk``s, the first of which carries ``risk`` and
``resources_required``, then with ``stream_options.include_usage`` one of usage alone, then
``data: [DONE]``. An error in mid-stream is a chunk with ``error``, which OpenAI's clients raise.
"""

import time
from collections.abc import AsyncGenerator, Sequence
from typing import Any

from fastapi import APIRouter, Request

from serving.asking import Asking, prepared, together
from serving.bodies import RefusalBody
from serving.chat import ChatLogprobs, ChatMessage, ChatRequest, ChatResponse, ChatUsage, Choice, TokenLogprob
from serving.drafting import Drafted, drafts, streams
from serving.errors import ERRORS, NOT_FOUND
from serving.native import check_drafts, most_tokens
from serving.recording import recorded
from serving.services import Services
from serving.sse import DONE, event, event_schema, streamed, unless_gone

EVENTS = {"text/event-stream": {"schema": event_schema()}}


def router(services: Services) -> APIRouter:
    """The route."""
    routes = APIRouter(tags=["openai"])

    @routes.post(
        "/v1/chat/completions",
        response_model=ChatResponse,
        responses={200: {"content": EVENTS}, **ERRORS, **NOT_FOUND},
        operation_id="create_chat_completion",
    )
    async def completions(body: ChatRequest, request: Request) -> Any:
        """A draft by llumi-gm, or a revision by llumi-im."""
        name, post, draft = body.asked()
        check_drafts(body.n or 1, services, 400)
        most = most_tokens(services)
        sampling = body.sampling(services.generation, most, logprobs=bool(body.logprobs), status=400)
        asking = await prepared(services, request, name, post, draft, sampling)
        chat = Chat(services, request, body, asking)
        if body.stream:
            return await streamed(request, chat.events(), lambda error: event(error.body))
        written = await unless_gone(request, drafts(services, asking.model, asking.asked, body.n or 1))
        return await chat.answer(written)

    return routes


class Chat:
    """One request and the forms of its answer."""

    def __init__(self, services: Services, request: Request, body: ChatRequest, asking: Asking):
        self.services, self.request, self.body, self.asking = services, request, body, asking
        self.created = int(time.time())

    async def answer(self, written: Sequence[Drafted]) -> ChatResponse:
        """The whole answer, recorded."""
        version = await recorded(self.services, self.request, "chat", self.asking, written)
        return ChatResponse(
            id=self.asking.asked.request_id,
            created=self.created,
            model=self.body.model,
            system_fingerprint=version,
            choices=[
                Choice(
                    index=index,
                    message=ChatMessage(content=one.text, refusal=one.refusal.message if one.refusal else None),
                    finish_reason=one.finish_reason,
                    logprobs=logprobs_of(one),
                )
                for index, one in enumerate(written)
            ],
            usage=usage_of(written),
            **vars(self.asking.safety(written)),
        )

    async def events(self) -> AsyncGenerator[bytes, None]:
        """The chunks of a streamed answer."""
        done: dict[int, Drafted] = {}
        begun: set[int] = set()
        n = self.body.n or 1
        async for index, item in streams(self.services, self.asking.model, self.asking.asked, n):
            first = index not in begun
            begun.add(index)
            if isinstance(item, Drafted):
                done[index] = item
                yield self.closing(index, item, first=first)
            else:
                yield self.chunk(index, {"content": item}, first=first)
        written = [done[index] for index in sorted(done)]
        await recorded(self.services, self.request, "chat", self.asking, written)
        if self.body.stream_options and self.body.stream_options.include_usage:
            yield event({**self.head(), "choices": [], "usage": usage_of(written).model_dump()})
        yield DONE

    def closing(self, index: int, drafted: Drafted, *, first: bool) -> bytes:
        """The last chunk of a choice."""
        refusal, logprobs = RefusalBody.of(drafted.refusal), logprobs_of(drafted)
        more: dict[str, Any] = {"resources_required": drafted.resources_required}
        return self.chunk(
            index,
            {"refusal": refusal.message} if refusal else {},
            first=first,
            finish_reason=drafted.finish_reason,
            logprobs=logprobs.model_dump() if logprobs else None,
            more={**more, "refusal": refusal.model_dump()} if refusal else more,
        )

    def chunk(
        self,
        index: int,
        delta: dict[str, Any],
        *,
        first: bool,
        finish_reason: str | None = None,
        logprobs: dict[str, Any] | None = None,
        more: dict[str, Any] | None = None,
    ) -> bytes:
        """One chunk; the first of a choice carries its role and the risk."""
        said = {"role": "assistant", **delta} if first else delta
        risk = self.asking.safety().model_dump(mode="json", exclude={"refusal"}) if first else {}
        choice = {"index": index, "delta": said, "logprobs": logprobs, "finish_reason": finish_reason}
        return event({**self.head(), "choices": [choice], **risk, **(more or {})})

    def head(self) -> dict[str, Any]:
        """What all chunks carry."""
        return {
            "id": self.asking.asked.request_id,
            "object": "chat.completion.chunk",
            "created": self.created,
            "model": self.body.model,
        }


def usage_of(written: Sequence[Drafted]) -> ChatUsage:
    """Tokens in OpenAI's words."""
    usage = together(written)
    return ChatUsage(
        prompt_tokens=usage.prompt_tokens,
        completion_tokens=usage.new_tokens,
        total_tokens=usage.prompt_tokens + usage.new_tokens,
    )


def logprobs_of(drafted: Drafted) -> ChatLogprobs | None:
    """Of each token, where asked for."""
    if drafted.logprobs is None:
        return None
    # A token may be part of a character, which then is none that could be encoded.
    return ChatLogprobs(
        content=[
            TokenLogprob(
                token=one.token,
                bytes=None if "\ufffd" in one.token else list(one.token.encode()),
                logprob=float(one),
            )
            for one in drafted.logprobs
        ]
    )
