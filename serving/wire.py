"""What travels over HTTP: bodies in, bodies out, and errors that never repeat what was sent."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from configs.prompts import delimited, whole_post
from pipelines.generation.engine import FinishReason, Usage

RETRY_AFTER_S = 1
"""Seconds that a refused client is asked to wait."""
FIELDS = {"gm": "post", "im": "post, draft"}
"""Fields of the body that make up each model's prompt."""


class Body(BaseModel):
    """A request's body: unknown fields refused, no conversion between types."""

    model_config = ConfigDict(extra="forbid", strict=True)


class Post(Body):
    """What a member of the community wrote."""

    title: str = ""
    text: str = ""


class GenerateRequest(Body):
    """Asks GM for a draft."""

    post: Post


class ImproveRequest(Body):
    """Asks IM for a revision of a helper's draft."""

    post: Post
    draft: str


class Written(BaseModel):
    """What both answers carry."""

    request_id: str
    model: Literal["gm", "im"]
    finish_reason: FinishReason
    usage: Usage


class GenerateResponse(Written):
    """GM's answer."""

    draft: str


class ImproveResponse(Written):
    """IM's answer."""

    revision: str


class ApiError(Exception):
    """An error as the client sees it; ``param`` names a field, never its content."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        code: str,
        kind: str = "invalid_request_error",
        param: str | None = None,
        headers: Mapping[str, str] | None = None,
    ):
        super().__init__(message)
        self.status, self.headers = status, dict(headers or {})
        self.body = error_body(message, kind, param, code)


class ContextExceeded(ApiError):
    """Prompt and answer do not fit into what the model's engine holds for one request."""

    def __init__(self, model: str, prompt_tokens: int, new_tokens: int, limit: int):
        room = max(limit - new_tokens, 0)
        message = (
            f"the text makes a prompt of {prompt_tokens} tokens, {model} takes at most {room} beside "
            f"{new_tokens} new ones: shorten the text, or ask for fewer new tokens"
        )
        super().__init__(400, message, code="context_length_exceeded", param=FIELDS.get(model))
        self.excess = prompt_tokens + new_tokens - limit
        """Tokens that are too many."""
        self.prompt_tokens = prompt_tokens


def unavailable(message: str, code: str) -> ApiError:
    """503: the client may try again soon."""
    return ApiError(503, message, code=code, kind="server_error", headers={"Retry-After": str(RETRY_AFTER_S)})


def unanswered(message: str) -> ApiError:
    """504: the request was given up."""
    return ApiError(504, message, code="timeout", kind="server_error")


def error_body(message: str, kind: str, param: str | None, code: str) -> dict[str, Any]:
    """The JSON of every error, in the shape OpenAI's clients read."""
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def post_text(post: Post, limit: int) -> str:
    """The post as the prompts present it; raises ApiError where it is empty or longer than ``limit`` characters."""
    text = delimited(whole_post(post.title, post.text))
    if not text:
        raise ApiError(422, "post needs a title or a text that is not empty", code="empty", param="post")
    return within(text, limit, "post")


def draft_text(draft: str, limit: int) -> str:
    """The draft as the prompts present it; raises ApiError where it is empty or longer than ``limit`` characters."""
    text = delimited(draft)
    if not text:
        raise ApiError(422, "draft must not be empty", code="empty", param="draft")
    return within(text, limit, "draft")


def within(text: str, limit: int, param: str) -> str:
    """``text``, or ApiError where it is too long."""
    if len(text) > limit:
        message = f"{param} has {len(text)} characters, at most {limit} are taken"
        raise ApiError(422, message, code="too_long", param=param)
    return text


def invalid_body(errors: Sequence[Mapping[str, Any]]) -> ApiError:
    """The first thing that does not fit, by the field's name and what was expected there.

    An unknown field's name came from the client, so only the known ones are named.
    """
    first = errors[0]
    names = [str(part) for part in first["loc"] if part != "body"]
    if first["type"] == "json_invalid" or not names:
        return ApiError(400, "the body must be a JSON object, sent as application/json", code="invalid_json")
    if first["type"] == "extra_forbidden":
        where = ".".join(names[:-1]) or None
        return ApiError(422, "the body holds a field that is not known here", code="unknown_field", param=where)
    param = ".".join(names)
    expected = {
        "missing": "is missing",
        "string_type": "must be a string",
        "model_attributes_type": "must be an object",
    }
    what = expected.get(first["type"], "is not what is expected")
    return ApiError(422, f"{param} {what}", code=first["type"], param=param)
