"""The Serve application as a builder, the form that ``llumi serve``, ``serve deploy`` and RayService share.

import_path: serving.app:build
args: {models: {gm: /path, im: /path}, prompts: {...}, generation: {...}, serving: {...}}
"""

from typing import Any

from pydantic import Field
from ray.serve import Application, Deployment

from configs.base import Section
from configs.serving import DeploymentSettings, GenerationSettings, ServingSettings
from configs.settings import PromptSettings, Settings
from configs.training import ModelName
from serving.ingress import Ingress
from serving.model_deployment import ModelDeployment

APP = "llumi"
"""Name of the application on the cluster."""


class ModelPaths(Section):
    """Where the models lie, as every serving node sees it."""

    gm: str
    """Folder (or Hugging Face name) of the generation model, adapter merged."""
    im: str
    """Folder (or Hugging Face name) of the improvement model, adapter merged."""


class AppArgs(Section):
    """Everything the application depends on."""

    models: ModelPaths
    """The two models."""
    prompts: PromptSettings = PromptSettings()
    """Prompt templates; the ones that the models were trained with."""
    generation: GenerationSettings = GenerationSettings()
    """Sampling."""
    serving: ServingSettings = ServingSettings()
    """Replicas and limits; host and port are Serve's and not read here."""
    labels: dict[str, str] = Field(default_factory=dict)
    """Labels of the nodes that replicas may run on; empty = any node."""


def args_of(settings: Settings, models: ModelPaths) -> AppArgs:
    """The application's arguments under one configuration."""
    return AppArgs(
        models=models,
        prompts=settings.prompts,
        generation=settings.generation,
        serving=settings.serving,
        labels=settings.cluster.pools.selector("serving"),
    )


def build(args: AppArgs) -> Application:
    """Ingress, gm and im, bound to each other."""
    gm, im = bound_model("gm", args), bound_model("im", args)
    ingress = sized(Ingress, "ingress", args.serving.ingress, args)
    return ingress.bind(gm, im, args.prompts, args.serving)


def bound_model(name: ModelName, args: AppArgs) -> Application:
    """One model's deployment."""
    settings: DeploymentSettings = getattr(args.serving, name)
    deployment = sized(ModelDeployment, name, settings, args)
    return deployment.bind(getattr(args.models, name), args.serving.engine, args.generation, settings.gpus > 0)


def sized(deployment: Deployment, name: str, settings: DeploymentSettings, args: AppArgs) -> Deployment:
    """The deployment with the replicas, queues and nodes that the configuration asks for."""
    options: dict[str, Any] = {"num_cpus": settings.cpus}
    if settings.gpus:
        options["num_gpus"] = settings.gpus
    if args.labels:
        options["label_selector"] = args.labels
    return deployment.options(
        name=name,
        ray_actor_options=options,
        autoscaling_config={
            "min_replicas": settings.min_replicas,
            "max_replicas": settings.max_replicas,
            "target_ongoing_requests": settings.target_ongoing_requests,
            "upscale_delay_s": settings.upscale_delay_s,
            "downscale_delay_s": settings.downscale_delay_s,
        },
        max_ongoing_requests=settings.max_ongoing_requests,
        max_queued_requests=settings.max_queued_requests,
        graceful_shutdown_timeout_s=args.serving.drain_s,
    )
