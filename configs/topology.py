"""Settings of what runs where in the service: deployments and their replicas, models on nodes, the proxy in front."""

from typing import Literal

from pydantic import Field, model_validator

from configs.base import Section


class DeploymentSettings(Section):
    """Replicas of one deployment."""

    min_replicas: int = Field(1, ge=0)
    """Fewest replicas; 0 lets a model's deployment scale to zero: its first request waits for the model to load."""
    max_replicas: int = Field(2, ge=1)
    """Most replicas."""
    target_ongoing_requests: float = Field(8, gt=0)
    """Requests in progress a replica that autoscaling aims at."""
    max_ongoing_requests: int = Field(32, ge=1)
    """Most requests in progress a replica."""
    max_queued_requests: int = Field(64, ge=-1)
    """Most requests that wait for a replica before 503 is answered; -1 = without limit."""
    upscale_delay_s: float = Field(5, ge=0)
    """Seconds of load before replicas are added."""
    downscale_delay_s: float = Field(60, ge=0)
    """Seconds of calm before replicas are removed."""
    max_replicas_per_node: int | None = Field(None, ge=1, le=100)
    """Most replicas on one node, so that a node lost is not all replicas lost; none = Serve spreads them as it can."""
    cpus: float = Field(1, ge=0)
    """CPUs a replica asks of Ray."""
    gpus: float = Field(0, ge=0)
    """GPUs a replica asks of Ray; a fraction shares one."""

    @model_validator(mode="after")
    def _ordered(self) -> "DeploymentSettings":
        if self.min_replicas > self.max_replicas:
            raise ValueError(
                f"min_replicas is {self.min_replicas} and max_replicas {self.max_replicas}: raise the latter"
            )
        if self.gpus > 1 and self.gpus != int(self.gpus):
            raise ValueError(f"gpus is {self.gpus:g}: Ray gives whole GPUs, or a fraction of one")
        return self


class IngressSettings(DeploymentSettings):
    """Replicas of the ingress, which waits for models most of the time and so takes many requests at once.

    Nothing waits for it: what is above ``max_ongoing_requests`` is refused, whatever ``max_queued_requests`` says.
    """

    target_ongoing_requests: float = Field(64, gt=0)
    """Requests in progress a replica that autoscaling aims at."""
    max_ongoing_requests: int = Field(256, ge=1)
    """Most requests in progress a replica; what is above is answered with 503."""
    cpus: float = Field(0.5, ge=0)
    """CPUs a replica asks of Ray."""


class LocationSettings(Section):
    """Where the models lie that are served: a folder, a Hugging Face name, ``s3://`` or ``gs://``."""

    gm: str | None = None
    """The generation model, merged (``llumi export``), its adapter where ``kind`` is shared; none = the run's own."""
    im: str | None = None
    """The improvement model alike."""
    base: str | None = None
    """The model that both adapters belong to, where ``kind`` is shared; none = the run's own."""


class TopologySettings(Section):
    """What runs where."""

    locations: LocationSettings = LocationSettings()
    """Where the models lie, if they are not those that the run of this configuration made."""
    kind: Literal["separate", "shared"] = "separate"
    """separate: gm and im are deployments of their own, of merged models; shared: one deployment, ``models``,
    holds the base once and both adapters."""
    models: DeploymentSettings = DeploymentSettings()
    """Replicas of the one deployment of both models, where ``kind`` is shared."""
    canary: DeploymentSettings | None = None
    """Replicas of a canary (``llumi rollout``); none = as of its model, starting with one."""
    model_cache: str = "~/.cache/llumi/models"
    """Folder of each node that models from s3:// and gs:// are kept in, one copy a node and version."""
    cached_models: int = Field(4, ge=1)
    """Versions kept in ``model_cache``; those used longest ago go first."""
    stall_s: float = Field(60, gt=0)
    """Seconds without any new token, though requests are in progress, after which a replica is replaced."""
    haproxy: Literal["auto", "always", "never"] = "auto"
    """HAProxy in front of the ingress, which costs less CPU than Serve's own proxy; auto = where its binary runs.
    Of a Ray that ``llumi serve`` starts itself; others have it by the environment of ``ray start``."""
