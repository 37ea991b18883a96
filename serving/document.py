"""The service as the document that ``serve deploy``, Serve's REST API and RayService's ``serveConfigV2`` take."""

from pathlib import Path
from typing import Any

from configs.settings import Settings
from pipelines.layout import Layout
from serving.address import check_exposure
from serving.app import APP, ModelPaths, args_of

IMPORT_PATH = "serving.app:build"


def serve_document(settings: Settings, models: ModelPaths | None = None, *, host: str | None = None) -> dict[str, Any]:
    """The document for ``settings``, as JSON values.

    The models are the merged ones of ``settings.output``, by the path that the cluster's nodes
    see. ``host`` replaces ``serving.host`` where something else decides who reaches the address,
    as a pod's network policy does. Raises UsageError for an address open to others.
    """
    if host is None:
        check_exposure(settings.serving)
    layout = Layout(Path(settings.output))
    models = models or ModelPaths(gm=str(layout.model("gm")), im=str(layout.model("im")))
    return {
        "proxy_location": "EveryNode",
        "http_options": {"host": host or settings.serving.host, "port": settings.serving.port},
        "applications": [
            {
                "name": APP,
                "route_prefix": "/",
                "import_path": IMPORT_PATH,
                "args": args_of(settings, models).model_dump(mode="json"),
            }
        ],
    }
