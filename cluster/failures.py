"""What a failure looks like on the command line: one line and an exit code.

An error of ours that was raised inside a Ray worker comes back wrapped: by Ray's task
errors, by Ray Data's, by Ray Train's. ``ours`` digs it out, so that a user reads the
same message whether a stage ran here or on sixteen machines. The message of an error
that is *not* ours is never shown: it may hold the words of a post.
"""

import sys
import traceback
from collections.abc import Iterator
from pathlib import Path

from configs.errors import LlumiError, as_line
from pipelines.manifest import PACKAGES

CAUSES = ("cause", "controller_failure", "__cause__", "__context__")
INTERRUPTED = 130
RETRIES = "\nFailed to apply UDF transform"
ROOT = Path(__file__).resolve().parent.parent


def ours(error: BaseException) -> LlumiError | None:
    """The first error of our family in ``error`` and what caused it, None where there is none."""
    return next((e for e in chain(error) if isinstance(e, LlumiError) and not is_wrapper(e)), None)


def chain(error: BaseException) -> Iterator[BaseException]:
    """``error`` and everything it wraps: Python's causes, Ray's ``cause`` and Ray Train's failures by rank."""
    seen: set[int] = set()
    waiting = [error]
    while waiting:
        current = waiting.pop(0)
        if id(current) in seen:
            continue
        seen.add(id(current))
        yield current
        inner = [getattr(current, name, None) for name in CAUSES]
        inner += dict(getattr(current, "worker_failures", None) or {}).values()
        waiting += [e for e in inner if isinstance(e, BaseException)]


def is_wrapper(error: BaseException) -> bool:
    """Whether this is Ray's double of an error of ours, whose text is a remote stack trace."""
    return any(cls.__name__ == "RayTaskError" for cls in type(error).__mro__)


def report(error: BaseException, debug: bool) -> int:
    """Print the one line (after the trace with ``debug``) on stderr; returns the exit code."""
    if debug:
        traceback.print_exception(error)
    if isinstance(error, KeyboardInterrupt):
        print("interrupted", file=sys.stderr)  # noqa: T201
        return INTERRUPTED
    known = ours(error)
    if known is not None:
        print(f"error: {message(known)}", file=sys.stderr)  # noqa: T201
        return known.exit_code
    print(f"error: unexpected {describe(error)}; run again with --debug for the trace", file=sys.stderr)  # noqa: T201
    return 1


def message(error: LlumiError) -> str:
    """The error's message in one line, without what Ray Data appends about its retries."""
    return as_line(type(error)(str(error).split(RETRIES)[0]))


def describe(error: BaseException) -> str:
    """Type of the failure underneath Ray's wrappers and the place in our code, without its message."""
    inner = next((e for e in chain(error) if not is_wrapper(e)), error)
    frames = [f for e in (inner, error) for f in traceback.extract_tb(e.__traceback__)]
    near = [f for f in frames if any(Path(f.filename).is_relative_to(ROOT / package) for package in PACKAGES)]
    place = f" at {Path(near[-1].filename).relative_to(ROOT)}:{near[-1].lineno}" if near else ""
    return f"{type(inner).__name__}{place}"
