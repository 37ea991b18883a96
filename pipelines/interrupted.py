"""What a run that could not end leaves behind, and how it is told: a full disk, a killed process.

Drafts are folders of their own beside the output (see ``manifest.writing``). A process that
fails removes its own; one that was killed cannot, so the next one to write the same output
removes the drafts of processes of this host that are gone.
"""

import errno
import os
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path

from configs.errors import NoSpace

FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
_CAUSES = ("cause", "__cause__", "__context__")


def draft_of(output: Path) -> Path:
    """Where this process drafts ``output``; drafts of processes that are gone are removed."""
    prefix = f".{output.name}.partial-{socket.gethostname()}-"
    for left in output.parent.glob(f"{prefix}*"):
        process = left.name.removeprefix(prefix)
        if process.isdigit() and not is_running(int(process)):
            shutil.rmtree(left, ignore_errors=True)
    return output.with_name(f"{prefix}{os.getpid()}")


def is_running(process: int) -> bool:
    """Whether a process of this host has this number."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def no_space(error: BaseException, folder: Path) -> NoSpace | None:
    """The error to raise where ``error`` is, wraps or was caused by a full disk or an exhausted quota."""
    if not any(isinstance(e, OSError) and e.errno in FULL for e in chain(error)):
        return None
    free = shutil.disk_usage(folder).free if folder.exists() else 0
    return NoSpace(
        f"{folder}: no space left to write to ({free / 1e6:,.0f} MB are free once the unfinished output is removed);"
        " make room there or set output to another disk, then run again"
    )


def chain(error: BaseException) -> Iterator[BaseException]:
    """``error`` and what it wraps, by Ray or by Python."""
    seen: set[int] = set()
    waiting = [error]
    while waiting:
        current = waiting.pop()
        if id(current) in seen:
            continue
        seen.add(id(current))
        yield current
        inner = (getattr(current, name, None) for name in _CAUSES)
        waiting += [e for e in inner if isinstance(e, BaseException)]
