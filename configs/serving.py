"""Settings of generation and of the service: engine, deployments, address."""

from typing import Literal, Self

from pydantic import Field, model_validator

from configs.access import AccessSettings, Auth, TlsSettings
from configs.api import ApiSettings
from configs.base import Section
from configs.safety import SafetySettings
from configs.store import StoreSettings
from configs.topology import DeploymentSettings, IngressSettings, TopologySettings
from configs.watching import WatchingSettings


class GenerationSettings(Section):
    """How text is sampled, in evaluation and in the service."""

    max_new_tokens: int = Field(256, ge=1)
    """Most tokens of a draft or revision."""
    temperature: float = Field(0.7, ge=0, le=2)
    """Sampling temperature; 0 = greedy."""
    top_p: float = Field(0.95, gt=0, le=1)
    """Nucleus: smallest set of tokens with this much probability."""
    repetition_penalty: float = Field(1.0, ge=1, le=10)
    """Divides the logits of tokens that were already written (Keskar et al. 2019); 1 = off."""
    seed: int = 0
    """Seed of sampling in batch generation."""


class EngineSettings(Section):
    """Which engine writes in each replica, and its limits."""

    kind: Literal["transformers", "vllm"] = "transformers"
    """transformers: continuous batching, on CPUs and GPUs; vllm: AsyncLLM, on GPUs where vLLM is installed."""
    page_size: int = Field(32, gt=0)
    """Tokens a cache page."""
    pages: int = Field(256, gt=0)
    """Cache pages; prompt + new tokens of one request must fit into pages * page_size."""
    max_batch_tokens: int = Field(512, gt=0)
    """Most tokens in one forward pass."""
    max_requests: int = Field(32, gt=0)
    """Most requests generated at once."""
    gpu_memory: float = Field(0.9, gt=0, le=1)
    """vllm: share of the GPU's memory for weights and cache; its cache is as large as this leaves room for, and
    ``pages`` only bounds a request."""


class ServingSettings(Section):
    """The HTTP service of both models."""

    host: str = "127.0.0.1"
    """Address the service binds; only this machine unless told otherwise."""
    auth: Auth = "keys"
    """Who is let in: holders of an API key, holders of a provider's token, or everybody (on this machine only)."""
    access: AccessSettings = AccessSettings()
    """Keys, tokens and limits of each caller."""
    tls: TlsSettings | None = None
    """Certificate for HTTPS; none = plain HTTP."""
    port: int = Field(8000, ge=1, le=65535)
    """Port of the service."""
    request_timeout_s: float = Field(60, gt=0)
    """Seconds after which a request is given up with 504."""
    max_post_chars: int = Field(20_000, gt=0)
    """Longest post or draft taken, in characters."""
    max_body_bytes: int = Field(1_000_000, gt=0)
    """Largest request body taken, in bytes; larger ones get 413 before they are read."""
    api: ApiSettings = ApiSettings()
    """What one request may ask for, and how posts become prompts."""
    playground: bool = False
    """Serve a page at ``/`` on which people try both models; its files need no key, what they ask does."""
    crisis_resources: tuple[str, ...] = ()
    """Lines that the playground shows where an answer says ``resources_required``: name and number of local help."""
    feedback: StoreSettings = StoreSettings()
    """Which answers were given and what people thought of them: where it is kept, and for how long."""
    watching: WatchingSettings = WatchingSettings()
    """What can be seen of requests beside metrics and the access log: traces."""
    safety: SafetySettings = SafetySettings()
    """Triage of posts before generation, guard of what was written after it."""
    drain_s: float = Field(10, ge=0)
    """Seconds a replica has to finish its requests when it is stopped."""
    engine: EngineSettings = EngineSettings()
    """Limits of the engine in each replica."""
    ingress: IngressSettings = IngressSettings()
    """Replicas of the HTTP ingress."""
    gm: DeploymentSettings = DeploymentSettings()
    """Replicas of the generation model."""
    im: DeploymentSettings = DeploymentSettings()
    """Replicas of the improvement model."""
    topology: TopologySettings = TopologySettings()
    """What runs where: one deployment a model or one for both, models on nodes, the proxy in front."""

    @model_validator(mode="after")
    def provider_is_named(self) -> Self:
        """Tokens cannot be checked without a provider."""
        if self.auth == "oidc" and self.access.oidc is None:
            raise ValueError("auth=oidc needs access.oidc with the provider's issuer and audience")
        return self

    @model_validator(mode="after")
    def vllm_has_a_gpu(self) -> Self:
        """vLLM does not start without one."""
        kind = self.topology.kind
        parts = {"topology.models": self.topology.models} if kind == "shared" else {"gm": self.gm, "im": self.im}
        without = [f"serving.{name}.gpus" for name, part in parts.items() if not part.gpus]
        if self.engine.kind == "vllm" and without:
            raise ValueError(f"engine.kind=vllm runs on GPUs: give {' and '.join(without)}, or take kind=transformers")
        return self

    @model_validator(mode="after")
    def tls_can_be_had(self) -> Self:
        """Ray Serve starts its HAProxy without TLS."""
        if self.tls is not None and self.topology.haproxy == "always":
            raise ValueError("tls and topology.haproxy=always exclude each other: set topology.haproxy=auto")
        return self
