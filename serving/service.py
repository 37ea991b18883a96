"""Bringing the service up on the Ray at hand, and down again.

url = start(settings)
...
stop()
"""

import logging
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import ray
from ray import serve
from ray.serve._private.constants import SERVE_CONTROLLER_NAME, SERVE_NAMESPACE

from configs.errors import EngineError, UsageError
from configs.serving import ServingSettings
from configs.settings import Settings
from pipelines.layout import Layout
from pipelines.manifest import require
from pipelines.training.weights import base_name
from serving.address import base_url, check_exposure, check_port
from serving.app import APP, ModelPaths, args_of, build

READY_TIMEOUT_S = 300.0
"""Seconds that the models have to load."""
STOP_TIMEOUT_S = 60.0
"""Seconds that Serve has to drain and end."""
POLL_S = 0.2
"""Seconds between two looks."""


def start(settings: Settings, models: ModelPaths | None = None, *, timeout_s: float = READY_TIMEOUT_S) -> str:
    """Deploy both models behind HTTP and wait until they answer; returns the service's URL.

    Serves the merged models of ``settings.output`` unless ``models`` names others. Where Serve
    already runs on this Ray, the application there is updated in place. Raises StageOrderError
    where a model was not made yet, ModelNotFound, PortInUse, UsageError for an address open to
    others, and EngineError where the models do not come up.
    """
    models = models or made_models(settings)
    models = ModelPaths(gm=base_name(models.gm), im=base_name(models.im))
    serving = settings.serving
    check_exposure(serving)
    with quiet():
        if is_running():
            check_same_address(serving)
        else:
            check_port(serving.host, serving.port)
        serve.start(proxy_location="EveryNode", http_options={"host": serving.host, "port": serving.port})
        try:
            serve.run(build(args_of(settings, models)), name=APP, route_prefix="/")
        except RuntimeError as error:
            raise EngineError(f"the service could not be deployed: {failures() or error}") from None
    url = base_url(serving.host, serving.port)
    wait_ready(url, timeout_s)
    return url


def stop(timeout_s: float = STOP_TIMEOUT_S) -> None:
    """Take the service and Serve down; nothing happens where it does not run.

    Asks the controller itself and waits for its end: ``serve.shutdown`` waits inside a call to
    it, which Ray then reports to the terminal as a failed task.
    """
    if not ray.is_initialized():
        return
    with quiet():
        end = time.monotonic() + timeout_s
        asked = False
        while time.monotonic() < end:
            try:
                controller = ray.get_actor(SERVE_CONTROLLER_NAME, namespace=SERVE_NAMESPACE)
            except ValueError:
                break
            if not asked:
                ray.get(controller.graceful_shutdown.remote(wait=False))
                asked = True
            time.sleep(POLL_S)
        serve.shutdown()  # forgets this process' client; takes down by force what is left


def made_models(settings: Settings) -> ModelPaths:
    """The merged models of ``settings.output``; raises StageOrderError where one is not complete."""
    layout = Layout(Path(settings.output).expanduser().resolve())
    for name in ("gm", "im"):
        require(layout.model(name), made_by="llumi run CONFIG --until models")
    return ModelPaths(gm=str(layout.model("gm")), im=str(layout.model("im")))


def is_running() -> bool:
    """Whether Serve already listens on this Ray."""
    return bool(serve.status().proxies)


def check_same_address(serving: ServingSettings) -> None:
    """Raises UsageError where the Serve that runs listens elsewhere: it cannot be moved."""
    try:
        socket.create_connection((serving.host, serving.port), timeout=5).close()
    except OSError:
        raise UsageError(
            f"Serve already runs on this Ray and does not listen on {serving.host}:{serving.port}: "
            "give its address with --set serving.host= and --set serving.port=, or end it with `serve shutdown`"
        ) from None


def failures() -> str:
    """What Serve says about deployments that are not healthy: of each the last line, which names the error."""
    application = serve.status().applications.get(APP)
    if application is None:
        return ""
    unwell = {name: d.message for name, d in application.deployments.items() if d.status.value != "HEALTHY"}
    return "; ".join(f"{name}: {(message.strip().splitlines() or ['?'])[-1]}" for name, message in unwell.items())


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


@contextmanager
def quiet() -> Iterator[None]:
    """Serve's own progress lines are left out of the caller's terminal."""
    logger = logging.getLogger("ray.serve")
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(level)
