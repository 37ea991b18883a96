"""``llumi rollout``: a new version of a model beside the one that runs, by share, to all, and back at once."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.table import Table

from cluster import session
from cluster.plan import printed
from cluster.service import address_file
from configs.errors import UsageError
from configs.settings import Settings
from configs.training import ModelName
from pipelines.corpus.sources import is_remote

TIMEOUT_S = 900.0
"""Seconds that a step may take; the longest is to load a model."""


def start(settings: Settings, model: ModelName, location: str, share: float, console: Console, *, debug: bool) -> None:
    """Load another version beside the one that runs and give it a share of the requests."""
    from serving import rollout, service, sources

    given = location if is_remote(location) else str(Path(location).expanduser().resolve())
    where = sources.opened(given, adapter=settings.serving.topology.kind == "shared")
    with joined(settings, debug=debug):
        before = service.deployed()
        steps = rollout.started(before, model, where, share)
        console.print(f"loading {where} beside {model} ...", highlight=False, soft_wrap=True)
        rollout.run(steps, model, before, TIMEOUT_S)
    console.print(f"{model}: {share:.0%} of the requests go to the new version", highlight=False)


def move(settings: Settings, model: ModelName, share: float, console: Console, *, debug: bool) -> None:
    """Move the share."""
    from serving import rollout, service
    from serving.arguments import APP

    with joined(settings, debug=debug):
        before = service.deployed()
        step = rollout.Step(rollout.shared(before, model, share), (APP,))
        rollout.run([step], model, before, TIMEOUT_S)
    console.print(f"{model}: {share:.0%} of the requests go to the new version", highlight=False)


def promote(settings: Settings, model: ModelName, console: Console, *, debug: bool) -> None:
    """Give the new version as many replicas as the old one has, then all requests."""
    from serving import rollout, service

    with joined(settings, debug=debug):
        before = service.deployed()
        own, _ = rollout.both(before, model)
        replicas = max(1, service.running_replicas(own.app, own.deployment))
        rollout.run(rollout.promoted(before, model, replicas), model, before, TIMEOUT_S)
    console.print(f"{model}: all requests go to the new version, the old one stays loaded", highlight=False)


def back(settings: Settings, model: ModelName, console: Console, *, debug: bool) -> None:
    """Give the new version no more requests, at once."""
    from serving import rollout, service

    with joined(settings, debug=debug):
        before = service.deployed()
        rollout.run(rollout.taken_back(before, model), model, before, TIMEOUT_S)
    console.print(f"{model}: no requests go to the new version any more", highlight=False)


def finish(settings: Settings, model: ModelName, console: Console, *, debug: bool) -> None:
    """Settle on the version that has the requests and take the other down."""
    from serving import rollout, service

    with joined(settings, debug=debug):
        before = service.deployed()
        steps = rollout.finished(before, model)
        rollout.run(steps, model, before, TIMEOUT_S)
        location = rollout.standing(service.deployed())[model][0].info["path"]
    console.print(f"{model}: served from {location}", highlight=False, soft_wrap=True)
    if len(steps) > 2:
        kept = f"serving.topology.locations.{model}={location}"
        console.print(f"set {kept}, or the next `llumi serve` brings back the old version", soft_wrap=True)


def show(settings: Settings, *, debug: bool) -> None:
    """Print each model's versions, their shares and how many replicas take requests."""
    from serving import rollout, service

    table = Table("model", "requests", "replicas", "served from", box=None)
    with joined(settings, debug=debug):
        for model, routes in rollout.standing(service.deployed()).items():
            for route in routes:
                replicas = service.running_replicas(route.app, route.deployment)
                table.add_row(model, f"{route.share:.0%}", str(replicas), route.info["path"])
    printed().print(table)


@contextmanager
def joined(settings: Settings, *, debug: bool) -> Iterator[None]:
    """On the Ray of the service: the configured one, or that of the ``llumi serve`` of the same output."""
    session.prepare_environment()
    address = session.address_of(settings)
    if address is None:
        local = of_this_machine(settings)
        session.take_auth_mode(local["auth"])
        address = local["ray"]
    session.join(address, debug=debug)
    if not debug:
        session.hush()
    try:
        yield
    finally:
        session.disconnect()


def of_this_machine(settings: Settings) -> dict[str, str]:
    """How to reach the Ray that ``llumi serve`` started; raises UsageError where none of this output runs."""
    path = address_file(settings)
    try:
        known = json.loads(path.read_text(encoding="utf-8"))
        found = {"ray": str(known["ray"]), "auth": str(known["auth"])}
    except (OSError, ValueError, KeyError):
        raise UsageError(
            f"no service of {settings.output} runs on this machine ({path} is not there): start it with "
            "`llumi serve`, or name its cluster with --set cluster.address="
        ) from None
    return found
