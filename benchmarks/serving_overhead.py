"""What one request costs: our application on bare uvicorn, behind Serve's own proxy, and behind HAProxy.

Its model answers at once, so what is left is the way there and back. Asked by 1, 16 and 64 clients at
once. CPU is that of all processes that a request passes, taken from the kernel; the client's own is not
counted. Latencies of 16 and 64 clients on few cores are mostly the clients' own. Every way is measured
twice by turns and the round with less CPU counts: the other was disturbed.
"""

import asyncio
import logging
import multiprocessing
import socket
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

from benchmarks.serving_setup import apart, ray_of
from serving.middleware import LOGGER
from tests.ports import free_port
from tests.serving.processes import processes

AT_ONCE = (1, 16, 64)
REQUESTS = 1000
ROUNDS = 2
BODY = {"post": {"title": "A hard week", "text": "I moved here two months ago and still know nobody."}}
QUIET = ["serving.auth=none", "serving.feedback.enabled=false"]
ON_SERVE = ("ServeReplica:llumi", "haproxy.cfg", "ProxyActor", "HAProxyManager")
"""Titles of the processes that a request passes on Serve, and of those that look after them."""


def run() -> dict[str, Any]:
    """CPU and latencies of each way, and what a way costs more than uvicorn."""
    ways = {"uvicorn": bare, "serve": serve_alone, "haproxy": serve_haproxy}
    rounds = [{name: apart(way) for name, way in ways.items()} for _ in range(ROUNDS)]
    found = {name: quietest([one[name] for one in rounds]) for name in ways}
    more = {name: over(found[name], found["uvicorn"]) for name in ("serve", "haproxy")}
    return {"cpu_ms_over_uvicorn": more, **found}


def quietest(rounds: list[dict[str, Any]]) -> dict[str, Any]:
    """Of each number of clients the round that took least CPU."""
    return {str(n): min((one[str(n)] for one in rounds), key=lambda figures: figures["cpu_ms"]) for n in AT_ONCE}


def over(way: dict[str, Any], bare: dict[str, Any]) -> dict[str, float]:
    """CPU ms a request that a way costs more than uvicorn alone."""
    return {str(n): round(way[str(n)]["cpu_ms"] - bare[str(n)]["cpu_ms"], 2) for n in AT_ONCE}


class AtOnce:
    """A ``ModelLike`` that has its answer ready."""

    def __init__(self, name: str):
        self.name = name

    async def write(self, request_id: str, prompt: Any, sampling: Any) -> Any:
        """A short answer."""
        from pipelines.generation.engine import Piece, Usage

        return Piece("That sounds lonely, and it makes sense. Would a club near you help?", Usage(100, 16), "stop")

    async def health(self) -> str:
        """Well."""
        return "ok"

    async def info(self, request_id: str | None = None) -> dict[str, Any]:
        """Nothing to tell."""
        return {"version": "0", "path": "", "manifest": None}


def application(serving: Any) -> Any:
    """The application under test, the same everywhere."""
    from serving.api import create
    from serving.services import Services

    return create(Services.of(AtOnce("gm"), AtOnce("im"), serving=serving))  # type: ignore[arg-type]


def settings(port: int, folder: str, *overrides: str) -> Any:
    """The demo's settings on a port."""
    from configs.load import load

    return load("demo", [f"output={folder}", f"serving.port={port}", *QUIET, *overrides])


def bare() -> dict[str, Any]:
    """Our application on uvicorn alone."""
    port = free_port()
    with tempfile.TemporaryDirectory() as folder:
        server = multiprocessing.get_context("spawn").Process(target=_uvicorn, args=(port, folder), daemon=True)
        server.start()
        try:
            return measured(port, lambda: [psutil.Process(server.pid)])
        finally:
            server.terminate()
            server.join()


def _uvicorn(port: int, folder: str) -> None:
    import uvicorn

    app = application(settings(port, folder).serving)
    logging.getLogger(LOGGER).handlers[:] = [logging.FileHandler(Path(folder) / "access.log")]  # as replicas have one
    uvicorn.run(app, port=port, log_level="error", access_log=False, loop="uvloop", lifespan="off")


def serve_alone() -> dict[str, Any]:
    """Our application behind Serve's own proxy."""
    return behind("never")


def serve_haproxy() -> dict[str, Any]:
    """Our application behind HAProxy."""
    return behind("always")


def behind(haproxy: str) -> dict[str, Any]:
    """Our application in one ingress replica."""
    port = free_port()
    with tempfile.TemporaryDirectory() as folder:
        chosen = settings(port, folder, f"serving.topology.haproxy={haproxy}")
        with ray_of(chosen):
            from ray import serve

            from serving import service

            serve.start(proxy_location="EveryNode", http_options={"host": "127.0.0.1", "port": port})
            options = {"max_ongoing_requests": 1000, "logging_config": {"enable_access_log": False}}
            app = serve.deployment(**options)(serve.ingress()(Alone)).bind(chosen.serving)
            serve.run(app, name="llumi", route_prefix="/")
            try:
                return measured(port, lambda: processes(*ON_SERVE))
            finally:
                service.stop()


class Alone:
    """The ingress without models."""

    def __init__(self, serving: Any):
        self.serving = serving

    def __serve_build_asgi_app__(self) -> Any:
        """Called by Serve."""
        return application(self.serving)


def measured(port: int, path: Callable[[], list[psutil.Process]]) -> dict[str, Any]:
    """CPU ms a request, p50 and p99 in ms, by requests at once."""
    up(port)
    asyncio.run(ask(port, 8, 300))  # warm
    found = {}
    for at_once in AT_ONCE:
        before = cpu(path())
        seconds = asyncio.run(ask(port, at_once, REQUESTS))
        spent = cpu(path()) - before
        cuts = statistics.quantiles(seconds, n=100)
        found[str(at_once)] = {
            "cpu_ms": round(1000 * spent / REQUESTS, 2),
            "p50_ms": round(1000 * cuts[49], 1),
            "p99_ms": round(1000 * cuts[98], 1),
        }
    return found


def up(port: int) -> None:
    """Wait until something listens."""
    for _ in range(600):
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            time.sleep(0.1)
    raise RuntimeError(f"nothing listens on port {port}")


async def ask(port: int, at_once: int, requests: int) -> list[float]:
    """Seconds of each request, so many at once."""
    import aiohttp

    url, seconds, left = f"http://127.0.0.1:{port}/v1/generate", [], iter(range(requests))
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=at_once)) as session:

        async def client() -> None:
            for _ in left:
                started = time.perf_counter()
                async with session.post(url, json=BODY) as response:
                    answer = await response.read()
                    if response.status != 200:
                        raise RuntimeError(f"status {response.status}: {answer.decode()}")
                seconds.append(time.perf_counter() - started)

        await asyncio.gather(*(client() for _ in range(at_once)))
    return seconds


def cpu(path: list[psutil.Process]) -> float:
    """CPU seconds that these processes have used."""
    return sum(sum(process.cpu_times()[:2]) for process in path)
