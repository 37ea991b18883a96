"""Noting what was written: for the access log, and for the feedback store, so that people can say what they think."""

from collections.abc import Sequence

from starlette.requests import Request

from serving.asking import Asking, together
from serving.drafting import Drafted
from serving.feedback.records import Kind, Texts
from serving.services import Services


async def recorded(
    services: Services, request: Request, kind: Kind, asking: Asking, written: Sequence[Drafted]
) -> str | None:
    """Note the answer; a draft that was refused keeps its place with no text. Returns the version that wrote it."""
    request.state.usage = together(written)
    version = await asking.version()
    if services.feedback is not None:
        given, post = any(one.text is not None for one in written), asking.post
        texts = tuple(one.text or "" for one in written)
        await services.feedback.record(
            request_id=asking.asked.request_id,
            kind=kind,
            model=asking.name,
            version=version,
            key_id=asking.caller.id,
            risk=asking.asked.risk.level,
            drafts=len(written) if given else 0,
            post_id=post.id,
            texts=Texts(post.title, post.text, texts, asking.draft) if given else None,
        )
    return version
