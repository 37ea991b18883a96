"""The native interface's bodies: /v1/generate and /v1/improve.

Sampling fields carry the names that OpenAI's clients use, here and in ``serving.chat``.
"""

from typing import Annotated, Literal

from pydantic import BaseModel, Field

from configs.serving import GenerationSettings
from pipelines.generation.engine import Sampling, Usage
from serving.drafting import SEEDS, Ended, Refusal
from serving.safety.risk import Action, Level, Risk
from serving.wire import ApiError, Body, Post, Text

MOST_DRAFTS = 16
"""Bound of ``n`` in the interface; ``serving.api.max_drafts`` may be lower."""

StopText = Annotated[str, Field(min_length=1, max_length=64)]


class SamplingFields(Body):
    """How an answer is sampled; what is left out or null is as the service is configured."""

    max_tokens: int | None = Field(None, ge=1, le=2**31 - 1, description="Most tokens of a draft or revision.")
    temperature: float | None = Field(None, ge=0, le=2, allow_inf_nan=False, description="0 = greedy.")
    top_p: float | None = Field(None, gt=0, le=1, allow_inf_nan=False, description="Nucleus of this probability.")
    stop: StopText | Annotated[list[StopText], Field(max_length=4)] | None = Field(
        None, description="Texts that end the answer; they are not part of it."
    )
    seed: int | None = Field(
        None,
        ge=-SEEDS,
        lt=SEEDS,
        description="The same request with the same seed gets the same text; draft i of n is sampled with seed + i.",
    )

    def tokens(self) -> int | None:
        """Most new tokens."""
        return self.max_tokens

    def sampling(
        self, defaults: GenerationSettings, most: int, *, logprobs: bool = False, status: int = 422
    ) -> Sampling:
        """As the engine takes it; raises ApiError with ``status`` where more than ``most`` tokens are asked for."""
        tokens = self.tokens()
        if tokens is not None and tokens > most:
            message = f"max_tokens is {tokens}, at most {most} are written (serving.api.max_new_tokens)"
            raise ApiError(status, message, code="too_large", param="max_tokens")
        texts = [self.stop] if isinstance(self.stop, str) else self.stop or []
        return Sampling(
            max_new_tokens=tokens or defaults.max_new_tokens,
            temperature=defaults.temperature if self.temperature is None else self.temperature,
            top_p=defaults.top_p if self.top_p is None else self.top_p,
            repetition_penalty=defaults.repetition_penalty,
            stop=tuple(dict.fromkeys(texts)),
            seed=None if self.seed is None else self.seed % SEEDS,
            logprobs=logprobs,
        )


class GenerateRequest(SamplingFields):
    """Asks GM for drafts of a reply to a post."""

    post: Post
    n: int = Field(1, ge=1, le=MOST_DRAFTS, description="Drafts to write.")
    stream: bool = Field(False, description="Answer with server-sent events: start, text, end; or error.")
    logprobs: bool = Field(False, description="Give the log-probability of each token of each draft.")
    show_examples: bool = Field(False, description="Show the similar posts that stood in the prompt.")


class ImproveRequest(SamplingFields):
    """Asks IM for a revision of a helper's draft."""

    post: Post
    draft: Text = Field(description="What the helper wrote.")
    show_examples: bool = Field(False, description="Show the similar posts that stood in the prompt.")


class RiskBody(BaseModel):
    """What the triage says about the post; the rules are documented in docs/safety.md."""

    level: Level
    signals: list[str] = Field(description="Ids of the rules that it rests on, never text.")
    action: Action = Field(description="What the caller is asked to do.")

    @classmethod
    def of(cls, risk: Risk) -> "RiskBody":
        """The triage's result."""
        return cls(level=risk.level, signals=list(risk.signals), action=risk.action)


class ExampleBody(BaseModel):
    """A similar post of the training data with a well-received reply."""

    post: str
    reply: str
    score: int = Field(description="Net votes of the reply.")
    similarity: float = Field(description="Cosine, -1 to 1.")


class RefusalBody(BaseModel):
    """Why there is no text."""

    code: Literal["acute_risk", "guard"]
    message: str
    rules: list[str] = Field(description="Ids of the rules that were met, never text.")

    @classmethod
    def of(cls, refusal: Refusal | None) -> "RefusalBody | None":
        """The reason, where there is one."""
        return cls(code=refusal.code, message=refusal.message, rules=list(refusal.rules)) if refusal else None


class DraftBody(BaseModel):
    """One draft, or why there is none."""

    text: str | None
    finish_reason: Ended
    refusal: RefusalBody | None = None
    logprobs: list[float] | None = Field(None, description="Of each token, where asked for.")


class Safety(BaseModel):
    """What every answer says beside its texts."""

    risk: RiskBody
    resources_required: bool = Field(description="The caller must show local crisis resources.")
    refusal: RefusalBody | None = Field(description="Why nothing is given; null where something is.")
    post_cut: bool = Field(description="The middle of the post was left out of the prompt.")


class Answer(Safety):
    """What both answers carry."""

    request_id: str
    version: str | None = Field(description="Version of the model that wrote.")
    finish_reason: Ended = Field(description="Of the first draft, or of the revision.")
    usage: Usage = Field(description="Tokens of all drafts and attempts.")
    examples: list[ExampleBody] | None = Field(None, description="Similar posts in the prompt, where asked for.")


class GenerateResponse(Answer):
    """GM's answer."""

    model: Literal["gm"] = "gm"
    drafts: list[DraftBody] = Field(description="One for each of n; none where the post is not answered at all.")


class EditBody(BaseModel):
    """A stretch of words; joined, the draft sides are the draft and the revision sides the revision."""

    op: Literal["equal", "insert", "delete", "replace"]
    draft: str
    revision: str


class PreservationBody(BaseModel):
    """How much of the draft's content the revision keeps; scores of two methods are not comparable."""

    score: float = Field(ge=0, le=1)
    method: Literal["embedding", "lexical"]


class ImproveResponse(Answer):
    """IM's answer."""

    model: Literal["im"] = "im"
    revision: str | None
    edits: list[EditBody]
    preservation: PreservationBody | None


class ErrorDetail(BaseModel):
    """An error; no part of it repeats what was sent."""

    message: str
    type: str
    param: str | None = Field(description="The field that is meant.")
    code: str = Field(description="Stable name of what happened.")


class ErrorBody(BaseModel):
    """The body of every error, in the shape that OpenAI's clients read."""

    error: ErrorDetail
