"""The whole application on a port of this machine, with engines whose answers are known, and raw requests to it."""

import asyncio
import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import uvicorn

from configs.access import ORDINARY, Scope
from configs.load import load
from serving import api
from serving.access import keys
from serving.services import Services
from tests.pipelines.generation.scripted import ScriptedEngine
from tests.ports import free_port
from tests.serving.local import LocalModel

POST = {"title": "A hard week", "text": "I can not sleep and nobody asks why."}


@dataclass
class Server:
    """A service that runs."""

    port: int
    keys_file: Path
    engine: ScriptedEngine
    """Of both models: tells what reached them."""

    def key(self, *scopes: Scope, **options: Any) -> str:
        """A new key."""
        return keys.create(self.keys_file, "test", scopes or ORDINARY, **options)[0]

    def ask(self, method: str, path: str, key: str | None = None, **options: Any) -> httpx.Response:
        """One request by a common client."""
        headers = {**({"Authorization": f"Bearer {key}"} if key else {}), **options.pop("headers", {})}
        url = f"http://127.0.0.1:{self.port}{path}"
        return httpx.request(method, url, headers=headers, timeout=30, trust_env=False, **options)

    def draft(self, key: str | None = None, **options: Any) -> httpx.Response:
        """Ask for a draft."""
        return self.ask("POST", "/v1/generate", key, json={"post": POST}, **options)

    def connect(self) -> socket.socket:
        """A connection, to send whatever one likes."""
        return socket.create_connection(("127.0.0.1", self.port), timeout=20)

    def raw(self, *lines: str, body: bytes = b"") -> tuple[int, bytes]:
        """Send a request as it is written; the answer's status and all of it."""
        with self.connect() as connection:
            head = "\r\n".join([*lines, "Connection: close", "", ""])
            connection.sendall(head.encode("latin-1") + body)
            answer = b"".join(iter(lambda: connection.recv(65536), b""))
        return status_of(answer), answer


def status_of(answer: bytes) -> int:
    """The status in a response's first line; 0 where there is none."""
    return int(answer.split(b" ", 2)[1]) if answer.startswith(b"HTTP/1.1 ") else 0


def error_of(answer: bytes) -> dict[str, Any]:
    """The error in a response's body."""
    error: dict[str, Any] = json.loads(answer.partition(b"\r\n\r\n")[2])["error"]
    return error


@contextmanager
def running(folder: Path, *overrides: str, **engine: Any) -> Iterator[Server]:
    """The service until the block ends; ``engine`` are arguments of the scripted engine."""
    port, keys_file = free_port(), folder / "keys.json"
    common = ["serving.access.counters=memory", f"serving.access.keys_file={keys_file}"]
    settings = load("demo", [f"output={folder}", f"serving.port={port}", *common, *overrides])
    scripted = ScriptedEngine(**engine)
    services = Services.of(
        LocalModel("gm", scripted),
        LocalModel("im", scripted),
        serving=settings.serving,
        generation=settings.generation,
        prompts=settings.prompts,
    )
    # Serve starts uvicorn with the same options.
    config = uvicorn.Config(api.create(services), port=port, log_config=None, access_log=False, lifespan="off")
    server, up = uvicorn.Server(config), threading.Event()

    async def serve() -> None:
        await scripted.start()
        serving = asyncio.create_task(server.serve())
        while not server.started and not serving.done():
            await asyncio.sleep(0.01)
        up.set()
        await serving

    thread = threading.Thread(target=asyncio.run, args=(serve(),), daemon=True)
    thread.start()
    assert up.wait(30)
    try:
        yield Server(port, keys_file, scripted)
    finally:
        server.should_exit = server.force_exit = True
        thread.join(30)
