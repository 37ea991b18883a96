"""Every engine there is, started for a test, and where one cannot run, the reason to skip."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from configs.serving import EngineSettings
from pipelines.generation import vllm_core
from pipelines.generation.transformers_engine import TransformersEngine
from pipelines.generation.vllm_engine import VllmEngine
from tests.pipelines.generation.scripted import ScriptedEngine

PAGES = EngineSettings(page_size=16, pages=16, max_batch_tokens=128, max_requests=8, gpu_memory=0.3)
"""256 tokens for all requests together."""
OF_A_MODEL = ("transformers", "vllm")
EVERY = (*OF_A_MODEL, "scripted")
PROMPTS = ("How are you?", "What helped you the last time that a week was like this?", "你好 🙂")

Running = Callable[..., AbstractAsyncContextManager[Any]]
"""``async with running(adapter=..., folder=...) as engine``."""


def prompt(text: str) -> list[dict[str, str]]:
    """One message."""
    return [{"role": "user", "content": text}]


def running_of(kind: str, model: Path) -> Running:
    """Starts and stops engines of one kind; skips the test where they cannot run."""
    if kind == "vllm" and (reason := vllm_core.why_not()):
        pytest.skip(reason)

    @asynccontextmanager
    async def running(adapter: Path | None = None, folder: Path = model) -> AsyncIterator[Any]:
        engine: Any
        if kind == "transformers":
            engine = TransformersEngine(str(folder), adapter, PAGES)
        elif kind == "vllm":
            # The references are computed in float32.
            engine = VllmEngine(str(folder), adapter, PAGES, dtype="float32")
        else:
            engine = ScriptedEngine(context_tokens=256, max_requests=PAGES.max_requests, token_s=0.001)
        await engine.start()
        try:
            yield engine
        finally:
            await engine.stop()

    return running


def run(test: Callable[[], Awaitable[None]]) -> None:
    """Run a test's coroutine, with an end."""

    async def bounded() -> None:
        await asyncio.wait_for(test(), 90)

    asyncio.run(bounded())


async def until(condition: Callable[[], bool], seconds: float = 10) -> None:
    """Wait for something that is about to come true."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "did not come true in time"
        await asyncio.sleep(0.01)
