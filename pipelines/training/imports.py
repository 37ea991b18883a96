"""Quicker starts of the many processes that load a model.

A stage starts a process for each worker, and most of the time until its first step goes into
imports. Libraries that transformers and accelerate import only because they are installed - for
one way of decoding, for one cloud's command line - are therefore said to be absent while they
are imported, and the garbage collector, which would look through all new modules again and
again, rests meanwhile and leaves them alone afterwards.
"""

import functools
import gc
import importlib.metadata
import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

UNUSED = frozenset({"boto3", "mlflow", "scipy", "sklearn", "wandb"})
"""Nothing that trains or scores calls them through those libraries; a tracker is imported by ``tracking.py``, later."""


@contextmanager
def lean_imports() -> Iterator[None]:
    """Import heavy libraries within, in a process that only trains or scores."""
    find, distributions = importlib.util.find_spec, importlib.metadata.packages_distributions

    def find_used(name: str, package: str | None = None) -> Any:
        return None if name.partition(".")[0] in UNUSED else find(name, package)

    importlib.util.find_spec = find_used
    importlib.metadata.packages_distributions = functools.cache(distributions)  # asked twice, half a second each
    gc.disable()
    try:
        yield
    finally:
        importlib.util.find_spec, importlib.metadata.packages_distributions = find, distributions
        gc.freeze()
        gc.enable()
