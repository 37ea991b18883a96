"""Whether a cluster can ever hold what a stage asks for, found out before anything waits for it.

Ray queues a request that no node can meet for ever; a job that is still pending cannot
even be stopped. So the rooms (nodes, or what the autoscaler may add) are counted first, and
of them only those that bear the label of the pool that the stage runs in (``cluster.pools``).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from configs.cluster import Pool
from configs.errors import ClusterError
from configs.settings import Settings
from pipelines.pools import bears
from serving.arguments import SHARED, replicas_of

GB = 10**9


@dataclass(frozen=True)
class Need:
    """``count`` equal bundles of resources that have to be in place at once."""

    what: str
    count: int
    each: Mapping[str, float]
    placement: str = "PACK"
    labels: Mapping[str, str] = field(default_factory=dict)
    """Labels of the nodes that may hold them."""
    setting: str = ""
    """The setting that asks for the labels."""


@dataclass(frozen=True)
class Room:
    """``nodes`` equal nodes with these resources; None = as many as are asked for.

    ``labels`` None: not known, as of nodes that an autoscaler may add; they may bear any.
    """

    resources: Mapping[str, float]
    nodes: int | None = 1
    name: str = field(default="node")
    labels: Mapping[str, str] | None = field(default_factory=dict)

    def is_in(self, need: Need) -> bool:
        """Whether these nodes may hold the need, as far as labels go."""
        return self.labels is None or bears(self.labels, need.labels)


def reading(settings: Settings) -> Need:
    """One read task: a CPU and the memory of a long decoding window."""
    memory = settings.corpus.reader_memory_gb * GB
    each = {"CPU": 1, "memory": memory}
    return Need("reading dumps (corpus.reader_memory_gb)", 1, each, **pooled(settings, "data"))


def data(settings: Settings) -> Need:
    """One data task."""
    return Need("data tasks", 1, {"CPU": 1}, **pooled(settings, "data"))


def training(settings: Settings) -> Need:
    """The fewest training workers, which start together or not at all."""
    part = settings.training
    each = {"CPU": part.cpus_per_worker, "GPU": part.gpus_per_worker}
    return Need("training (training.workers)", part.least_workers, each, part.placement, **pooled(settings, "training"))


def serving(settings: Settings) -> tuple[Need, ...]:
    """The fewest replicas of each deployment."""
    where = pooled(settings, "serving")
    return tuple(
        Need(
            f"serving.{'topology.' if name == SHARED else ''}{name}",
            part.min_replicas,
            {"CPU": part.cpus, "GPU": part.gpus},
            **where,
        )
        for name, part in replicas_of(settings.serving).items()
    )


def pooled(settings: Settings, pool: Pool) -> dict[str, Any]:
    """Labels and setting of a need that runs in this pool."""
    return {"labels": settings.cluster.pools.selector(pool), "setting": f"cluster.pools.{pool}"}


def check(needs: Sequence[Need], rooms: Sequence[Room]) -> None:
    """Raises ClusterError naming the first need that the rooms can never hold, with both numbers."""
    for need in needs:
        places = capacity(need, rooms)
        if places < need.count:
            raise ClusterError(
                f"{need.what}: {need.count} x ({amounts(need.each)}, placement {need.placement}) asked{where(need)}, "
                f"the cluster can never hold more than {places}; {found(need, rooms)}"
            )


def where(need: Need) -> str:
    """The nodes that the need is limited to, in words."""
    return f" of nodes labelled {words(need.labels)} ({need.setting})" if need.labels else ""


def found(need: Need, rooms: Sequence[Room]) -> str:
    """What the cluster has for this need, in words; where no node bears its label, the way to give it."""
    inside = [room for room in rooms if room.is_in(need)]
    if inside or not need.labels or not rooms:
        return f"{'of those ' if need.labels else ''}it has {summary(inside)}"
    label = words(need.labels)
    return (
        f"no node has this label: start some with `ray start --labels {label}` or set {need.setting} to null; "
        f"it has {summary(rooms)}"
    )


def words(labels: Mapping[str, str]) -> str:
    """Labels as ``ray start --labels`` takes them."""
    return ",".join(f"{name}={value}" for name, value in labels.items())


def capacity(need: Need, rooms: Sequence[Room]) -> int:
    """How many of the need's bundles fit, at most ``need.count``."""
    counts: list[int] = []
    for room in rooms:
        if not room.is_in(need):
            continue
        here = fits(need, room.resources)
        if need.placement == "STRICT_SPREAD":
            here = min(here, 1)
        counts += [here] * (need.count if room.nodes is None else room.nodes)
    total = max(counts, default=0) if need.placement == "STRICT_PACK" else sum(counts)
    return min(total, need.count)


def fits(need: Need, resources: Mapping[str, float]) -> int:
    """How many of the need's bundles one node holds."""
    asked = {name: amount for name, amount in need.each.items() if amount > 0}
    holds = [int(resources.get(name, 0) / amount + 1e-9) for name, amount in asked.items()]
    return min(holds, default=need.count)


def amounts(resources: Mapping[str, float]) -> str:
    """Resources in words: ``8 CPU, 1 GPU, 2.5 GB memory``."""
    words = [
        f"{amount / GB:.1f} GB memory" if name == "memory" else f"{amount:g} {name}"
        for name, amount in resources.items()
        if amount > 0 and name in {"CPU", "GPU", "memory"}
    ]
    return ", ".join(words) or "nothing"


def summary(rooms: Sequence[Room]) -> str:
    """The rooms in words, equal ones together."""
    groups: dict[str, float] = {}
    for room in rooms:
        text = f"{room.name} of {amounts(room.resources)}"
        groups[text] = groups.get(text, 0) + (float("inf") if room.nodes is None else room.nodes)
    return "; ".join(f"{count:g} x {text}" for text, count in groups.items()) or "no nodes"
