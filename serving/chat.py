"""OpenAI's chat completions, as far as two models that each do one thing can have them.

    llumi-gm   messages: [user: the post]                                  -> a draft of a reply
    llumi-im   messages: [user: the post, assistant: the helper's draft]   -> a revision

Other shapes are refused and not bent into these: what both models are told to do is fixed by the
prompts that they were trained with, so system messages and longer conversations have no meaning
here. Fields that OpenAI has and we have not are refused by name where they would change the
answer. Beside OpenAI's fields an answer carries ``risk`` and ``resources_required``.
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from configs.training import ModelName
from serving.bodies import MOST_DRAFTS, Ended, Safety, SamplingFields
from serving.catalogue import NAMES, known
from serving.wire import ApiError, Body, Post, PostId, Text

Zero = Annotated[float, Field(ge=0, le=0)]
SHAPES: dict[ModelName, tuple[str, ...]] = {"gm": ("user",), "im": ("user", "assistant")}
"""Roles that each model's messages have, in order."""
TEXTS: dict[ModelName, str] = {
    "gm": "llumi-gm takes one message: the post, with the role user",
    "im": "llumi-im takes two messages: the post with the role user, then the helper's draft with the role assistant",
}


class TextPart(Body):
    """One part of a message; there are none but text."""

    type: Literal["text"]
    text: Text


class Message(Body):
    """One message."""

    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: Text | list[TextPart]
    name: str | None = Field(None, max_length=256, description="Not read.")

    def text(self) -> str:
        """All of it."""
        return self.content if isinstance(self.content, str) else "".join(part.text for part in self.content)


class StreamOptions(Body):
    """What a stream carries beside text."""

    include_usage: bool | None = None
    include_obfuscation: Literal[False] | None = None


class TextFormat(Body):
    """The only form of an answer."""

    type: Literal["text"]


class Metadata(Body):
    """Whatever the client keeps beside its request, one key of which is read."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, Text] = Field(init=False)

    post_id: PostId | None = Field(None, description="The caller's own id of the post.")


class ChatRequest(SamplingFields):
    """Asks llumi-gm for drafts, or llumi-im for a revision."""

    model: str = Field(max_length=256, json_schema_extra={"enum": list(NAMES)})
    messages: list[Message] = Field(min_length=1, max_length=64)
    n: int | None = Field(None, ge=1, le=MOST_DRAFTS)
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=0)] | None = Field(None, description="Only of the token written.")
    max_completion_tokens: int | None = Field(None, ge=1, le=2**31 - 1, description="The same as max_tokens.")
    presence_penalty: Zero | None = Field(None, description="Only 0.")
    frequency_penalty: Zero | None = Field(None, description="Only 0.")
    response_format: TextFormat | None = None
    store: Literal[False] | None = None
    metadata: Metadata | None = None
    user: str | None = Field(None, description="Not read: who asks is known by the key.")
    safety_identifier: str | None = Field(None, description="Not read.")

    def asked(self) -> tuple[ModelName, Post, str | None]:
        """Model, post and draft; raises ApiError where the messages do not have the model's shape."""
        name = known(self.model)
        if tuple(message.role for message in self.messages) != SHAPES[name]:
            raise ApiError(400, TEXTS[name], code="messages_not_supported", param="messages")
        texts = [message.text() for message in self.messages]
        post = Post(text=texts[0], id=self.metadata.post_id if self.metadata else None)
        return name, post, texts[1] if len(texts) > 1 else None

    def tokens(self) -> int | None:
        """Most new tokens; raises ApiError where both names are used with different numbers."""
        both = {self.max_tokens, self.max_completion_tokens} - {None}
        if len(both) > 1:
            message = "max_tokens and max_completion_tokens say different things; give one of them"
            raise ApiError(400, message, code="invalid_value", param="max_completion_tokens")
        return both.pop() if both else None


class ChatUsage(BaseModel):
    """Tokens of all choices and attempts."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class ChatMessage(BaseModel):
    """What was written; ``refusal`` where nothing is given."""

    role: Literal["assistant"] = "assistant"
    content: str | None
    refusal: str | None


class TokenLogprob(BaseModel):
    """One token of an answer."""

    token: str
    bytes: list[int] | None
    logprob: float
    top_logprobs: list[Any] = []


class ChatLogprobs(BaseModel):
    """All tokens of an answer."""

    content: list[TokenLogprob]
    refusal: None = None


class Choice(BaseModel):
    """One draft, or the revision."""

    index: int
    message: ChatMessage
    finish_reason: Ended
    logprobs: ChatLogprobs | None = None


class ChatResponse(Safety):
    """OpenAI's ``chat.completion``, and what our answers say beside its fields."""

    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    system_fingerprint: str | None
    choices: list[Choice]
    usage: ChatUsage
