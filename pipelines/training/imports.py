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
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

UNUSED = frozenset({"boto3", "mlflow", "scipy", "sklearn", "wandb"})
"""Nothing that trains or scores calls them through those libraries; a tracker is imported by ``tracking.py``, later."""
TRIED = frozenset({"mlflow", "wandb"})
"""Those that DeepSpeed imports in a ``try`` without asking first whether they are there."""


@contextmanager
def lean_imports() -> Iterator[None]:
    """Import heavy libraries within, in a process that only trains or scores."""
    find, distributions = importlib.util.find_spec, importlib.metadata.packages_distributions

    def find_used(name: str, package: str | None = None) -> Any:
        return None if name.partition(".")[0] in UNUSED else find(name, package)

    importlib.util.find_spec = find_used
    importlib.metadata.packages_distributions = functools.cache(distributions)  # asked twice, half a second each
    halted = TRIED - sys.modules.keys()
    for name in halted:
        sys.modules[name] = None  # type: ignore[assignment]  # raises ImportError where it is imported
    gc.disable()
    try:
        yield
    finally:
        for name in halted:
            del sys.modules[name]
        importlib.util.find_spec, importlib.metadata.packages_distributions = find, distributions
        gc.freeze()
        gc.enable()
