"""Which nodes a stage's work goes to: those that bear the label of its pool (``cluster.pools``).

Ray Data puts one selector on everything it starts, set once a session; what asks for GPUs
names the training pool's instead, and Ray lets that one win, since both are values of the same
label. A node is looked up among those that are alive now: hosts come and go while stages run.
"""

from collections.abc import Mapping
from typing import Any

from configs.cluster import Pool
from configs.settings import Settings


def selector(settings: Settings, pool: Pool) -> dict[str, str] | None:
    """What Ray is given as ``label_selector``; None where any node will do."""
    return settings.cluster.pools.selector(pool) or None


def for_gpus(settings: Settings, gpus: float | None) -> dict[str, str] | None:
    """``selector`` of what asks for so many GPUs: the training pool's with some, the data pool's without."""
    return selector(settings, "training" if gpus else "data")


def use_for_data(settings: Settings) -> None:
    """Have everything that Ray Data starts from now on run in the data pool."""
    import ray.data

    ray.data.DataContext.get_current().execution_options.label_selector = selector(settings, "data")


def nodes_of(labels: Mapping[str, str] | None) -> list[dict[str, Any]]:
    """The living nodes that bear these labels, as ``ray.nodes()`` tells of them."""
    import ray

    return [node for node in ray.nodes() if node["Alive"] and bears(node["Labels"], labels)]


def gpus(labels: Mapping[str, str] | None) -> float:
    """GPUs of the living nodes that bear these labels."""
    return float(sum(node["Resources"].get("GPU", 0) for node in nodes_of(labels)))


def data_nodes() -> list[dict[str, Any]]:
    """The living nodes that Ray Data's tasks run on."""
    import ray.data

    return nodes_of(ray.data.DataContext.get_current().execution_options.label_selector)


def bears(given: Mapping[str, str] | None, asked: Mapping[str, str] | None) -> bool:
    """Whether a node with the labels ``given`` is one that ``asked`` selects."""
    return all((given or {}).get(name) == value for name, value in (asked or {}).items())
