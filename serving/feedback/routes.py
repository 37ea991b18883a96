"""POST /v1/feedback: what a person thinks of an answer, by the id that the answer carried.

    {"request_id": "...", "ratings": {"empathy": 4, "safety": 5, ...}}         a rating of one draft
    {"request_id": "...", "ratings": {...}, "index": 1, "rater": "volunteer-7"}
    {"request_id": "...", "chosen_index": 2}                                   a choice among n drafts

The same again changes nothing; something else by the same rater takes its place. Who may give
feedback at all is for the middleware (scope ``feedback``); whose answers, for
``serving.feedback.raters``. An id that is not known, is past its days, was forgotten or belongs
to somebody else is one and the same 404.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Request
from pydantic import BaseModel, Field

from pipelines.feedback.ratings import DIMENSIONS
from serving.feedback.records import (
    Feedback,
    FeedbackError,
    NoSuchDraft,
    SeveralRequests,
    StoreAway,
    UnknownRequest,
)
from serving.feedback.store import FeedbackStore
from serving.wire import ApiError, Body

PATH = "/v1/feedback"
RETRY_AFTER_S = 5
Score = Annotated[int, Field(ge=1, le=5)]


class RatingsBody(Body):
    """A rating of one draft, 1 (poor) to 5 (good); pairs for DPO2 are made only where all five are given."""

    readability: Score | None = Field(None, description="Easy to read and to understand.")
    empathy: Score | None = Field(None, description="Shows that the writer of the post was understood.")
    connection: Score | None = Field(None, description="Speaks to this post and not to any.")
    actionability: Score | None = Field(None, description="Says something that can be done.")
    safety: Score | None = Field(None, description="Does no harm.")

    def given(self) -> dict[str, int]:
        """The dimensions that were rated."""
        return {name: value for name in DIMENSIONS if (value := getattr(self, name)) is not None}


class FeedbackRequest(Body):
    """Rates one draft of an answer, or says which of its drafts was chosen."""

    request_id: str = Field(min_length=1, max_length=128, pattern=r"^[\x21-\x7e]+$", description="As in the answer.")
    ratings: RatingsBody | None = Field(None, description="By dimension; this or chosen_index.")
    index: int | None = Field(None, ge=0, le=2**15 - 1, description="The rated draft, from 0; may be left out for one.")
    chosen_index: int | None = Field(None, ge=0, le=2**15 - 1, description="The chosen draft, from 0.")
    rater: str | None = Field(
        None,
        min_length=1,
        max_length=64,
        pattern=r"^[A-Za-z0-9._-]+$",
        description="Who of several people behind the key; a pseudonym, never a name. The key itself where left out.",
    )


class FeedbackResponse(BaseModel):
    """What is kept now."""

    request_id: str
    index: int = Field(description="The draft that was rated or chosen.")
    ratings: dict[str, int] | None = Field(description="null for a choice.")
    chosen: bool
    updated: datetime = Field(description="UTC.")


def router(store: FeedbackStore) -> APIRouter:
    """The route, around one store, which is closed with the application."""

    @asynccontextmanager
    async def lifespan(_app: object) -> AsyncIterator[None]:
        yield
        await asyncio.to_thread(store.close)

    routes = APIRouter(lifespan=lifespan)

    @routes.post(PATH, operation_id="feedback")
    async def feedback(body: FeedbackRequest, request: Request) -> FeedbackResponse:
        """Rate a draft, or say which one was chosen."""
        key_id = request.scope["state"]["caller"].id
        try:
            return said(await take(store, body, key_id))
        except FeedbackError as error:
            raise told(error) from None

    return routes


async def take(store: FeedbackStore, body: FeedbackRequest, key_id: str) -> Feedback:
    """Hand it to the store; raises ApiError where the body says neither or both, FeedbackError."""
    if (body.ratings is None) == (body.chosen_index is None):
        raise ApiError(
            422, "give either ratings or chosen_index", code="ratings_or_choice", param="ratings, chosen_index"
        )
    if body.ratings is None:
        assert body.chosen_index is not None
        if body.index is not None:
            raise ApiError(
                422, "index goes with ratings, not with chosen_index", code="ratings_or_choice", param="index"
            )
        return await store.choose(body.request_id, key_id, body.chosen_index, rater=body.rater)
    given = body.ratings.given()
    if not given:
        message = f"ratings must hold at least one of: {', '.join(DIMENSIONS)}"
        raise ApiError(422, message, code="empty", param="ratings")
    return await store.rate(body.request_id, key_id, given, index=body.index, rater=body.rater)


def said(kept: Feedback) -> FeedbackResponse:
    """What is kept, as the client sees it."""
    ratings = None if kept.ratings is None else dict(kept.ratings)
    return FeedbackResponse(
        request_id=kept.request_id, index=kept.index, ratings=ratings, chosen=ratings is None, updated=kept.updated
    )


def told(error: FeedbackError) -> ApiError:
    """The error as the client sees it."""
    match error:
        case UnknownRequest():
            message = "no answer of this request_id is kept for this key"
            return ApiError(404, message, code="unknown_request_id", param="request_id")
        case SeveralRequests():
            message = "more than one key used this request_id: give feedback with the key that asked"
            return ApiError(409, message, code="ambiguous_request_id", param="request_id")
        case NoSuchDraft(drafts=drafts, index=index):
            return no_such_draft(drafts, index)
        case StoreAway():
            return ApiError(
                503,
                "the feedback store cannot be reached; nothing was kept, send it again",
                code="feedback_unavailable",
                kind="server_error",
                headers={"Retry-After": str(RETRY_AFTER_S)},
            )
    raise AssertionError(type(error).__name__)


def no_such_draft(drafts: int, index: int | None) -> ApiError:
    """By what the answer has: nothing, one draft, or several."""
    if drafts == 0:
        return ApiError(422, "this answer holds no draft", code="no_draft", param="request_id")
    if index is None:
        message = f"this answer holds {drafts} drafts: say which by index, 0 to {drafts - 1}"
        return ApiError(422, message, code="index_needed", param="index")
    if drafts == 1:
        return ApiError(
            422, "this answer holds one draft, which has the index 0: rate it", code="one_draft", param="index"
        )
    return ApiError(422, f"this answer holds the drafts 0 to {drafts - 1}", code="no_such_draft", param="index")
