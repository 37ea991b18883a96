"""The service with the playground on a port of this machine: the real application, engines whose answers are known."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import uvicorn

from configs.access import ORDINARY, Scope
from configs.load import load
from serving import api
from serving.access import keys
from serving.services import Services
from tests.pipelines.generation.scripted import ScriptedEngine
from tests.ports import free_port
from tests.serving.local import LocalModel

DRAFT = (
    "It makes sense that you are worn out after such a week. You carried a lot all by yourself.\n\n"
    "Would it help to tell one person you trust how it has been?"
)
REVISION = (
    "It makes sense that you are exhausted after such a week. You carried a lot all by yourself.\n\n"
    "Would it help to tell a friend how it has been? I am glad that you wrote here."
)


KEYS: dict[str, tuple[tuple[Scope, ...], int]] = {
    "ordinary": (ORDINARY, 10_000),
    "acute": (("generate", "improve", "acute"), 10_000),
    "drafts only": (("generate",), 10_000),
    "once a minute": (("generate",), 1),
}
"""Scopes and requests a minute of the keys that a service of these tests knows from its start."""


@dataclass
class Site:
    """A running service; ``gm`` and ``im`` say and count what its models do."""

    url: str
    keys: dict[str, str]
    """API keys by the name in ``KEYS``."""
    gm: ScriptedEngine
    im: ScriptedEngine
    loop: asyncio.AbstractEventLoop
    said: dict[str, str] = field(default_factory=lambda: {"gm": DRAFT, "im": REVISION})
    """What each model writes next; a test may change it."""


@contextmanager
def running(folder: Path, *overrides: str, feedback: Any = None) -> Iterator[Site]:
    """The service with the playground switched on, until the block ends."""
    port, keys_file = free_port(), folder / "keys.json"
    common = ["serving.playground=true", "serving.access.counters=memory", f"serving.access.keys_file={keys_file}"]
    settings = load("demo", [f"output={folder}", f"serving.port={port}", *common, *overrides])
    gm, im = (ScriptedEngine(answer=lambda _p, _s, name=name: site.said[name]) for name in ("gm", "im"))
    services = Services.of(
        LocalModel("gm", gm), LocalModel("im", im), serving=settings.serving, generation=settings.generation,
        prompts=settings.prompts, feedback=feedback,
    )  # fmt: skip
    server = uvicorn.Server(uvicorn.Config(api.create(services), port=port, log_level="warning", lifespan="off"))
    up = threading.Event()
    known = {
        name: keys.create(keys_file, "volunteer", scopes, requests_per_minute=rate)[0]
        for name, (scopes, rate) in KEYS.items()
    }
    site = Site(f"http://127.0.0.1:{port}/", known, gm, im, asyncio.new_event_loop())

    async def serve() -> None:
        await asyncio.gather(gm.start(), im.start())
        site.loop.call_soon(up.set)
        await server.serve()

    thread = threading.Thread(target=site.loop.run_until_complete, args=(serve(),), daemon=True)
    thread.start()
    up.wait(30)
    try:
        yield site
    finally:
        server.should_exit = True
        thread.join(30)
