"""One clear message out of a Ray Data run that failed on its input.

Ray wraps what a task raises and logs its stack trace as an error of its own; a damaged
file is neither. Within ``plain_errors`` an error of our family leaves as itself, and Ray's
log records about it are left out. Any other error passes untouched, with its records.
"""

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from configs.errors import LlumiError

_LOGGERS = ("ray.data.exceptions", "ray.data._internal.execution.streaming_executor_state")


@contextmanager
def plain_errors() -> Iterator[None]:
    """Raise an LlumiError from inside Ray tasks as it was raised there.

    Our messages are one line; Ray appends lines of its own about retries.
    """
    loggers = [logging.getLogger(name) for name in _LOGGERS]
    for logger in loggers:
        logger.addFilter(_is_not_ours)
    try:
        yield
    except Exception as error:
        ours = cause(error)
        if ours is None:
            raise
        raise type(ours)(str(ours).partition("\n")[0]) from None
    finally:
        for logger in loggers:
            logger.removeFilter(_is_not_ours)


def cause(error: BaseException | None) -> LlumiError | None:
    """The error of our family that ``error`` is, wraps or was caused by."""
    while error is not None:
        for candidate in (getattr(error, "cause", None), error):
            if isinstance(candidate, LlumiError):
                return candidate
        error = error.__cause__
    return None


def _is_not_ours(record: logging.LogRecord) -> bool:
    logged = record.exc_info[1] if record.exc_info else None
    return cause(logged) is None and cause(sys.exc_info()[1]) is None
