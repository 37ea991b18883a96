"""Every metric of the service: its name, what it counts and by what it is told apart.

On Ray the names carry the prefix ``ray_`` that its node agents give them, and ``Meters`` without
Ray keep it: one dashboard reads both. Counters end in ``_total``, histograms come as ``_bucket``,
``_sum`` and ``_count`` (Prometheus, "Metric and label naming").
"""

from dataclasses import dataclass
from typing import Literal

Kind = Literal["counter", "gauge", "histogram"]
PREFIX = "ray_"
"""What stands before every exported name."""
SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 40.0, 80.0, 160.0, 320.0)
"""Upper ends of the buckets of durations."""
WRITER = ("model", "version")
"""Whose answer it is: what a new version of a model is compared with the old one by."""


@dataclass(frozen=True)
class Definition:
    """One metric."""

    name: str
    kind: Kind
    help: str
    labels: tuple[str, ...] = ()

    @property
    def exported(self) -> tuple[str, ...]:
        """The names under which Prometheus finds it."""
        name = PREFIX + self.name
        if self.kind == "counter":
            return (f"{name}_total",)
        if self.kind == "histogram":
            return (f"{name}_bucket", f"{name}_sum", f"{name}_count")
        return (name,)


REQUESTS = Definition("llumi_requests", "counter", "Requests answered", ("route", "status"))
REQUEST_SECONDS = Definition(
    "llumi_request_seconds", "histogram", "From a request to the end of its answer", ("route",)
)
IN_PROGRESS = Definition("llumi_requests_in_progress", "gauge", "Requests that this ingress replica works on")
ANSWERS_IN_PROGRESS = Definition("llumi_answers_in_progress", "gauge", "Answers a model replica works on", ("model",))
ERRORS = Definition("llumi_errors", "counter", "Requests refused or failed, by the error's code", ("code",))
LAST_ERROR = Definition("llumi_last_error_timestamp_seconds", "gauge", "When a code was last answered", ("code",))
FIRST_BYTE = Definition(
    "llumi_first_byte_seconds", "histogram", "From a request to its answer's first byte", ("route",)
)
FIRST_TOKEN = Definition("llumi_first_token_seconds", "histogram", "From a replica's call to a first token", ("model",))
GENERATION_SECONDS = Definition("llumi_generation_seconds", "histogram", "A model's work on one answer", ("model",))
PROMPT_TOKENS = Definition("llumi_prompt_tokens", "counter", "Tokens read", ("model",))
NEW_TOKENS = Definition("llumi_new_tokens", "counter", "Tokens written", ("model",))
CANCELLED = Definition("llumi_cancelled", "counter", "Answers given up because the client went away", ("model",))
TRIAGED = Definition("llumi_triage", "counter", "Posts looked at, by risk level", ("level", *WRITER))
ANSWERS = Definition("llumi_answers", "counter", "Answers that the guard looked at, those written anew too", WRITER)
GUARDED = Definition("llumi_guard", "counter", "Answers that broke a rule of the guard", ("rule", *WRITER))
REGENERATED = Definition("llumi_regenerations", "counter", "Answers written anew after the guard", WRITER)
REFUSED = Definition("llumi_refusals", "counter", "Drafts and revisions not given, by reason", ("reason", *WRITER))
LIMITED = Definition("llumi_limited", "counter", "Requests over a limit of their key", ("kind",))
REPLICA_STARTS = Definition("llumi_replica_starts", "counter", "Model replicas that came up", ("model",))
START_SECONDS = Definition("llumi_replica_start_seconds", "histogram", "Loading a model in a replica", ("model",))

ALL = (
    REQUESTS,
    REQUEST_SECONDS,
    IN_PROGRESS,
    ANSWERS_IN_PROGRESS,
    ERRORS,
    LAST_ERROR,
    FIRST_BYTE,
    FIRST_TOKEN,
    GENERATION_SECONDS,
    PROMPT_TOKENS,
    NEW_TOKENS,
    CANCELLED,
    TRIAGED,
    ANSWERS,
    GUARDED,
    REGENERATED,
    REFUSED,
    LIMITED,
    REPLICA_STARTS,
    START_SECONDS,
)
"""What the service itself counts; queues and replicas are counted by Serve."""
