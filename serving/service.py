"""Bringing the service up on the Ray at hand, and down again.

url = start(settings)
...
stop()
"""

import logging
import socket
import ssl
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import ray
from ray import serve
from ray.exceptions import ActorDiedError, RayTaskError
from ray.serve._private.client import ServeControllerClient
from ray.serve._private.common import ReplicaState
from ray.serve._private.constants import SERVE_CONTROLLER_NAME, SERVE_NAMESPACE
from ray.serve.context import _get_global_client
from ray.serve.schema import ServeDeploySchema

from configs.errors import EngineError, UsageError
from configs.serving import ServingSettings
from configs.settings import Settings
from configs.training import MODELS
from pipelines.manifest import require
from serving import sources
from serving.access.boards import end_actor
from serving.access.tls import check_tls, own_context
from serving.address import base_url, check_exposure, check_port
from serving.arguments import ModelPaths
from serving.document import paths, serve_document

READY_TIMEOUT_S = 300.0
"""Seconds that the models have to load."""
STOP_TIMEOUT_S = 60.0
"""Seconds that Serve has to drain and end."""
POLL_S = 0.2
"""Seconds between two looks."""


def start(settings: Settings, models: ModelPaths | None = None, *, timeout_s: float = READY_TIMEOUT_S) -> str:
    """Deploy both models behind HTTP and wait until they answer; returns the service's URL.

    Serves the models of ``settings`` unless ``models`` names others. Where Serve already runs on
    this Ray, what changed there is updated in place, replica by replica. Raises StageOrderError
    where a model was not made yet, ModelNotFound, PortInUse, UsageError for an address open to
    others, and EngineError where the models do not come up.
    """
    models = models or made_models(settings)
    adapters = MODELS if models.base is not None else ()
    given = models.model_dump(exclude_none=True)
    models = ModelPaths(**{name: sources.opened(at, adapter=name in adapters) for name, at in given.items()})
    serving = settings.serving
    check_exposure(serving)
    check_tls(serving)
    document = serve_document(settings, models)
    with quiet():
        if is_running():
            check_same_address(serving)
        else:
            check_port(serving.host, serving.port)
        open_doors(document)
        deploy(document, timeout_s)
    url = base_url(serving.host, serving.port, tls=serving.tls is not None)
    wait_ready(url, timeout_s, verify=own_context(serving))
    return url


def open_doors(document: dict[str, Any]) -> None:
    """Have Serve and its proxies running; raises EngineError with the proxy's own words."""
    try:
        serve.start(proxy_location=document["proxy_location"], http_options=document["http_options"])
    except (RayTaskError, ActorDiedError) as error:
        raise EngineError(f"the service's proxy does not start: {str(error).strip().splitlines()[-1]}") from error


def deploy(document: dict[str, Any], timeout_s: float = READY_TIMEOUT_S) -> None:
    """Apply the document to the Serve that runs, and wait until all of it does; raises EngineError.

    The same document as of ``serve deploy``, so that what was started in one way can be changed in
    the other. Our code goes along as this process' job has it.
    """
    environment = dict(ray.get_runtime_context().runtime_env)
    applications = [{"runtime_env": environment, **part} for part in document["applications"]]
    apply({**document, "applications": applications}, [part["name"] for part in applications], timeout_s)


def apply(document: dict[str, Any], names: Sequence[str], timeout_s: float) -> None:
    """Hand the document to the Serve that runs, and wait until these applications of it run; raises EngineError."""
    client().deploy_apps(ServeDeploySchema.model_validate(document))
    wait_running(names, timeout_s)


def deployed() -> dict[str, Any]:
    """The document that the Serve which runs was deployed from; raises UsageError where none runs."""
    if not is_running():
        raise UsageError("no service runs on this Ray: start it with `llumi serve`, or give its address")
    details = client().get_serve_details()
    configs = (part["deployed_app_config"] for part in details["applications"].values())
    return {"applications": [config for config in configs if config is not None]}


def running_replicas(app: str, deployment: str) -> int:
    """Replicas of a deployment that take requests now."""
    application = serve.status().applications.get(app)
    states = application.deployments[deployment].replica_states if application else {}
    return int(states.get(ReplicaState.RUNNING, 0))


def client() -> ServeControllerClient:
    """This process' way to Serve's controller."""
    found = _get_global_client()
    assert found is not None
    return found


def wait_running(names: Sequence[str], timeout_s: float) -> None:
    """Return once the applications run; raises EngineError where one fails or ``timeout_s`` seconds pass."""
    end = time.monotonic() + timeout_s
    while time.monotonic() < end:
        applications = serve.status().applications
        states = {name: applications[name].status if name in applications else "NOT_STARTED" for name in names}
        failed = [name for name, state in states.items() if state == "DEPLOY_FAILED"]
        if failed:
            raise EngineError(f"the service could not be deployed: {failures(failed)}")
        if all(state == "RUNNING" for state in states.values()):
            return
        time.sleep(POLL_S)
    waiting = ", ".join(name for name, state in states.items() if state != "RUNNING")
    raise EngineError(f"{waiting} did not come up within {timeout_s:g} s: {failures(names) or 'no reason is given'}")


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
        end_actor()
        serve.shutdown()  # forgets this process' client; takes down by force what is left


def made_models(settings: Settings) -> ModelPaths:
    """The models of ``settings``; raises StageOrderError where one of the run's own is not complete."""
    given = settings.serving.topology.locations
    absolute = settings.model_copy(update={"output": str(Path(settings.output).expanduser().resolve())})
    chosen = paths(absolute)
    for name in MODELS:
        if getattr(given, name) is None:
            require(Path(getattr(chosen, name)), made_by="llumi run CONFIG --until models")
    return chosen


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


def failures(names: Sequence[str]) -> str:
    """What Serve says about what is not healthy in these applications: of each the last line, which names the error."""
    said: dict[str, str] = {}
    for name, application in serve.status().applications.items():
        if name in names:
            unwell = {key: d.message for key, d in application.deployments.items() if d.status.value != "HEALTHY"}
            said |= unwell or ({name: application.message} if application.status != "RUNNING" else {})
    return "; ".join(f"{name}: {(message.strip().splitlines() or ['?'])[-1]}" for name, message in said.items())


def wait_ready(url: str, timeout_s: float = READY_TIMEOUT_S, *, verify: ssl.SSLContext | bool = True) -> None:
    """Wait until ``url``/healthz says that both models answer; raises EngineError after ``timeout_s`` seconds.

    Serve's own status is no help: its proxies are healthy while routes still answer 404.
    """
    end, last = time.monotonic() + timeout_s, "no answer"
    while time.monotonic() < end:
        try:
            response = httpx.get(f"{url}/healthz", timeout=10, trust_env=False, verify=verify)
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
