"""``llumi serve``: the service of both models, up until Ctrl-C or SIGTERM, then down cleanly."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from rich.console import Console

from cluster import needs, session
from cluster.forget import trained_on_forgotten
from configs.settings import Settings


def serve(settings: Settings, console: Console, *, debug: bool) -> None:
    """Serve GM and IM until the process is told to stop."""
    for warning in trained_on_forgotten(settings):
        console.print(warning, highlight=False)
    with running(settings, debug=debug) as url:
        console.print(f"GM and IM answer at {url}; Ctrl-C stops them", highlight=False)
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
        yield start(settings, models)
    finally:
        stop()
        session.disconnect()


def check_address(settings: Settings) -> None:
    """Raises UsageError for an address open to others, PortInUse where a service of our own finds its port taken."""
    from serving.address import check_exposure, check_port

    check_exposure(settings.serving)
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
