"""What the machines have that will train: asked of them before any worker starts.

A mode that only fails once sixteen workers have loaded 7B costs a queue's place and half an
hour. So one small task a GPU node looks at its card and its packages, and ``modes.check``
compares. Nothing is asked where training runs on the CPU: there is nothing to find out that
the settings do not say, and a task is a process to start.
"""

import importlib.metadata
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from configs.settings import Settings
from pipelines import pools

PACKAGES = ("bitsandbytes", "flash-attn", "flash-attn-3", "flash-attn-4", "kernels")
"""Distributions that some mode needs and not every machine has."""
LIBAIO = ("libaio.so.1", "libaio.so.1t64")
LIBRARIES = ("/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/local/lib")


@dataclass(frozen=True)
class Devices:
    """The least of what every machine that trains has, so that what it can do, all can.

    None where it is not known: rules about it are then not applied.
    """

    gpus: float | None = None
    """GPUs of the whole cluster; None also where nodes are added on demand."""
    cuda: bool | None = None
    """Whether torch sees a GPU wherever Ray gives one."""
    name: str | None = None
    """The GPU's name as its driver gives it."""
    capability: tuple[int, int] | None = None
    """CUDA's compute capability: (8, 0) for Ampere, (9, 0) for Hopper."""
    gpu_memory: int | None = None
    """Bytes of the smallest GPU."""
    host_memory: int | None = None
    """Bytes of memory of the smallest machine."""
    packages: frozenset[str] | None = None
    """Those of ``PACKAGES`` that every machine has installed."""
    libaio: bool | None = None
    """Whether the library is there that DeepSpeed reads and writes NVMe disks with."""


def look(settings: Settings) -> Devices | None:
    """The cluster's devices, asked of its nodes by Ray; None where training runs on the CPU.

    Where no node has a GPU yet, one is waited for as training itself would wait.
    """
    if settings.training.gpus_per_worker == 0:
        return None
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    labels = pools.selector(settings, "training")
    task = ray.remote(num_cpus=0, num_gpus=min(settings.training.gpus_per_worker, 1), max_retries=1)(here)
    nodes = [node["NodeID"] for node in pools.nodes_of(labels) if node["Resources"].get("GPU", 0) > 0]
    where: list[dict[str, Any]] = [{"scheduling_strategy": NodeAffinitySchedulingStrategy(n, soft=True)} for n in nodes]
    found = ray.get([task.options(**options).remote() for options in where or [{"label_selector": labels}]])
    known = not settings.cluster.autoscaling
    return least(found, gpus=pools.gpus(labels) if known else None)


def here() -> Devices:
    """This machine, as a process sees it that was given a GPU."""
    import torch

    card = torch.cuda.get_device_properties(0) if torch.cuda.is_available() else None
    return Devices(
        cuda=card is not None,
        name=card.name if card else None,
        capability=(card.major, card.minor) if card else None,
        gpu_memory=card.total_memory if card else None,
        host_memory=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        packages=frozenset(filter(installed, PACKAGES)),
        libaio=has_libaio(),
    )


def installed(distribution: str) -> bool:
    """Whether a distribution is installed here, of whatever version."""
    try:
        importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def has_libaio() -> bool:
    """Whether the library lies where linkers look for it."""
    folders = [Path(folder) for root in LIBRARIES for folder in (root, f"{root}/{os.uname().machine}-linux-gnu")]
    return any((folder / name).exists() for folder in folders for name in LIBAIO)


def least(machines: Iterable[Devices], gpus: float | None) -> Devices:
    """What all machines have; of what differs, the smallest."""
    found = list(machines)
    weakest = min(found, key=lambda one: (one.capability or (0, 0), one.gpu_memory or 0))
    sets = [one.packages for one in found if one.packages is not None]
    return Devices(
        gpus=gpus,
        cuda=all(one.cuda for one in found),
        name=weakest.name,
        capability=weakest.capability,
        gpu_memory=min((one.gpu_memory for one in found if one.gpu_memory), default=None),
        host_memory=min((one.host_memory for one in found if one.host_memory), default=None),
        packages=frozenset.intersection(*sets) if sets else None,
        libaio=all(one.libaio for one in found),
    )
