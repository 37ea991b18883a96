"""From a request to what the models are asked, the same way for every route.

    asking = await prepared(services, request, "gm", post, None, sampling)
    drafted = await unless_gone(request, draft(services, asking.model, asking.asked))

Triage comes first and looks at the whole post; a post that gets no draft costs neither a lookup
nor a model. What is known of the request is left in its state, for the access log.
"""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import TypeVar

from starlette.requests import Request

from configs.prompts import messages
from configs.training import ModelName
from pipelines.generation.engine import Sampling, Usage
from pipelines.retrieval.lookup import Example
from serving.access.caller import NOBODY, Caller
from serving.drafting import Asked, Drafted, assess
from serving.fitting import Fitting
from serving.models import ModelLike
from serving.services import Services
from serving.wire import Post, draft_text, post_text, unavailable

Item = TypeVar("Item")


@dataclass(frozen=True)
class Asking:
    """One request, ready to be given to a model."""

    name: ModelName
    model: ModelLike
    asked: Asked
    examples: Sequence[Example]
    """Similar posts in the prompt."""

    @property
    def post_cut(self) -> bool:
        """Whether the post lost its middle to fit."""
        return isinstance(self.model, Fitting) and self.model.cut

    async def version(self) -> str | None:
        """Of the model that answered; one that is being rolled out may have answered or not."""
        version: str | None = (await self.model.info(self.asked.request_id)).get("version")
        return version


async def prepared(
    services: Services, request: Request, name: ModelName, post: Post, draft: str | None, sampling: Sampling
) -> Asking:
    """Triage, similar posts, prompt; raises ApiError for texts that are empty or too long."""
    limit = services.serving.max_post_chars
    text = post_text(post, limit)
    helper = None if draft is None else draft_text(draft, limit)
    request.state.model = name
    risk = await assess(services, text, helper)
    request.state.risk = risk
    caller = caller_of(request)
    answered = risk.level != "acute" or caller.may("acute")
    examples = await services.retrieval.similar(text) if services.retrieval and answered else []
    template = getattr(services.prompts, name)
    model = services.model(name)
    asked = Asked(
        request_id=request.state.request_id,
        post=text,
        draft=helper,
        prompt=messages(template, text, helper, [example.slot() for example in examples]),
        sampling=sampling,
        risk=risk,
        may_draft_acute=caller.may("acute"),
    )
    return Asking(name, Fitting(model) if services.serving.api.long_posts == "cut" else model, asked, examples)


def caller_of(request: Request) -> Caller:
    """Who asks, as the access middleware found; nobody, who may do nothing, where it did not look."""
    caller: Caller = getattr(request.state, "caller", NOBODY)
    return caller


def together(drafted: Sequence[Drafted]) -> Usage:
    """Tokens of several texts."""
    return Usage(sum(one.usage.prompt_tokens for one in drafted), sum(one.usage.new_tokens for one in drafted))


def whole(drafted: Drafted) -> Drafted:
    """The same; raises ApiError where the engine gave the request up half-way, as one that is stopped does."""
    if drafted.finish_reason == "cancelled":
        raise unavailable("the model was stopped during this request", "unavailable")
    return drafted


async def merged(streams: Sequence[AsyncGenerator[Item, None]]) -> AsyncGenerator[tuple[int, Item], None]:
    """What several generators yield, as it comes, with the number of the one that it came from.

    Each runs in a task of its own. The first that fails ends all; so does closing this one.
    """
    queue: asyncio.Queue[tuple[int, Item | Exception | None]] = asyncio.Queue(len(streams))
    closing = False

    async def run(number: int, stream: AsyncGenerator[Item, None]) -> None:
        end: Exception | None = None
        try:
            async with aclosing(stream):
                async for item in stream:
                    await queue.put((number, item))
        except asyncio.CancelledError:
            if closing:
                raise
            end = unavailable("the request was cancelled from within", "unavailable")  # or its reader would wait
        except Exception as error:
            end = error
        await queue.put((number, end))

    tasks = [asyncio.create_task(run(number, stream)) for number, stream in enumerate(streams)]
    try:
        running = len(tasks)
        while running:
            number, item = await queue.get()
            if isinstance(item, Exception):
                raise item
            if item is None:
                running -= 1
            else:
                yield number, item
    finally:
        closing = True
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
