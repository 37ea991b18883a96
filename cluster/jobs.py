"""``llumi submit``: any command as a job on a running cluster, through Ray's Jobs API.

The code travels as the job's working directory; data does not: the paths in the
configuration must be reachable in the cluster. The driver itself asks for no CPU or GPU,
since a pending job can never be stopped; whether the cluster can hold what the command
needs is looked up before it is submitted. Tokens go by Ray's own RAY_AUTH_MODE and
RAY_AUTH_TOKEN; no secret is put into the job's metadata or environment.
"""

import asyncio
import secrets
import shlex
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from cluster import needs
from cluster.failures import INTERRUPTED
from cluster.package import EXCLUDES, check_size, contents, working_dir
from cluster.session import hush, prepare_environment
from configs.errors import ClusterError, UsageError
from configs.settings import Settings

if TYPE_CHECKING:
    from ray.job_submission import JobSubmissionClient

TRAINING = {"run", "train", "demo"}
STOP_S = 15.0
NODES_S = 10.0
POLL_S = 0.5


def submit(settings: Settings, command: Sequence[str], *, detach: bool, console: Console, debug: bool) -> int:
    """Run ``command`` as a job; returns its exit code, or 0 once it is submitted with ``detach``."""
    if not command:
        raise UsageError("no command: llumi submit CONFIG -- llumi run CONFIG")
    prepare_environment()
    with tempfile.TemporaryDirectory() as scratch:
        root = working_dir(Path(scratch))
        size = check_size(contents(root), settings.cluster.max_upload_mb)
        client = reach(settings.cluster.jobs_address)
        if not debug:
            hush()
        needs.check(asked(settings, command), rooms(client, settings))
        name = unique_id(command)
        console.print(
            f"submitting {name} to {client.get_address()} with {size:.1f} MB of code", highlight=False, soft_wrap=True
        )
        send(client, name, command, root)
    if detach:
        sys.stdout.write(f"{name}\n")
        return 0
    return follow(client, name, console)


def send(client: "JobSubmissionClient", name: str, command: Sequence[str], root: Path) -> None:
    """Upload the code and start the job; raises ClusterError where the cluster refuses it."""
    try:
        client.submit_job(
            entrypoint=entrypoint(command),
            submission_id=name,
            runtime_env={"working_dir": str(root), "excludes": list(EXCLUDES)},
            metadata={"name": name, "command": verb(command)},
        )
    except RuntimeError as error:
        raise ClusterError(f"the cluster refused job {name}: {first_line(error)}") from error


def reach(address: str) -> "JobSubmissionClient":
    """A client of the dashboard at ``address``; raises ClusterError where it does not answer or wants a token."""
    from ray.exceptions import AuthenticationError
    from ray.job_submission import JobSubmissionClient

    try:
        return JobSubmissionClient(address)
    except AuthenticationError as error:
        raise ClusterError(
            f"the dashboard at {address} refuses us: set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH"
        ) from error
    except (ConnectionError, RuntimeError, ValueError, OSError) as error:
        raise ClusterError(f"no Ray dashboard answers at {address}; start one or set cluster.jobs_address") from error


def rooms(client: "JobSubmissionClient", settings: Settings) -> list[needs.Room]:
    """The nodes that are alive; with ``cluster.autoscaling`` as many of each as are asked for.

    A head that has just started answers before it knows of any node, itself included.
    """
    from ray.util.state import list_nodes
    from ray.util.state.exception import RayStateApiException

    address, deadline = client.get_address(), time.monotonic() + NODES_S
    while True:
        try:
            nodes = list_nodes(address=address, filters=[("state", "=", "ALIVE")], detail=True, limit=10_000)
        except RayStateApiException as error:
            raise ClusterError(f"the cluster at {address} does not list its nodes") from error
        if nodes or time.monotonic() > deadline:
            count = None if settings.cluster.autoscaling else 1
            return [needs.Room(node.resources_total, count, labels=node.labels) for node in nodes]
        time.sleep(POLL_S)


def asked(settings: Settings, command: Sequence[str]) -> list[needs.Need]:
    """What a command needs at once."""
    name = verb(command)
    if name in TRAINING:
        return [needs.training(settings)]
    if name == "serve":
        return list(needs.serving(settings))
    return [needs.reading(settings)] if name == "corpus" else []


def verb(command: Sequence[str]) -> str:
    """The ``llumi`` command in ``command``, else its first word."""
    words = [Path(word).name for word in command]
    return words[1] if words[0] == "llumi" and len(words) > 1 else words[0]


def entrypoint(command: Sequence[str]) -> str:
    """The shell line of the job; ``llumi`` runs the uploaded code, not what the image has installed."""
    if Path(command[0]).name == "llumi":
        return shlex.join(["python", "-m", "cluster.cli", *command[1:]])
    return shlex.join(command)


def unique_id(command: Sequence[str]) -> str:
    """A submission id that no other job has: Ray answers a second one with HTTP 500."""
    word = "".join(c for c in verb(command) if c.isalnum()) or "job"
    return f"llumi-{word}-{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}-{secrets.token_hex(3)}"


def follow(client: "JobSubmissionClient", name: str, console: Console) -> int:
    """Show the job's log as it comes; returns its exit code. Ctrl-C stops the job."""
    try:
        asyncio.run(tail(client, name))
        details = finished(client, name)
    except KeyboardInterrupt:
        return stop(client, name, console)
    if details.driver_exit_code is not None:
        return int(details.driver_exit_code)
    if details.status == "SUCCEEDED":
        return 0
    raise ClusterError(f"job {name} ended as {details.status} before its command ran: {first_line(details.message)}")


async def tail(client: "JobSubmissionClient", name: str) -> None:
    """Write the job's log to our standard output."""
    async for lines in client.tail_job_logs(name):
        sys.stdout.write(lines)
        sys.stdout.flush()


def finished(client: "JobSubmissionClient", name: str) -> Any:
    """The job's details once it has ended."""
    while not (details := client.get_job_info(name)).status.is_terminal():
        time.sleep(POLL_S)
    return details


def stop(client: "JobSubmissionClient", name: str, console: Console) -> int:
    """Stop the job; a pending one cannot be stopped at once, so it is tried until it ends or time is up."""
    console.print(f"stopping {name}", highlight=False, soft_wrap=True)
    deadline = time.monotonic() + STOP_S
    while time.monotonic() < deadline:
        client.stop_job(name)
        if client.get_job_info(name).status.is_terminal():
            return INTERRUPTED
        time.sleep(POLL_S)
    raise ClusterError(f"job {name} did not stop within {STOP_S:.0f} s; stop it with `ray job stop {name}`")


def first_line(error: object) -> str:
    """The first line of what Ray said."""
    return (str(error).strip().splitlines() or ["no reason given"])[0][:300]
