"""The service as the document that ``serve deploy``, Serve's REST API and RayService's ``serveConfigV2`` take."""

from pathlib import Path
from typing import Any

from configs.settings import Settings
from configs.training import MODELS, SCRATCH
from pipelines.layout import Layout
from serving.access.tls import serve_options
from serving.address import check_exposure
from serving.arguments import APP, ModelArgs, ModelPaths, app_of, autoscaling, ingress_args, model_args

IMPORT_PATH = "serving.app:build"
MODEL_IMPORT_PATH = "serving.app:build_model"


def serve_document(settings: Settings, models: ModelPaths | None = None, *, host: str | None = None) -> dict[str, Any]:
    """The document for ``settings``, as JSON values.

    The models are those of ``settings.output``, by the path that the cluster's nodes
    see. ``host`` replaces ``serving.host`` where something else decides who reaches the address,
    as a pod's network policy does. Raises UsageError for an address open to others without access control.
    """
    check_exposure(settings.serving, host)
    parts = model_args(settings, models or paths(settings))
    return {
        "proxy_location": "EveryNode",
        "http_options": {
            "host": host or settings.serving.host,
            "port": settings.serving.port,
            **serve_options(settings.serving),
        },
        "applications": [*map(model_application, parts), ingress_application(settings, parts)],
    }


def paths(settings: Settings) -> ModelPaths:
    """Where the models lie: as configured, else where the run leaves them, merged or as base and adapters."""
    layout, given = Layout(Path(settings.output)), settings.serving.topology.locations
    if settings.serving.topology.kind == "separate":
        return ModelPaths(gm=given.gm or str(layout.model("gm")), im=given.im or str(layout.model("im")))
    base = str(layout.base) if settings.model.base == SCRATCH else settings.model.base
    return ModelPaths(
        gm=given.gm or last_adapter(layout, "gm"), im=given.im or last_adapter(layout, "im"), base=given.base or base
    )


def last_adapter(layout: Layout, model: str) -> str:
    """The adapter of the last stage that was trained, or would be."""
    stages = [layout.adapter(model, stage) for stage in ("dpo2", "dpo1")]
    return str(next((folder for folder in stages if folder.is_dir()), stages[-1]))


def model_application(args: ModelArgs, app: str | None = None) -> dict[str, Any]:
    """The application of one deployment of models; ``app`` names another than the deployment's own."""
    return {
        "name": app or app_of(args.deployment),
        "route_prefix": None,
        "import_path": MODEL_IMPORT_PATH,
        "args": args.model_dump(mode="json"),
        "deployments": scaled(args),
    }


def scaled(args: ModelArgs, fewest: int = 0) -> list[dict[str, Any]]:
    """The autoscaling of an application of models, with ``fewest`` replicas where its ``args`` say fewer.

    It stands beside the ``args`` so that a rollout can change it: Serve then restarts nothing, but would where a
    document has an ``autoscaling_config`` and the one before had none.
    """
    limits = args.replicas
    wanted = {"min_replicas": max(limits.min_replicas, fewest), "max_replicas": max(limits.max_replicas, fewest)}
    return [{"name": args.deployment, "autoscaling_config": autoscaling(limits.model_copy(update=wanted))}]


def ingress_application(settings: Settings, parts: list[ModelArgs]) -> dict[str, Any]:
    """The application of the ingress, with the routes to each model's own deployment."""
    return {
        "name": APP,
        "route_prefix": "/",
        "import_path": IMPORT_PATH,
        "args": ingress_args(settings).model_dump(mode="json"),
        "deployments": [{"name": "ingress", "user_config": {model: [own(model, parts)] for model in MODELS}}],
    }


def own(model: str, parts: list[ModelArgs]) -> dict[str, Any]:
    """The route to a model's own deployment, with all requests."""
    args = next(part for part in parts if model in part.models)
    info = {"path": args.models[model], **({"base": args.base} if args.base else {})}  # type: ignore[index]
    return {"app": app_of(args.deployment), "deployment": args.deployment, "share": 1.0, "info": info}
