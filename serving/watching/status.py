"""The service as it is now, asked from a process that joined its Ray: what ``llumi status`` shows.

Serve knows deployments and replicas, the ingress knows versions and shares, every replica knows
what it counted lately, and Ray's node agents know Serve's queues (as of up to ten seconds ago).
Whatever does not answer is shown as unknown, never as nothing.
"""

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import httpx
import ray
from prometheus_client.parser import text_string_to_metric_families
from ray import serve

from configs.errors import UsageError
from serving.arguments import APP
from serving.watching import definitions as d
from serving.watching.recent import Seen, merged

INGRESS = "ingress"
ANSWER_S = 5.0
"""Seconds that replicas, agents and the service have to answer."""
QUEUED = "ray_serve_deployment_queued_queries"


@dataclass(frozen=True)
class Version:
    """What one deployment serves of one model."""

    model: str
    version: str | None
    path: str | None
    share: float
    """Of the model's requests."""


@dataclass
class DeploymentStatus:
    """One deployment, all its replicas together."""

    app: str
    name: str
    status: str
    """Serve's own word: ``HEALTHY``, ``UPDATING``, ``UPSCALING``, ``UNHEALTHY``, ..."""
    message: str
    """What Serve says of one that is not healthy: the last line."""
    replicas: dict[str, int]
    """By state: ``RUNNING``, ``STARTING``, ..."""
    versions: list[Version] = field(default_factory=list)
    queued: int | None = None
    """Requests that wait for a replica with room; None where no agent answered."""
    answered: int = 0
    """Replicas that told what they counted."""
    seen: Seen = field(default_factory=Seen)


@dataclass(frozen=True)
class ErrorStatus:
    """One error by its code."""

    code: str
    count: int
    """In the window."""
    ago_s: float
    """Seconds since it was last answered."""


@dataclass
class ServiceStatus:
    """Everything that is shown."""

    url: str
    health: str
    """``ok``, ``unavailable``, or ``no answer``; as ``/healthz`` says."""
    since: float | None
    """Unix time at which the ingress was last deployed."""
    window_s: float
    deployments: list[DeploymentStatus]
    errors: list[ErrorStatus]

    @property
    def well(self) -> bool:
        """Whether the service answers and every deployment is as it should be."""
        return self.health == "ok" and all(part.status == "HEALTHY" for part in self.deployments)


def check_deployed() -> None:
    """Raises UsageError where Serve does not run, or runs nothing of ours, on the Ray that this process joined."""
    if not any(map(ours, serve.status().applications)):
        raise UsageError("no service of LLUMI runs on this Ray: start it with `llumi serve`, or give its address")


def look(url: str, window_s: float, verify: Any = True) -> ServiceStatus:
    """The service on the Ray that this process joined, with numbers of the last ``window_s`` seconds."""
    applications = {name: app for name, app in serve.status().applications.items() if ours(name)}
    queues = queued()
    versions = asked_versions() if APP in applications else {}
    deployments = [
        DeploymentStatus(
            app,
            name,
            word(part.status),
            "" if word(part.status) == "HEALTHY" else last_line(part.message),
            {word(state): count for state, count in part.replica_states.items()},
            versions.get((app, name), []),
            None if queues is None else int(queues.get((app, name), 0)),
        )
        for app, application in applications.items()
        for name, part in application.deployments.items()
    ]
    for part in deployments:
        told = asked(part, window_s)
        part.answered, part.seen = len(told), merged(told)
    return ServiceStatus(
        url,
        health(url, verify),
        applications[APP].last_deployed_time_s if APP in applications else None,
        window_s,
        sorted(deployments, key=lambda part: (part.name != INGRESS, part.app, part.name)),
        errors(deployments),
    )


def word(state: str) -> str:
    """A state of Serve's, which gives some as a text and some as a member of an enumeration."""
    return str(getattr(state, "value", state))


def ours(application: str) -> bool:
    """Whether an application on this Serve is part of the service."""
    return application == APP or application.startswith(f"{APP}-")


def last_line(message: str) -> str:
    """Of a trace the line that names the error."""
    return (message.strip().splitlines() or [""])[-1].strip()


def asked(part: DeploymentStatus, window_s: float) -> list[Seen]:
    """What each replica counted; nothing of those that do not answer in time."""
    return [one for one in told_by_all(part.app, part.name, "seen", window_s) if isinstance(one, Seen)]


def asked_versions() -> dict[tuple[str, str], list[Version]]:
    """By application and deployment, as the ingress gives requests to them; empty where it does not answer."""
    found: dict[tuple[str, str], list[Version]] = {}
    for standing in told_by_all(APP, INGRESS, "standing"):
        if isinstance(standing, Mapping):
            for model, routes in standing.items():
                for route in routes:
                    version = Version(model, route["version"], route["path"], route["share"])
                    found.setdefault((route["app"], route["deployment"]), []).append(version)
            break
    return found


def told_by_all(app: str, deployment: str, method: str, *args: Any) -> list[Any]:
    """Answers of all running replicas, errors among them as values; empty where there are none or they are silent."""
    if not serve.status().applications[app].deployments[deployment].replica_states.get("RUNNING"):
        return []  # asking would wait for one to start
    handle = serve.get_deployment_handle(deployment, app)
    try:
        return list(handle.broadcast(method, *args).results(timeout_s=ANSWER_S, return_exceptions=True))
    except (TimeoutError, RuntimeError):
        return []


def queued() -> dict[tuple[str, str], float] | None:
    """Requests that wait, by application and deployment, from all node agents; None where none answered."""
    found: dict[tuple[str, str], float] | None = None
    for node in ray.nodes():
        text = exported_by(node) if node["Alive"] else None
        if text is not None:
            found = found or {}
            for labels, value in samples(text, QUEUED):
                key = (labels.get("application", ""), labels.get("deployment", ""))
                found[key] = found.get(key, 0.0) + value
    return found


def exported_by(node: Mapping[str, Any]) -> str | None:
    """A node's metrics as Prometheus reads them; None where its agent does not answer."""
    try:
        address = f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"
        return httpx.get(address, timeout=ANSWER_S, trust_env=False).raise_for_status().text
    except httpx.HTTPError:
        return None


def samples(text: str, metric: str) -> Iterable[tuple[dict[str, str], float]]:
    """Labels and values of one metric."""
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name == metric:
                yield sample.labels, sample.value


def health(url: str, verify: Any) -> str:
    """What ``/healthz`` says."""
    try:
        response = httpx.get(f"{url}/healthz", timeout=ANSWER_S, trust_env=False, verify=verify)
    except httpx.HTTPError:
        return "no answer"
    return "ok" if response.status_code == httpx.codes.OK else "unavailable"


def errors(deployments: Iterable[DeploymentStatus]) -> list[ErrorStatus]:
    """Of all replicas, the latest first; those of the window and those before it that are remembered."""
    seen = merged(part.seen for part in deployments)
    counts = seen.counters.get(d.ERRORS.name, {})
    now = time.time()
    found = [
        ErrorStatus(code, int(counts.get((code,), 0)), max(0.0, now - last))
        for (code,), last in seen.gauges.get(d.LAST_ERROR.name, {}).items()
    ]
    return sorted(found, key=lambda error: error.ago_s)
