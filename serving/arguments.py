"""What the service's applications are built from: the ``args`` of the document that is deployed."""

from pathlib import Path
from typing import Any

from pydantic import Field

from configs.base import Section
from configs.retrieval import RetrievalSettings
from configs.serving import DeploymentSettings, EngineSettings, GenerationSettings, ServingSettings
from configs.settings import PromptSettings, Settings
from configs.topology import LocationSettings, TopologySettings
from configs.training import SCRATCH, ModelName
from configs.watching import TraceSettings
from pipelines.layout import Layout
from serving.access.place import with_places

APP = "llumi"
"""Name of the application with the ingress."""
SHARED = "models"
"""Deployment of both models, where they share a base."""


class ModelPaths(Section):
    """Where the models lie, as every serving node sees it."""

    gm: str
    """The generation model, merged: a folder, a Hugging Face name, s3:// or gs://; with a ``base`` its adapter."""
    im: str
    """The improvement model alike."""
    base: str | None = None
    """The model that both adapters belong to, where one deployment serves both."""


class ModelArgs(Section):
    """What the application of a model, or of both, depends on."""

    deployment: str
    """Name of the deployment: ``gm``, ``im`` or ``models``."""
    models: dict[ModelName, str]
    """Location of each model that a replica holds: merged, or with a ``base`` its adapter."""
    base: str | None = None
    """The model that adapters belong to."""
    engine: EngineSettings = EngineSettings()
    """Engine and its limits."""
    replicas: DeploymentSettings = DeploymentSettings()
    """Replicas, queues and what one replica asks for."""
    model_cache: str = TopologySettings.model_fields["model_cache"].default
    """Folder of each node that models from stores are kept in."""
    cached_models: int = TopologySettings.model_fields["cached_models"].default
    """Versions kept there."""
    stall_s: float = TopologySettings.model_fields["stall_s"].default
    """Seconds without a new token, though requests are in progress, after which a replica is replaced."""
    traces: TraceSettings = TraceSettings()
    """Where spans go."""
    drain_s: float = Field(10, ge=0)
    """Seconds a replica has to finish its requests when it is stopped."""
    labels: dict[str, str] = Field(default_factory=dict)
    """Labels of the nodes that replicas may run on; empty = any node."""


class IndexArgs(Section):
    """The index of similar posts, as the ingress' nodes see it."""

    folder: str
    """Where it lies."""
    retrieval: RetrievalSettings
    """How it was built and is looked up."""
    tokenizer: str
    """The model whose tokens are counted: the base of both."""


class AppArgs(Section):
    """What the application of the ingress depends on; which models it asks is its ``user_config``."""

    prompts: PromptSettings = PromptSettings()
    """Prompt templates; the ones that the models were trained with."""
    generation: GenerationSettings = GenerationSettings()
    """Sampling."""
    serving: ServingSettings = ServingSettings()
    """Limits, access, safety and what is switched on; host and port are Serve's and not read here."""
    index: IndexArgs | None = None
    """Similar posts for the prompts; none where the run has no index."""
    labels: dict[str, str] = Field(default_factory=dict)
    """Labels of the nodes that replicas may run on; empty = any node."""


def ingress_args(settings: Settings) -> AppArgs:
    """The ingress under one configuration; where models lie is left to its routes: a new one restarts nothing here."""
    serving = with_places(settings)
    topology = serving.topology.model_copy(update={"locations": LocationSettings()})
    feedback = serving.feedback.resolved(settings.output)
    return AppArgs(
        prompts=settings.prompts,
        generation=settings.generation,
        serving=serving.model_copy(update={"topology": topology, "feedback": feedback}),
        index=index_args(settings),
        labels=settings.cluster.pools.selector("serving"),
    )


def index_args(settings: Settings) -> IndexArgs | None:
    """The run's index of similar posts, where it has one."""
    if not settings.retrieval.enabled:
        return None
    layout = Layout(Path(settings.output).expanduser().absolute())
    tokenizer = str(layout.base) if settings.model.base == SCRATCH else settings.model.base
    return IndexArgs(folder=str(layout.retrieval), retrieval=settings.retrieval, tokenizer=tokenizer)


def model_args(settings: Settings, models: ModelPaths) -> list[ModelArgs]:
    """The models' deployments under one configuration: one for each, or one for both."""
    serving = settings.serving
    if models.base is not None:
        both: dict[ModelName, str] = {"gm": models.gm, "im": models.im}
        return [one_deployment(settings, SHARED, both, models.base, serving.topology.models)]
    return [
        one_deployment(settings, "gm", {"gm": models.gm}, None, serving.gm),
        one_deployment(settings, "im", {"im": models.im}, None, serving.im),
    ]


def one_deployment(
    settings: Settings, name: str, models: dict[ModelName, str], base: str | None, replicas: DeploymentSettings
) -> ModelArgs:
    """One deployment of models."""
    return ModelArgs(
        deployment=name,
        models=models,
        base=base,
        engine=settings.serving.engine,
        replicas=replicas,
        model_cache=settings.serving.topology.model_cache,
        cached_models=settings.serving.topology.cached_models,
        stall_s=settings.serving.topology.stall_s,
        traces=settings.serving.watching.traces,
        drain_s=settings.serving.drain_s,
        labels=settings.cluster.pools.selector("serving"),
    )


def app_of(deployment: str) -> str:
    """Name of the application that holds a model's deployment."""
    return f"{APP}-{deployment}"


def replicas_of(serving: ServingSettings, models: ModelPaths | None = None) -> dict[str, DeploymentSettings]:
    """Settings of every deployment by its name."""
    shared = models.base is not None if models else serving.topology.kind == "shared"
    parts = {SHARED: serving.topology.models} if shared else {"gm": serving.gm, "im": serving.im}
    return {"ingress": serving.ingress, **parts}


def autoscaling(settings: DeploymentSettings) -> dict[str, Any]:
    """Serve's autoscaling of one deployment."""
    return {
        "min_replicas": settings.min_replicas,
        "max_replicas": settings.max_replicas,
        "target_ongoing_requests": settings.target_ongoing_requests,
        "upscale_delay_s": settings.upscale_delay_s,
        "downscale_delay_s": settings.downscale_delay_s,
    }
