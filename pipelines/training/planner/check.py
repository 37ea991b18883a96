"""The plan held against the real devices, before workers are taken: a stage that cannot fit does not start.

On GPUs one small task a node asks CUDA what is free; on the CPU the memory is what Ray counts on
each node. The refusal names both numbers and the nearest settings that fit; it errs where the
formula does, so ``training.memory_check: warn`` goes on regardless, and ``off`` does not look.
"""

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any

from configs.errors import ConfigError, ModelNotFound
from configs.settings import Settings
from configs.training import ModelName, StageName, StageSettings
from pipelines import pools
from pipelines.training.plan import Task
from pipelines.training.planner import volume
from pipelines.training.planner.memory import GIB, GpuOverhead, Memory, Terms, memory, reading
from pipelines.training.planner.model import CONFIG, Architecture, architecture, from_file
from pipelines.training.planner.options import way_out
from pipelines.training.planner.setup import Setup, batch_of, possible
from pipelines.training.planner.volume import Rows

logger = logging.getLogger("llumi.training")


@dataclass(frozen=True)
class Room:
    """What one worker may take."""

    device: float
    """Bytes of its GPU that are free, or of its node's memory for it."""
    host: float
    """Bytes of its node's memory for it, for what is offloaded."""
    words: str
    """Where: ``the smallest GPU (NVIDIA H100 80GB HBM3)``."""


def check(settings: Settings, model: ModelName, stage: StageName, base: str) -> None:
    """Refuse a stage whose planned memory exceeds what the devices have.

    Raises ConfigError with both numbers and the settings that would fit. What cannot be planned - an
    architecture that is not known, a base that is not here - is logged and let pass.
    """
    task: Task = "sft" if stage == "sft" else "dpo"
    hold(settings, task, getattr(settings.training, stage), base, volume.rows_of(settings, model, stage), stage)


def check_base(settings: Settings, base: str) -> None:
    """The same for the base stage, whose rows are scored whole."""
    longest = settings.training.max_length
    rows = Rows(rows=1, prompt=0, completion=longest, longest=longest, longest_completion=longest, source="tokens")
    hold(settings, "lm", settings.training.base, base, rows, "base")


def check_reference(settings: Settings, base: str) -> None:
    """The same for the actors that compute the reference's log-probabilities."""
    if settings.training.memory_check == "off":
        return
    model, room = known(settings, base), room_of(settings)
    if model and room:
        needed = reading(model, Setup.of(settings, "dpo", settings.training.dpo1))
        if needed.total > room.device:
            complain(settings, f"the reference's log-probabilities need {amounts(needed)}; {room.words}")


def hold(settings: Settings, task: Task, stage: StageSettings, base: str, rows: Rows, name: str) -> None:
    """Compare, and refuse or warn."""
    if settings.training.memory_check == "off":
        return
    model, room = known(settings, base), room_of(settings)
    if model is None or room is None:
        return
    setup = Setup.of(settings, task, stage)
    batches = partial(batch_of, settings, task, stage, rows)
    needed = memory(model, setup, batches(None))
    logger.info("%s: %.1f GiB a worker planned, %s", name, needed.total / GIB, room.words)
    if needed.total <= room.device and needed.host <= room.host:
        return
    changes = way_out(model, setup, batches, stage, room.device, partial(possible, settings))
    said = [f"training.{name}{one}" if one.startswith(".") else one for one in changes]
    fitting = f"--set {' --set '.join(said)} fits" if said else "no ZeRO stage, micro-batch or offloading fits"
    if needed.total <= room.device:
        words = f"offloading needs {needed.host / GIB:.1f} GiB of the host for each worker, there are "
        complain(settings, f"training.{name}: {words}{room.host / GIB:.1f} GiB; take more nodes or offload less")
    else:
        complain(settings, f"training.{name} needs {amounts(needed)} for each worker; {room.words}: {fitting}")


def complain(settings: Settings, words: str) -> None:
    """Raise ConfigError, or log where only a warning is wanted."""
    if settings.training.memory_check == "warn":
        logger.warning(words)
    else:
        raise ConfigError(f"{words}. training.memory_check=warn starts all the same")


def amounts(needed: Memory) -> str:
    """The whole and its largest terms, in GiB."""
    parts = {one.name: getattr(needed.terms, one.name) for one in fields(Terms)} | {"overhead": needed.overhead}
    largest = sorted(parts.items(), key=lambda part: -part[1])[:3]
    words = ", ".join(f"{name} {size / GIB:.1f}" for name, size in largest)
    return f"{needed.total / GIB:.1f} GiB ({words})"


def known(settings: Settings, base: str) -> Architecture | None:
    """The shape of the base that training loads; None, and a warning, where it cannot be planned for."""
    try:
        path = Path(base) / CONFIG
        return from_file(path) if path.is_file() else architecture(settings)
    except (ConfigError, ModelNotFound) as error:
        logger.warning("memory is not checked: %s", error)
        return None


def room_of(settings: Settings) -> Room | None:
    """What a worker may take on the cluster that Ray is connected to; None where Ray is not."""
    import ray

    if not ray.is_initialized():
        return None
    nodes = pools.nodes_of(pools.selector(settings, "training"))
    if settings.training.gpus_per_worker == 0:
        return on_cpu(settings, [node["Resources"] for node in nodes])
    return on_gpu(settings, [node for node in nodes if node["Resources"].get("GPU", 0) > 0])


def on_cpu(settings: Settings, nodes: Sequence[dict[str, float]]) -> Room | None:
    """The share of its node's memory that a worker has, on the node where it has least."""
    training = settings.training
    shares = []
    for node in nodes:
        here = min(int(node.get("CPU", 0) / training.cpus_per_worker), training.most_workers)
        if here and node.get("memory"):
            spread = training.placement.endswith("SPREAD")
            together = min(here, math.ceil(training.most_workers / len(nodes))) if spread else here
            shares.append((node["memory"] / together, together))
    if not shares:
        return None
    share, together = min(shares)
    words = f"the node has {share * together / GIB:.1f} GiB for {together} workers, {share / GIB:.1f} GiB each"
    return Room(device=share, host=share, words=words)


def on_gpu(settings: Settings, nodes: Sequence[Mapping[str, Any]]) -> Room | None:
    """The free memory of the smallest GPU, and the share of its host's; None where no GPU can be seen."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    share = min(settings.training.gpus_per_worker, 1)
    look = ray.remote(num_cpus=0, num_gpus=share, max_retries=1)(free)
    places = [NodeAffinitySchedulingStrategy(node["NodeID"], soft=True) for node in nodes]
    asked = [look.options(scheduling_strategy=place).remote() for place in places]
    found = [one for one in ray.get(asked) if one["device"]]
    if not found:
        return None
    least = min(found, key=lambda one: float(one["device"]))
    together = max(node["Resources"]["GPU"] for node in nodes) / settings.training.gpus_per_worker
    device, host = least["device"] * share, min(one["host"] for one in found) / max(together, 1)
    words = f"the smallest GPU ({least['name']}) has {device / GIB:.1f} GiB free"
    return Room(device=device, host=host, words=words)


def free() -> dict[str, Any]:
    """Bytes free on the first GPU that this process was given, whatever else runs there, and of the host."""
    import os

    import torch

    pages = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if not torch.cuda.is_available():
        return {"device": 0, "name": "", "host": pages}
    at_hand, _ = torch.cuda.mem_get_info(0)  # asking made a context here, which a worker's plan counts as its own
    return {"device": at_hand + int(GpuOverhead().context), "name": torch.cuda.get_device_name(0), "host": pages}
