"""Settings of revisions: what a draft should become, for the rows of the improvement model (IM)."""

from typing import Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from configs.base import Section

SourceName = Literal["community", "teacher"]


class TeacherSettings(Section):
    """A model in your own network that revises drafts, behind an OpenAI-compatible endpoint.

    Posts and drafts are sent to it, so only hosts with private addresses, or those named in
    ``allowed_hosts``, are ever asked; proxies of the environment are not used.
    """

    base_url: str
    """The endpoint up to and with its version, for example http://10.0.0.5:8000/v1."""
    model: str = Field(min_length=1)
    """Name of the model as the endpoint knows it."""
    api_key_env: str | None = None
    """Name of the environment variable (of the process that starts the run) that holds the key; none = no key."""
    allowed_hosts: tuple[str, ...] = ()
    """Hosts with public addresses that are in-house all the same, as they stand in ``base_url``."""
    temperature: float = Field(0.7, ge=0)
    """Sampling temperature."""
    top_p: float = Field(1.0, gt=0, le=1)
    """Share of the probability that is sampled from (0-1)."""
    max_tokens: int = Field(512, ge=1)
    """Most tokens of a revision; one that reaches it is cut off and dropped."""
    extra_body: dict[str, Any] = Field(default_factory=dict)
    """Further fields of each request, for example {chat_template_kwargs: {enable_thinking: false}}."""
    max_per_post: int = Field(2, ge=1)
    """Most drafts of one post that are revised."""
    concurrency: int = Field(16, ge=1)
    """Requests at the endpoint at the same time."""
    timeout_s: float = Field(120, gt=0)
    """Seconds after which a request counts as failed."""
    retries: int = Field(5, ge=0)
    """How often a request is repeated that failed for a passing reason (connection, timeout, 408, 429, 5xx)."""
    backoff_s: float = Field(1.0, gt=0)
    """Seconds before the first repetition, doubled each time; a Retry-After of the endpoint is obeyed instead."""
    max_wait_s: float = Field(120, gt=0)
    """Most seconds before a repetition, whoever asks for more."""
    max_failed_share: float = Field(0.02, ge=0, le=1)
    """Share of requests left without an answer above which the run stops (0-1); a rerun asks for these only."""
    characters_per_token: float = Field(3.5, gt=0)
    """Characters a token, to estimate the prompt tokens of the budget; English has about four."""
    prompt_price: float = Field(0.0, ge=0)
    """Price of a million prompt tokens, in your currency."""
    completion_price: float = Field(0.0, ge=0)
    """Price of a million completion tokens, in the same currency."""
    max_requests: int | None = Field(100_000, ge=0)
    """A run that would ask more often is refused before it starts; none = no limit."""
    max_cost: float | None = Field(None, ge=0)
    """A run that could cost more is refused before it starts, in the prices' currency; none = no limit."""

    @field_validator("base_url")
    @classmethod
    def _is_an_endpoint(cls, url: str) -> str:
        parts = urlsplit(url)
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise ValueError("expected a URL such as http://10.0.0.5:8000/v1")
        if parts.username or parts.password:
            raise ValueError("holds a user or password; put the key in an environment variable and name it api_key_env")
        if parts.query or parts.fragment:
            raise ValueError("ends in a query or fragment; give the part up to and with /v1")
        return url.rstrip("/")


class ImprovementSettings(Section):
    """From replies of a community to pairs (original, revision), the better one being what IM should write.

    ``community``: the lower- and the higher-voted reply to one post, joined by similarity so
    that the revision keeps what the draft is about. ``teacher``: a model's revision of the
    lower-voted reply.
    """

    sources: tuple[SourceName, ...] = Field(("community",), min_length=1)
    """Where revisions come from: community, teacher, or both."""
    floor: float | None = Field(None, ge=-1, le=1)
    """Least cosine similarity of a revision to its draft (-1 to 1); none = ``floor_quantile`` of the corpus."""
    floor_quantile: float = Field(0.9, ge=0, le=1)
    """The floor as a quantile of the similarities of replies to different posts of the corpus (0-1)."""
    baseline_replies: int = Field(2000, ge=20)
    """Replies of the training split from which that quantile is measured."""
    worse_share: float = Field(0.5, ge=0, le=1)
    """Share of preference pairs that reject another, worse reply where there is one (0-1); the others the draft."""
    teacher: TeacherSettings | None = None
    """The endpoint that revises drafts; needed for the source ``teacher`` only."""

    @model_validator(mode="after")
    def _a_teacher_has_an_endpoint(self) -> Self:
        if "teacher" in self.sources and self.teacher is None:
            raise ValueError("sources name the teacher, so teacher.base_url and teacher.model are needed")
        if len(set(self.sources)) < len(self.sources):
            raise ValueError("sources name one source twice")
        return self
