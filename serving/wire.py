"""What travels over HTTP: bodies in, bodies out, and errors that never repeat what was sent."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from configs.prompts import delimited, whole_post

RETRY_AFTER_S = 1
"""Seconds that a refused client is asked to wait."""
FIELDS = {"gm": "post", "im": "post, draft"}
"""Fields of the body that make up each model's prompt."""

EXPECTED = {
    "missing": "is missing",
    "string_type": "must be a string",
    "string_unicode": "must be valid Unicode: half of a surrogate pair stands alone",
    "string_too_short": "must have at least {min_length} character(s)",
    "string_too_long": "must have at most {max_length} characters",
    "string_pattern_mismatch": "must have the form {pattern}",
    "model_attributes_type": "must be an object",
    "model_type": "must be an object",
    "dict_type": "must be an object",
    "list_type": "must be a list",
    "too_short": "must have at least {min_length} item(s)",
    "too_long": "must have at most {max_length} items",
    "int_type": "must be a whole number",
    "int_from_float": "must be a whole number",
    "int_parsing_size": "is too large",
    "float_type": "must be a number",
    "finite_number": "must be a finite number",
    "bool_type": "must be true or false",
    "literal_error": "must be {expected}",
    "greater_than_equal": "must be at least {ge}",
    "greater_than": "must be greater than {gt}",
    "less_than_equal": "must be at most {le}",
    "less_than": "must be less than {lt}",
}
"""What is said of each of pydantic's errors; the numbers in it are our own bounds."""
OPENAI_ONLY = frozenset(
    {
        "audio",
        "function_call",
        "functions",
        "logit_bias",
        "modalities",
        "moderation",
        "parallel_tool_calls",
        "prediction",
        "prompt_cache_key",
        "prompt_cache_options",
        "prompt_cache_retention",
        "reasoning_effort",
        "service_tier",
        "tool_choice",
        "tools",
        "tool_calls",
        "tool_call_id",
        "verbosity",
        "web_search_options",
    }
)
"""Fields of OpenAI's requests that would change an answer and have no meaning here."""


Text = Annotated[str, Field(min_length=0)]
"""A string that can be encoded: pydantic takes half a surrogate pair in a plain ``str`` and refuses it here."""
PostId = Annotated[str, Field(min_length=1, max_length=128, pattern=r"^[\x21-\x7e]+$")]
"""The caller's own id of a post."""


class Body(BaseModel):
    """A request's body: unknown fields refused, no conversion between types."""

    model_config = ConfigDict(extra="forbid", strict=True)


class Post(Body):
    """What a member of the community wrote."""

    title: Text = ""
    text: Text = ""
    id: PostId | None = Field(
        None, description="The caller's own id of the post, t3_... for one of Reddit's; it can be forgotten by it."
    )


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


def invalid_body(errors: Sequence[Mapping[str, Any]], status: int = 422) -> ApiError:
    """The first thing that does not fit, by the field's name and what was expected there.

    Names that came from the client are not repeated: a field of ours is named, an unknown one is
    not, and one that OpenAI has and we have not is taken from our own list.
    """
    first = min(errors, key=lambda error: rank(error["type"]))
    names = tuple(part for part in first["loc"] if part != "body")
    if first["type"] == "json_invalid" or not names:
        return ApiError(400, "the body must be a JSON object, sent as application/json", code="invalid_json")
    param = ".".join(str(part) for part in names if isinstance(part, int) or part in field_names()) or None
    if first["type"] == "extra_forbidden":
        if names[-1] in OPENAI_ONLY:
            message = f"{names[-1]} is not supported here: leave it out"
            return ApiError(status, message, code="unsupported_parameter", param=str(names[-1]))
        what = f"{names[-1]} is" if names[-1] in field_names() else "the body holds a field that is"
        return ApiError(status, f"{what} not known here", code="unknown_field", param=param)
    what = EXPECTED.get(first["type"], "is not what is expected").format(**first.get("ctx", {}))
    return ApiError(status, f"{param or 'the body'} {what}", code=first["type"], param=param)


def rank(kind: str) -> int:
    """What of several errors is told: of a field that may have two forms, the one that was meant."""
    for place, ending in enumerate(("literal_error", "extra_forbidden", "", "missing", "_type")):
        if ending and kind.endswith(ending):
            return place
    return 2


def field_names() -> frozenset[str]:
    """Names of all fields of bodies, as far as they are defined by now."""
    kinds, found = [Body], set[str]()
    while kinds:
        kind = kinds.pop()
        found |= kind.model_fields.keys()
        kinds += kind.__subclasses__()
    return frozenset(found)
