"""Telling the feedback store which answer was given, so that people can say what they think of it."""

from collections.abc import Sequence

from starlette.requests import Request

from serving.asking import Asking, caller_of
from serving.feedback.records import Kind, Texts
from serving.services import Services
from serving.wire import Post


async def record(
    services: Services,
    request: Request,
    kind: Kind,
    asking: Asking,
    version: str | None,
    post: Post,
    answers: Sequence[str | None],
    draft: str | None = None,
) -> None:
    """Keep the answer; a draft that was refused keeps its place with no text."""
    if services.feedback is None:
        return
    given = any(answer is not None for answer in answers)
    await services.feedback.record(
        request_id=asking.asked.request_id,
        kind=kind,
        model=asking.name,
        version=version,
        key_id=caller_of(request).id,
        risk=asking.asked.risk.level,
        drafts=len(answers) if given else 0,
        post_id=post.id,
        texts=Texts(post.title, post.text, tuple(answer or "" for answer in answers), draft) if given else None,
    )
