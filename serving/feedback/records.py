"""What goes into the store and what comes back; no database here."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from configs.errors import ClusterError
from configs.training import ModelName

Kind = Literal["generate", "improve", "chat"]
"""Which route gave the answer."""


@dataclass(frozen=True)
class Texts:
    """The words of one answer; kept only where ``serving.feedback.keep_text`` says so."""

    title: str
    post: str
    answers: tuple[str | None, ...]
    """The drafts, or the one revision, in the order of the reply; None for one that was kept back."""
    draft: str | None = None
    """What a helper wrote and IM revised."""


@dataclass(frozen=True)
class Answer:
    """One answer that was given."""

    request_id: str
    key_id: str
    kind: Kind
    model: ModelName
    version: str
    risk: str
    drafts: int
    """Number of texts that can be rated or chosen among."""
    post_id: str | None
    """The caller's id of the post: ``t3_...`` for one of Reddit's, anything else for one of its own."""
    created: datetime
    """UTC, without a zone, as both databases keep it."""
    texts: Texts | None = None


@dataclass(frozen=True)
class Feedback:
    """What one rater thinks of one answer, as it stands after a request."""

    request_id: str
    index: int
    """The draft that was rated or chosen, from 0."""
    rater_id: str
    ratings: Mapping[str, int] | None
    """By dimension, 1 to 5; None for a choice."""
    updated: datetime


class FeedbackError(Exception):
    """Base of what feedback may meet; never raised itself, holds no text of anybody."""


class UnknownRequest(FeedbackError):
    """No answer of this id is kept, or this key may not speak about it: the two are not told apart."""


class SeveralRequests(FeedbackError):
    """More than one key used this id."""


class NoSuchDraft(FeedbackError):
    """The answer has fewer drafts, or more than one and none was named."""

    def __init__(self, drafts: int, index: int | None):
        super().__init__(drafts, index)
        self.drafts, self.index = drafts, index


class StoreAway(FeedbackError, ClusterError):
    """The database cannot be reached, is full, or is held by another writer for too long: nothing was changed."""
