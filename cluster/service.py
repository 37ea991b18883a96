"""``llumi serve``: the service of both models, up until Ctrl-C or SIGTERM, then down cleanly."""

import json
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType

from rich.console import Console

from cluster import needs, session
from cluster.forget import trained_on_forgotten
from cluster.keys import without_keys
from configs.settings import Settings


class Terminated(KeyboardInterrupt):
    """SIGTERM came while the service was starting."""


def serve(settings: Settings, console: Console, *, debug: bool) -> None:
    """Serve GM and IM until the process is told to stop, be it while they start."""
    from cluster.feedback import prepare as prepare_feedback
    from serving.service import made_models

    made_models(settings)  # what cannot be served leaves no store behind
    check_address(settings)
    for warning in trained_on_forgotten(settings):
        console.print(warning, highlight=False)
    prepare_feedback(settings, console)
    with suppress(Terminated), running(settings, debug=debug) as url:
        console.print(f"GM and IM answer at {url}; Ctrl-C stops them", highlight=False)
        for hint in without_keys(settings):
            console.print(hint, highlight=False, markup=False, soft_wrap=True)
        wait()
        console.print("stopping", highlight=False)


@contextmanager
def running(settings: Settings, *, debug: bool) -> Iterator[str]:
    """The service's URL while the block runs.

    What would fail anyway (a model that is not there, a port in use) fails before Ray starts.
    """
    from serving.service import made_models, start, stop

    models = made_models(settings)
    check_address(settings)
    session.connect(settings, needs.serving(settings), debug=debug)
    try:
        with terminable():
            url = start(settings, models)
            with found_by(settings, url):
                yield url
    finally:
        stop()
        session.disconnect()


@contextmanager
def terminable() -> Iterator[None]:
    """Within, SIGTERM raises Terminated, once; the handler that ``ray.init`` leaves would abort the process."""

    def tell(_number: int, _frame: FrameType | None) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # what follows takes the service down
        raise Terminated

    before = signal.signal(signal.SIGTERM, tell)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def address_file(settings: Settings) -> Path:
    """Where a service that runs says how to reach it, for `llumi rollout` and `llumi status`."""
    return Path(settings.output).expanduser() / "serving" / "service.json"


@contextmanager
def found_by(settings: Settings, url: str) -> Iterator[None]:
    """While the block runs, ``address_file`` names the service's URL and its Ray."""
    import ray

    path = address_file(settings)
    path.parent.mkdir(parents=True, exist_ok=True)
    # Ray turns its tokens on for a cluster that it starts here, and does not look for that when it joins one.
    mode = os.environ.get(session.AUTH_MODE, "disabled")
    known = {"url": url, "ray": ray.get_runtime_context().gcs_address, "auth": mode, "pid": os.getpid()}
    path.write_text(json.dumps(known) + "\n", encoding="utf-8")
    try:
        yield
    finally:
        path.unlink(missing_ok=True)


def check_address(settings: Settings) -> None:
    """Raises UsageError for an address open to others, PortInUse where a service of our own finds its port taken."""
    from serving.access.tls import check_tls
    from serving.address import check_exposure, check_port

    check_exposure(settings.serving)
    check_tls(settings.serving)
    if session.address_of(settings) is None:  # on a running cluster the port may be that of the service to update
        check_port(settings.serving.host, settings.serving.port)


def wait() -> None:
    """Return once the process got SIGINT or SIGTERM."""
    told = threading.Event()

    def tell(_number: int, _frame: FrameType | None) -> None:
        told.set()

    before = {number: signal.signal(number, tell) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        while not told.wait(timeout=1):
            pass
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
