"""Where numbers are kept: by Ray's node agents, or in this process where there is no Ray.

Both export the same names, labels and buckets, those of ``definitions``.
"""

from typing import Any, Protocol

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client import Counter as PlainCounter
from prometheus_client import Gauge as PlainGauge
from prometheus_client import Histogram as PlainHistogram

from serving.watching import definitions as d


class Meters(Protocol):
    """Where numbers are kept."""

    def add(self, metric: d.Definition, value: float, labels: dict[str, str]) -> None:
        """Count ``value``, 0 or more, up."""

    def set(self, metric: d.Definition, value: float, labels: dict[str, str]) -> None:
        """Set a gauge."""

    def observe(self, metric: d.Definition, value: float, labels: dict[str, str]) -> None:
        """Put one value into a histogram."""


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
