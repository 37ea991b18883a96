"""A worker that is told to end (SIGTERM) saves first.

Schedulers that take a machine back send SIGTERM and, after a grace period, SIGKILL. Ray's own
handler ends the worker at once, and what was done since the last checkpoint is lost. While
training steps run, the signal is only noted here: after the step at hand all workers save,
then this one ends as Ray would have ended it, and is replaced. At any other time nothing
changes. Nodes that Ray itself is told will go are another way to learn of it (watch.py).
"""

import os
import signal
import threading
from typing import Any

_told = threading.Event()
_armed = threading.Event()
_before: dict[str, Any] = {}


def listen() -> None:
    """Put the handler in place; to be called in the worker's main thread, where Python allows it."""
    if "handler" not in _before:
        _before["handler"] = signal.signal(signal.SIGTERM, _note)


def _note(number: int, frame: Any) -> None:
    if _armed.is_set():
        _told.set()
        return
    handler = _before["handler"]
    if callable(handler):
        handler(number, frame)
    else:
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)


def arm(training: bool) -> None:
    """While ``training``, a signal waits for the next step's end; one that waited when training ended is obeyed."""
    if training:
        _armed.set()
    else:
        _armed.clear()
        if _told.is_set():
            leave()


def told() -> bool:
    """Whether this worker is to end."""
    return _told.is_set()


def leave() -> None:
    """End now, as without this module."""
    _armed.clear()
    os.kill(os.getpid(), signal.SIGTERM)
    threading.Event().wait()  # the main thread ends the process; no further step may be taken
