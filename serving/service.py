"""Bringing the service up on the Ray at hand, and down again.

url = start(settings)
...
stop()
"""

import time
from pathlib import Path

import httpx
from ray import serve

from configs.errors import EngineError
from configs.settings import Settings
from pipelines.layout import Layout
from pipelines.manifest import require
from serving.address import base_url, check_address, check_exposure
from serving.app import APP, ModelPaths, args_of, build

READY_TIMEOUT_S = 300.0
"""Seconds that the models have to load."""
POLL_S = 0.2
"""Seconds between two looks at /healthz."""


def start(settings: Settings, models: ModelPaths | None = None, *, timeout_s: float = READY_TIMEOUT_S) -> str:
    """Deploy both models behind HTTP and wait until they answer; returns the service's URL.

    Serves the merged models of ``settings.output`` unless ``models`` names others. Where Serve
    already runs on this Ray, the application there is updated in place. Raises StageOrderError
    where a model was not made yet, PortInUse, UsageError for an address open to others, and
    EngineError where the models do not come up.
    """
    models = models or made_models(settings)
    serving = settings.serving
    if is_running():
        check_exposure(serving)
    else:
        check_address(serving)
    serve.start(proxy_location="EveryNode", http_options={"host": serving.host, "port": serving.port})
    try:
        serve.run(build(args_of(settings, models)), name=APP, route_prefix="/")
    except RuntimeError as error:
        raise EngineError(f"the service could not be deployed: {failures() or error}") from None
    url = base_url(serving.host, serving.port)
    wait_ready(url, timeout_s)
    return url


def stop() -> None:
    """Take the service and Serve down; nothing happens where it does not run."""
    serve.shutdown()


def made_models(settings: Settings) -> ModelPaths:
    """The merged models of ``settings.output``; raises StageOrderError where one is not complete."""
    layout = Layout(Path(settings.output).expanduser().resolve())
    for name in ("gm", "im"):
        require(layout.model(name), made_by="llumi run CONFIG --until models")
    return ModelPaths(gm=str(layout.model("gm")), im=str(layout.model("im")))


def is_running() -> bool:
    """Whether Serve already listens on this Ray."""
    return bool(serve.status().proxies)


def failures() -> str:
    """What Serve says about deployments that are not healthy."""
    application = serve.status().applications.get(APP)
    if application is None:
        return ""
    unwell = (f"{name}: {d.message}" for name, d in application.deployments.items() if d.status.value != "HEALTHY")
    return "; ".join(part.strip() for part in unwell)


def wait_ready(url: str, timeout_s: float = READY_TIMEOUT_S) -> None:
    """Wait until ``url``/healthz says that both models answer; raises EngineError after ``timeout_s`` seconds.

    Serve's own status is no help: its proxies are healthy while routes still answer 404.
    """
    end, last = time.monotonic() + timeout_s, "no answer"
    while time.monotonic() < end:
        try:
            response = httpx.get(f"{url}/healthz", timeout=10, trust_env=False)
            if response.status_code == 200:
                return
            last = f"status {response.status_code}"
        except httpx.HTTPError as error:
            last = type(error).__name__
        time.sleep(POLL_S)
    raise EngineError(f"{url}/healthz was not ready within {timeout_s:g} s ({last}); see the logs of gm and im")
