"""The real application on a port of this machine, over engines whose answers are known.

with running(tmp_path, "serving.api.max_drafts=2") as site:
    site.post("/v1/generate", {"post": POST})
"""

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import uvicorn

from configs.load import load
from serving import api
from serving.services import Services
from tests.pipelines.generation.scripted import ScriptedEngine
from tests.ports import free_port
from tests.serving.local import LocalModel

POST = {"title": "A hard week", "text": "I moved here two months ago and still know nobody."}
DRAFT = "Just go out more. You could join a club, and you will be fine."
ANSWER = "That sounds lonely, and it makes sense after a move. Would a club near you be something to try?"
REVISION = "That sounds lonely. You could join a club near you. What would make it easier?"


@dataclass
class Site:
    """A running service."""

    url: str
    services: Services
    gm: ScriptedEngine
    im: ScriptedEngine
    client: httpx.Client

    def post(self, route: str, body: Any = None, **options: Any) -> httpx.Response:
        return self.client.post(route, json=body, **options)

    def get(self, route: str, **options: Any) -> httpx.Response:
        return self.client.get(route, **options)


@contextmanager
def running(
    folder: Path,
    *overrides: str,
    engine: dict[str, Any] | None = None,
    timeout_s: float = 30.0,
    info: dict[str, Any] | None = None,
    model: Callable[..., LocalModel] = LocalModel,
    **others: Any,
) -> Iterator[Site]:
    """The service until the block ends.

    ``engine`` are options of both engines, ``model`` is what stands on them, ``others`` are fields of Services.
    """
    port = free_port()
    settings = load("demo", [f"output={folder}", f"serving.port={port}", "serving.auth=none", *overrides])
    gm = ScriptedEngine(**{"answer": ANSWER, **(engine or {})})
    im = ScriptedEngine(**{"answer": REVISION, **(engine or {})})
    services = Services.of(
        model("gm", gm, timeout_s=timeout_s, info=info),
        model("im", im, timeout_s=timeout_s, info=info),
        serving=settings.serving,
        generation=settings.generation,
        prompts=settings.prompts,
        **others,
    )
    server = uvicorn.Server(uvicorn.Config(api.create(services), port=port, log_level="warning", lifespan="off"))

    async def serve() -> None:
        await asyncio.gather(gm.start(), im.start())
        await server.serve()

    thread = threading.Thread(target=lambda: asyncio.run(serve()), daemon=True)
    thread.start()
    url = f"http://127.0.0.1:{port}"
    with httpx.Client(base_url=url, timeout=30, trust_env=False) as client:
        until_up(client)
        try:
            yield Site(url, services, gm, im, client)
        finally:
            server.should_exit = True
            thread.join(30)


def until_up(client: httpx.Client) -> None:
    """Wait for the first answer."""
    for _ in range(300):
        try:
            client.get("/healthz")
        except httpx.TransportError:
            threading.Event().wait(0.05)
        else:
            return
    raise AssertionError("the service did not come up")
