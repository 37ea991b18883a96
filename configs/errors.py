"""The one family of exceptions: each names the thing that is wrong and the way out.

Every class also inherits the matching built-in, so that callers who know nothing
of LLUMI can still catch ``ValueError`` or ``FileNotFoundError``. The command line
turns any of them into one message and ``exit_code``; a stack trace only appears
with ``--debug``. No message may carry the words of a post, comment or draft.
"""


class LlumiError(Exception):
    """Base of the family; never raised itself."""

    exit_code = 1


class UsageError(LlumiError, ValueError):
    """The command, its order or the configuration is wrong: change what was asked."""

    exit_code = 2


class ConfigError(UsageError):
    """A configuration file or override does not parse or validate."""


class StageOrderError(UsageError):
    """A stage was asked for before the output it reads exists."""


class ModelNotFound(UsageError, FileNotFoundError):
    """``model.base`` names neither a folder that holds a model nor one that can be loaded."""


class PortInUse(UsageError, OSError):
    """The serving port is taken by another process."""


class DataError(LlumiError, ValueError):
    """The input data cannot be used: damaged, of another kind, or empty after filtering."""


class MissingInput(DataError, FileNotFoundError):
    """An input file is not there, or a glob matches nothing."""


class NoSpace(LlumiError, OSError):
    """The disk or the quota of an output is exhausted."""


class TrainingError(LlumiError, RuntimeError):
    """Training stopped: the message says at which step and what to do."""


class ExportError(LlumiError, OSError):
    """A model could not be copied whole to where it was to be exported."""


class EngineError(LlumiError, RuntimeError):
    """The text engine cannot take or finish a request."""


class ClusterError(LlumiError, RuntimeError):
    """The Ray cluster refuses, cannot be reached or cannot ever satisfy the request."""


def as_line(error: BaseException) -> str:
    """The error's message in one line, as the command line prints it."""
    return " ".join(str(error).split()) or type(error).__name__
