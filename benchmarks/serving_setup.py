"""What the parts of the serving benchmark stand on: a process of their own, Ray as we start it, the whole service."""

import multiprocessing
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

NEWLINES = 2.5
"""What the logit of a line break is multiplied by: the random model then breaks its line about every eighth token."""


def apart(part: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """The part's figures, from a process of its own: Ray reads its environment once. Raises what it raised."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(part).result()


@contextmanager
def ray_of(chosen: Any) -> Iterator[None]:
    """Ray as ``llumi serve`` starts it."""
    from cluster import session

    session.prepare_environment()
    session.start(chosen, debug=False)
    try:
        yield
    finally:
        session.disconnect()


@contextmanager
def service_of(*overrides: str) -> Iterator[tuple[str, Any]]:
    """The whole service with a tiny random model for both: its URL and settings."""
    from serving import service
    from serving.arguments import ModelPaths
    from tests.ports import free_port
    from tests.serving.conftest import settings_for

    with tempfile.TemporaryDirectory() as folder:
        model = str(talkative(Path(folder) / "model"))
        chosen = settings_for(free_port(), Path(folder), "cluster.cpus=8", "serving.feedback.enabled=false", *overrides)
        with ray_of(chosen):
            try:
                yield service.start(chosen, ModelPaths(gm=model, im=model)), chosen
            finally:
                service.stop()


def talkative(folder: Path) -> Path:
    """A tiny random model that writes lines: a stream shows a text line by line, and else would have one only."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from tests.pipelines.generation.tiny import make

    make(folder, positions=8192, endless=True)
    model = AutoModelForCausalLM.from_pretrained(folder)
    newline = AutoTokenizer.from_pretrained(folder).convert_tokens_to_ids("Ċ")
    model.lm_head.weight.data[newline] *= NEWLINES
    model.save_pretrained(folder)
    return folder
