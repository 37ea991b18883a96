"""What the service counts: one object, called where something happens.

    metrics().request("/v1/generate", 200, 1.4)

In a Ray process the numbers go through ``ray.util.metrics`` to the node's agent, which exports
them to Prometheus; elsewhere ``prometheus_client`` holds them, and ``text()`` shows them. Labels
are names from closed sets (routes, codes, levels, rule ids): a value that does not look like a
name is counted as ``other``, so that no text can reach a label by mistake.
"""

import re
import threading
import time
from functools import cache
from typing import Any, Protocol

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client import Counter as PlainCounter
from prometheus_client import Gauge as PlainGauge
from prometheus_client import Histogram as PlainHistogram

from serving.watching import definitions as d

NAME = re.compile(r"[A-Za-z0-9_./{}:-]{1,128}")
"""What a label's value looks like."""
OTHER = "other"


class Meters(Protocol):
    """Where numbers are kept."""

    def add(self, metric: d.Definition, value: float, labels: dict[str, str]) -> None:
        """Count ``value``, 0 or more, up."""

    def set(self, metric: d.Definition, value: float, labels: dict[str, str]) -> None:
        """Set a gauge."""

    def observe(self, metric: d.Definition, value: float, labels: dict[str, str]) -> None:
        """Put one value into a histogram."""


class Metrics:
    """Everything the service tells Prometheus; cheap, and never raises on a value."""

    def __init__(self, meters: Meters):
        self.meters = meters
        self._in_progress = 0
        self._lock = threading.Lock()

    def began(self) -> None:
        """A request came in."""
        self._progress(+1)

    def request(self, route: str | None, status: int, seconds: float) -> None:
        """A request ended; ``route`` is the route's template, None where none matched."""
        self._progress(-1)
        self.meters.add(d.REQUESTS, 1, {"route": name(route or "none"), "status": str(int(status))})
        self.meters.observe(d.REQUEST_SECONDS, seconds, {"route": name(route or "none")})

    def first_byte(self, route: str | None, seconds: float) -> None:
        """The first byte of an answer's body left: of a stream its first text, queueing and safety included."""
        self.meters.observe(d.FIRST_BYTE, seconds, {"route": name(route or "none")})

    def error(self, code: str) -> None:
        """A request was refused or failed, with this code in the error's body."""
        self.meters.add(d.ERRORS, 1, {"code": name(code)})
        self.meters.set(d.LAST_ERROR, time.time(), {"code": name(code)})

    def first_token(self, model: str, seconds: float) -> None:
        """A replica had the first token of an answer, ``seconds`` after it was called."""
        self.meters.observe(d.FIRST_TOKEN, seconds, {"model": name(model)})

    def tokens(self, model: str, prompt: int, new: int, seconds: float) -> None:
        """A model read ``prompt`` tokens and wrote ``new`` ones in ``seconds``."""
        labels = {"model": name(model)}
        self.meters.add(d.PROMPT_TOKENS, prompt, labels)
        self.meters.add(d.NEW_TOKENS, new, labels)
        self.meters.observe(d.GENERATION_SECONDS, seconds, labels)

    def cancelled(self, model: str) -> None:
        """The client of a request that ``model`` was working on went away."""
        self.meters.add(d.CANCELLED, 1, {"model": name(model)})

    def triage(self, level: str) -> None:
        """A post was looked at."""
        self.meters.add(d.TRIAGED, 1, {"level": name(level)})

    def guard(self, rule: str) -> None:
        """An answer broke the rule with this id."""
        self.meters.add(d.GUARDED, 1, {"rule": name(rule)})

    def regenerated(self, model: str) -> None:
        """An answer is written once more."""
        self.meters.add(d.REGENERATED, 1, {"model": name(model)})

    def refused(self, reason: str) -> None:
        """No text was given, for this reason."""
        self.meters.add(d.REFUSED, 1, {"reason": name(reason)})

    def limited(self, kind: str) -> None:
        """A request was over a limit of its key: ``rate``, ``concurrency``."""
        self.meters.add(d.LIMITED, 1, {"kind": name(kind)})

    def replica_started(self, model: str, seconds: float) -> None:
        """A replica of ``model`` is ready, ``seconds`` after it began to load."""
        self.meters.add(d.REPLICA_STARTS, 1, {"model": name(model)})
        self.meters.observe(d.START_SECONDS, seconds, {"model": name(model)})

    def _progress(self, change: int) -> None:
        with self._lock:
            self._in_progress = max(0, self._in_progress + change)
            self.meters.set(d.IN_PROGRESS, self._in_progress, {})


class RayMeters:
    """Through Ray's node agents; a metric is made when it is first used."""

    def __init__(self) -> None:
        self._made: dict[str, Any] = {}

    def add(self, metric: d.Definition, value: float, labels: dict[str, str]) -> None:
        """See ``Meters``; Ray takes no 0."""
        if value > 0:
            self._of(metric).inc(value, tags=labels)

    def set(self, metric: d.Definition, value: float, labels: dict[str, str]) -> None:
        """See ``Meters``."""
        self._of(metric).set(value, tags=labels)

    def observe(self, metric: d.Definition, value: float, labels: dict[str, str]) -> None:
        """See ``Meters``."""
        self._of(metric).observe(value, tags=labels)

    def _of(self, metric: d.Definition) -> Any:
        if metric.name not in self._made:
            self._made[metric.name] = made_on_ray(metric)
        return self._made[metric.name]


def made_on_ray(metric: d.Definition) -> Any:
    """The metric as Ray's."""
    from ray.util import metrics as ray_metrics

    if metric.kind == "histogram":
        return ray_metrics.Histogram(metric.name, metric.help, boundaries=list(d.SECONDS), tag_keys=metric.labels)
    kind = ray_metrics.Counter if metric.kind == "counter" else ray_metrics.Gauge
    return kind(metric.name, metric.help, tag_keys=metric.labels)


class PlainMeters:
    """In this process, where there is no Ray."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._made: dict[str, Any] = {metric.name: self._make(metric) for metric in d.ALL}

    def add(self, metric: d.Definition, value: float, labels: dict[str, str]) -> None:
        """See ``Meters``."""
        self._of(metric, labels).inc(value)

    def set(self, metric: d.Definition, value: float, labels: dict[str, str]) -> None:
        """See ``Meters``."""
        self._of(metric, labels).set(value)

    def observe(self, metric: d.Definition, value: float, labels: dict[str, str]) -> None:
        """See ``Meters``."""
        self._of(metric, labels).observe(value)

    def text(self) -> str:
        """All numbers, as Prometheus reads them."""
        return generate_latest(self.registry).decode()

    def _of(self, metric: d.Definition, labels: dict[str, str]) -> Any:
        made = self._made[metric.name]
        return made.labels(**labels) if metric.labels else made

    def _make(self, metric: d.Definition) -> Any:
        exported = d.PREFIX + metric.name
        if metric.kind == "histogram":
            return PlainHistogram(exported, metric.help, metric.labels, registry=self.registry, buckets=d.SECONDS)
        kind = PlainCounter if metric.kind == "counter" else PlainGauge
        return kind(exported, metric.help, metric.labels, registry=self.registry)


def name(value: str) -> str:
    """``value`` where it looks like a name, else ``other``."""
    return value if NAME.fullmatch(value) else OTHER


@cache
def metrics() -> Metrics:
    """This process' own; whether it is Ray's is decided at the first call."""
    import ray

    return Metrics(RayMeters() if ray.is_initialized() else PlainMeters())
