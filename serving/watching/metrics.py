"""What the service counts: one object, called where something happens.

    metrics().request("/v1/generate", 200, 1.4)

In a Ray process the numbers go through ``ray.util.metrics`` to the node's agent, which exports
them to Prometheus; elsewhere ``prometheus_client`` holds them, and ``text()`` shows them. Labels
are names from closed sets (routes, codes, levels, rule ids, versions that are served): a value that does
not look like a name is counted as ``other``, so that no text can reach a label by mistake.
"""

import re
import threading
import time
from collections import Counter
from collections.abc import Iterable
from functools import cache

from serving.watching import definitions as d
from serving.watching.meters import Meters, PlainMeters, RayMeters
from serving.watching.recent import Recent, Seen

NAME = re.compile(r"[A-Za-z0-9_./{}:-]{1,128}")
"""What a label's value looks like."""
OTHER = "other"
NO_VERSION = "none"
"""Of a model that says nothing of itself."""
MOST_VERSIONS = 32
"""Versions that one process tells apart, so that rollouts without end do not fill Prometheus; later ones are other."""


class Metrics:
    """Everything the service tells Prometheus and ``llumi status``; cheap, and never raises on a value."""

    def __init__(self, meters: Meters):
        self.meters = meters
        self.recent = Recent()
        self._in_progress: Counter[tuple[str, ...]] = Counter()
        self._versions: set[str] = set()
        self._lock = threading.Lock()

    def began(self) -> None:
        """A request came in."""
        self._progress(d.IN_PROGRESS, +1)

    def request(self, route: str | None, status: int, seconds: float) -> None:
        """A request ended; ``route`` is the route's template, None where none matched."""
        self._progress(d.IN_PROGRESS, -1)
        self._add(d.REQUESTS, 1, {"route": name(route or "none"), "status": str(int(status))})
        self._observe(d.REQUEST_SECONDS, seconds, {"route": name(route or "none")})

    def first_byte(self, route: str | None, seconds: float) -> None:
        """The first byte of an answer's body left: of a stream its first text, queueing and safety included."""
        self._observe(d.FIRST_BYTE, seconds, {"route": name(route or "none")})

    def error(self, code: str) -> None:
        """A request was refused or failed, with this code in the error's body."""
        self._add(d.ERRORS, 1, {"code": name(code)})
        self._set(d.LAST_ERROR, time.time(), {"code": name(code)})

    def answering(self, model: str, change: int) -> None:
        """A replica of ``model`` began (+1) or ended (-1) an answer."""
        self._progress(d.ANSWERS_IN_PROGRESS, change, model=name(model))

    def first_token(self, model: str, seconds: float) -> None:
        """A replica had the first token of an answer, ``seconds`` after it was called."""
        self._observe(d.FIRST_TOKEN, seconds, {"model": name(model)})

    def tokens(self, model: str, prompt: int, new: int, seconds: float) -> None:
        """A model read ``prompt`` tokens and wrote ``new`` ones in ``seconds``."""
        labels = {"model": name(model)}
        self._add(d.PROMPT_TOKENS, prompt, labels)
        self._add(d.NEW_TOKENS, new, labels)
        self._observe(d.GENERATION_SECONDS, seconds, labels)

    def cancelled(self, model: str) -> None:
        """The client of a request that ``model`` was working on went away."""
        self._add(d.CANCELLED, 1, {"model": name(model)})

    def triage(self, level: str, model: str, version: str | None) -> None:
        """A post was looked at that this version would answer."""
        self._add(d.TRIAGED, 1, {"level": name(level), **self._writer(model, version)})

    def answered(self, model: str, version: str | None, broken: Iterable[str] = ()) -> None:
        """The guard looked at an answer, which broke the rules with these ids."""
        self._add(d.ANSWERS, 1, self._writer(model, version))
        for rule in broken:
            self._add(d.GUARDED, 1, {"rule": name(rule), **self._writer(model, version)})

    def regenerated(self, model: str, version: str | None) -> None:
        """An answer is written once more."""
        self._add(d.REGENERATED, 1, self._writer(model, version))

    def refused(self, reason: str, model: str, version: str | None) -> None:
        """No text was given, for this reason."""
        self._add(d.REFUSED, 1, {"reason": name(reason), **self._writer(model, version)})

    def limited(self, kind: str) -> None:
        """A request was over a limit of its key: ``rate``, ``concurrency``."""
        self._add(d.LIMITED, 1, {"kind": name(kind)})

    def replica_started(self, model: str, seconds: float) -> None:
        """A replica of ``model`` is ready, ``seconds`` after it began to load."""
        self._add(d.REPLICA_STARTS, 1, {"model": name(model)})
        self._observe(d.START_SECONDS, seconds, {"model": name(model)})

    def seen(self, seconds: float) -> Seen:
        """What this process counted in the last ``seconds``, at most fifteen minutes."""
        return self.recent.seen(seconds)

    def _writer(self, model: str, version: str | None) -> dict[str, str]:
        version = name(version or NO_VERSION)
        with self._lock:
            if len(self._versions) < MOST_VERSIONS:
                self._versions.add(version)
            return {"model": name(model), "version": version if version in self._versions else OTHER}

    def _add(self, metric: d.Definition, value: float, labels: dict[str, str]) -> None:
        self.meters.add(metric, value, labels)
        self.recent.add(metric, value, tuple(labels[key] for key in metric.labels))

    def _set(self, metric: d.Definition, value: float, labels: dict[str, str]) -> None:
        self.meters.set(metric, value, labels)
        self.recent.set(metric, value, tuple(labels[key] for key in metric.labels))

    def _observe(self, metric: d.Definition, value: float, labels: dict[str, str]) -> None:
        self.meters.observe(metric, value, labels)
        self.recent.observe(metric, value, tuple(labels[key] for key in metric.labels))

    def _progress(self, metric: d.Definition, change: int, **labels: str) -> None:
        key = (metric.name, *labels.values())
        with self._lock:
            self._in_progress[key] = max(0, self._in_progress[key] + change)
            self._set(metric, self._in_progress[key], labels)


def name(value: str) -> str:
    """``value`` where it looks like a name, else ``other``."""
    return value if NAME.fullmatch(value) else OTHER


@cache
def metrics() -> Metrics:
    """This process' own; whether it is Ray's is decided at the first call."""
    import ray

    return Metrics(RayMeters() if ray.is_initialized() else PlainMeters())
