"""Processes that a test or benchmark started, by what their command says: to kill them, or to count their CPU time.

processes("ServeReplica:llumi-gm:gm")[0].kill()
"""

from contextlib import suppress

import psutil


def processes(*titles: str) -> list[psutil.Process]:
    """Living processes below this one whose command holds one of the words, the oldest first."""
    found = []
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            if process.status() != psutil.STATUS_ZOMBIE and any(t in " ".join(process.cmdline()) for t in titles):
                found.append((process.create_time(), process.pid, process))
    return [process for *_, process in sorted(found, key=lambda one: one[:2])]
