"""From a request to what the models are asked, the same way for every route.

    asking = await prepared(services, request, "gm", post, None, sampling)
    drafted = await unless_gone(request, draft(services, asking.model, asking.asked))

Triage comes first and looks at the whole post; a post that gets no draft costs neither a lookup
nor a model. What is known of the request is left in its state, for the access log.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from starlette.requests import Request

from configs.prompts import messages
from configs.training import ModelName
from pipelines.generation.engine import Sampling, Usage
from pipelines.retrieval.lookup import Example
from serving.access.caller import NOBODY, Caller
from serving.bodies import RefusalBody, RiskBody, Safety
from serving.drafting import Asked, Drafted, assess
from serving.fitting import Fitting
from serving.models import ModelLike, writer
from serving.services import Services
from serving.wire import Post, draft_text, post_text


@dataclass(frozen=True)
class Asking:
    """One request, ready to be given to a model."""

    name: ModelName
    model: ModelLike
    caller: Caller
    post: Post
    """As it was sent; ``asked`` holds it as the prompt presents it."""
    draft: str | None
    """The helper's, as it was sent."""
    asked: Asked
    examples: Sequence[Example]
    """Similar posts in the prompt."""

    @property
    def post_cut(self) -> bool:
        """Whether the post lost its middle to fit."""
        return isinstance(self.model, Fitting) and self.model.cut

    async def version(self) -> str | None:
        """Of the model that answered; one that is being rolled out may have answered or not."""
        _, version = await writer(self.model, self.asked.request_id)
        return version

    def safety(self, written: Sequence[Drafted] = ()) -> Safety:
        """What the answer says beside its texts, as far as it is known when this much was written."""
        risk, given = self.asked.risk, any(one.text is not None for one in written)
        return Safety(
            risk=RiskBody.of(risk),
            resources_required=risk.resources_required or any(one.resources_required for one in written),
            refusal=RefusalBody.of(written[0].refusal) if written and not given else None,
            post_cut=self.post_cut,
        )


async def prepared(
    services: Services, request: Request, name: ModelName, post: Post, draft: str | None, sampling: Sampling
) -> Asking:
    """Triage, similar posts, prompt; raises ApiError for texts that are empty or too long."""
    limit = services.serving.max_post_chars
    text = post_text(post, limit)
    helper = None if draft is None else draft_text(draft, limit)
    request.state.model = name
    model = services.model(name)
    risk = await assess(services, model, request.state.request_id, text, helper)
    request.state.risk = risk
    caller = caller_of(request)
    answered = risk.level != "acute" or caller.may("acute")
    examples = await services.retrieval.similar(text) if services.retrieval and answered else []
    template = getattr(services.prompts, name)
    asked = Asked(
        request_id=request.state.request_id,
        post=text,
        draft=helper,
        prompt=messages(template, text, helper, [example.slot() for example in examples]),
        sampling=sampling,
        risk=risk,
        may_draft_acute=caller.may("acute"),
    )
    fitting = Fitting(model) if services.serving.api.long_posts == "cut" else model
    return Asking(name, fitting, caller, post, draft, asked, examples)


def caller_of(request: Request) -> Caller:
    """Who asks, as the access middleware found; nobody, who may do nothing, where it did not look."""
    caller: Caller = getattr(request.state, "caller", NOBODY)
    return caller


def together(drafted: Sequence[Drafted]) -> Usage:
    """Tokens of several texts."""
    return Usage(sum(one.usage.prompt_tokens for one in drafted), sum(one.usage.new_tokens for one in drafted))
