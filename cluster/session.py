"""The Ray that stages run on: started here, joined by address, or the one a submitted job runs in.

A Ray that is started here counts *logical* CPUs: as many as the machine has, and at least
one a training worker plus one, so that two workers and a data task fit on two cores. The
cores are then shared; nothing waits for ever.
"""

import logging
import math
import os
import socket
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cluster.failures import chain
from cluster.needs import GB, Need, Room, check
from configs.errors import ClusterError
from configs.settings import Settings
from pipelines import pools
from pipelines.manifest import PACKAGES

ENVIRONMENT = {
    "RAY_TRAIN_ENABLE_PRINT_PATCH": "0",  # else Ray Train's patched print echoes dill's bytecode into the logs
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_SCHEDULER_EVENTS": "0",
    "RAY_DEDUP_LOGS_SKIP_REGEX": "worker processes have been started on node",
    "TOKENIZERS_PARALLELISM": "false",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "HF_HUB_VERBOSITY": "error",
    "TRANSFORMERS_VERBOSITY": "error",
    "TRANSFORMERS_NO_ADVISORY_WARNINGS": "1",
}
AUTH_MODE = "RAY_AUTH_MODE"
REACH_S = 5.0
QUOTA = Path("/sys/fs/cgroup/cpu.max")


def connect(settings: Settings, needs: Sequence[Need] = (), *, debug: bool = False) -> None:
    """Have Ray initialised and large enough for ``needs``; does nothing where it is initialised already.

    Raises ClusterError where the address does not answer, refuses our token, or the cluster can
    never hold a need.
    """
    prepare_environment()
    import ray

    if not ray.is_initialized():
        address = address_of(settings)
        if address is None:
            start(settings, debug=debug)
        else:
            join(address, debug=debug)
    tune_data()
    pools.use_for_data(settings)
    if not debug:
        hush()
    check(needs, rooms(settings))


def address_of(settings: Settings) -> str | None:
    """The cluster to join, None where Ray is started here. In a job it is the job's own, by RAY_ADDRESS."""
    given = settings.cluster.address
    return os.environ.get("RAY_ADDRESS", given) if in_job() else given or os.environ.get("RAY_ADDRESS")


def disconnect() -> None:
    """Leave Ray; one that was started here stops."""
    import ray

    if ray.is_initialized():
        ray.shutdown()


def start(settings: Settings, *, debug: bool) -> None:
    """Start Ray on this machine, whatever other Ray runs on it."""
    import ray

    from serving import haproxy

    haproxy.prepare(settings.serving)  # Ray's processes read it when they start
    ray.init(
        address="local",
        num_cpus=logical_cpus(settings),
        object_store_memory=int(settings.cluster.object_store_gb * GB),
        include_dashboard=settings.cluster.dashboard,
        **options(debug),
    )


def join(address: str, *, debug: bool) -> None:
    """Join the running cluster at ``address``: ``auto``, ``host:6379``, or what a job finds in RAY_ADDRESS."""
    import ray
    from ray.exceptions import AuthenticationError

    if address.startswith("ray://"):
        raise ClusterError(f"cluster.address {address}: Ray Client is not supported; use `llumi submit` instead")
    reachable(address)
    admitted(address)
    given = options(debug)
    if not in_job():  # a job's workers import from its working_dir; here the code has to go along
        given["runtime_env"]["py_modules"] = [str(source_root() / package) for package in PACKAGES]
    try:
        ray.init(address=address, **given)
    except (ConnectionError, RuntimeError, ValueError, AuthenticationError) as error:
        if any(isinstance(cause, AuthenticationError) for cause in chain(error)):
            raise refused(address) from error
        if debug:
            raise
        raise ClusterError(
            f"cluster at {address} cannot be joined ({type(error).__name__}); is Ray running?"
        ) from error


def reachable(address: str) -> None:
    """Raises ClusterError at once where nothing listens; Ray itself would try for minutes."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit():
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=REACH_S).close()
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise ClusterError(
            f"cluster at {address} does not answer: {reason}; start Ray there or unset cluster.address"
        ) from None


def admitted(address: str) -> None:
    """Raises ClusterError at once where the cluster wants another token; Ray itself tries for 20 s."""
    from ray._private.authentication.authentication_token_setup import ensure_token_if_auth_enabled
    from ray._raylet import GcsClient  # type: ignore[attr-defined]
    from ray.exceptions import AuthenticationError, RpcError

    if ":" not in address:
        return
    try:
        ensure_token_if_auth_enabled(create_token_if_missing=False)  # without a token the client would abort us
        GcsClient(address=address)
    except AuthenticationError as error:
        raise refused(address) from error
    except RpcError:  # no Ray at all, which joining tells better
        return


def take_auth_mode(mode: str) -> None:
    """Speak to a Ray of this machine as it was started, unless the environment says how."""
    from ray._raylet import Config  # type: ignore[attr-defined]

    if AUTH_MODE not in os.environ:
        os.environ[AUTH_MODE] = mode
        Config.initialize("")  # else what Ray read when it was imported holds


def refused(address: str) -> ClusterError:
    """What to do where the cluster does not take our token."""
    mode = os.environ.get("RAY_AUTH_MODE", "not set")
    given = next((name for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH") if os.environ.get(name)), "no token")
    return ClusterError(
        f"cluster at {address} refuses us: RAY_AUTH_MODE is {mode} here, with {given}; set RAY_AUTH_MODE=token and "
        "RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH to what the cluster's nodes were started with"
    )


def options(debug: bool) -> dict[str, Any]:
    """What ``ray.init`` gets in every case."""
    return {
        "namespace": "llumi",
        "log_to_driver": debug,
        "logging_level": logging.INFO if debug else logging.ERROR,
        "runtime_env": runtime_env(),
    }


def runtime_env() -> dict[str, Any]:
    """What workers need beside their own environment."""
    return {"env_vars": dict(ENVIRONMENT)}


def in_job() -> bool:
    """Whether this process is the driver of a submitted job."""
    return "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ


def source_root() -> Path:
    """The folder that holds our four packages."""
    return Path(__file__).resolve().parent.parent


def prepare_environment() -> None:
    """Set what has to be in the environment before Ray and transformers are imported."""
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)


def tune_data() -> None:
    """Ray Data's manners: no bars of its own, and an error of ours comes back as itself."""
    import ray.data

    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.raise_original_map_exception = True  # else its type and message survive only as text


def hush() -> None:
    """Keep the libraries' notes and traces off the console; files in Ray's session folder still have them."""
    for name in ("ray.data", "ray.train", "ray.serve", "ray"):
        for handler in logging.getLogger(name).handlers:
            if getattr(handler, "stream", None) in (sys.stdout, sys.stderr):
                handler.setLevel(logging.CRITICAL)
    warnings.filterwarnings("ignore")


def logical_cpus(settings: Settings) -> int:
    """CPUs that a Ray started here counts with."""
    workers = math.ceil(settings.training.most_workers * settings.training.cpus_per_worker)
    return settings.cluster.cpus or max(machine_cpus(), workers + 1)


def machine_cpus() -> int:
    """Cores this process may use, cut by the container's quota."""
    try:
        quota, period = QUOTA.read_text(encoding="ascii").split()
    except (OSError, ValueError):
        return cores()
    return cores() if quota == "max" else max(1, min(cores(), int(quota) // int(period)))


def cores() -> int:
    """Cores this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def rooms(settings: Settings) -> list[Room]:
    """What the cluster can hold: what its autoscaler may add, else the nodes that are there."""
    import ray

    grown = autoscaled()
    if grown:
        return grown
    alive = [Room(node["Resources"], labels=node["Labels"]) for node in ray.nodes() if node["Alive"]]
    if settings.cluster.autoscaling:
        return [*alive, *(Room(room.resources, None, labels=room.labels) for room in alive)]
    return alive


def autoscaled() -> list[Room]:
    """The autoscaler's groups of nodes, empty where none told Ray about itself.

    Ray has no public call for this; its own Data and Train read the same state, which says nothing
    of the groups' labels.
    """
    import ray

    config = ray._private.state.state.get_cluster_config()
    groups = config.node_group_configs if config is not None else ()
    return [
        Room(dict(group.resources), None if group.max_count < 0 else group.max_count, group.name, labels=None)
        for group in groups
    ]
