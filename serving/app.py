"""The Serve applications as builders, the form that ``llumi serve``, ``serve deploy`` and RayService share.

import_path: serving.app:build         args: AppArgs      the ingress, at /
import_path: serving.app:build_model   args: ModelArgs    a model, or both, without a route of its own

Each model is an application of its own because Serve restarts all deployments of an application
whose arguments change: a new GM must not restart IM, nor the ingress whose streams are open.
"""

from typing import Any

from ray.serve import Application, Deployment

from configs.serving import DeploymentSettings
from serving.arguments import APP, AppArgs, ModelArgs, ModelPaths, app_of, autoscaling
from serving.ingress import Ingress
from serving.model_deployment import ModelDeployment

__all__ = ["APP", "AppArgs", "ModelArgs", "ModelPaths", "app_of", "build", "build_model"]


def build(args: AppArgs) -> Application:
    """The ingress."""
    replicas = args.serving.ingress
    # Above its own limit the ingress answers 503 in the API's form; Serve's limit only stands behind that.
    deployment = sized(Ingress, "ingress", replicas, args.serving.drain_s, args.labels).options(
        max_ongoing_requests=2 * replicas.max_ongoing_requests, max_queued_requests=-1
    )
    return deployment.bind(args)


def build_model(args: ModelArgs) -> Application:
    """One deployment of models."""
    return sized(ModelDeployment, args.deployment, args.replicas, args.drain_s, args.labels).bind(args)


def sized(
    deployment: Deployment, name: str, settings: DeploymentSettings, drain_s: float, labels: dict[str, str]
) -> Deployment:
    """The deployment with the replicas, queues and nodes that the configuration asks for."""
    options: dict[str, Any] = {"num_cpus": settings.cpus}
    if settings.gpus:
        options["num_gpus"] = settings.gpus
    if labels:
        options["label_selector"] = labels
    spread = {"max_replicas_per_node": settings.max_replicas_per_node} if settings.max_replicas_per_node else {}
    return deployment.options(
        name=name,
        ray_actor_options=options,
        autoscaling_config=autoscaling(settings),
        max_ongoing_requests=settings.max_ongoing_requests,
        max_queued_requests=settings.max_queued_requests,
        graceful_shutdown_timeout_s=drain_s,
        **spread,
    )
