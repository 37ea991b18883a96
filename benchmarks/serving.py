"""What the service costs and how it reacts: ingress per request, scale-up, cold start, a soak with deaths.

Three parts, each in processes of its own:

- *overhead*: our application with a model that answers at once, on bare uvicorn, behind Serve's own
  proxy, and behind HAProxy, asked by 1, 16 and 64 clients at once. CPU is that of all processes that a
  request passes, taken from the kernel; the client's own is not counted. Latencies of 16 and 64 clients
  on few cores are mostly the clients' own.
- *scaling*: the tiny model from one replica to three under a step load, and from none.
- *soak*: 80 % of the measured capacity for ten minutes, every minute a replica killed with -9; model
  replicas and ingress in turn. ``LLUMI_SOAK_S`` sets another length.
"""

import asyncio
import multiprocessing
import os
import socket
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

AT_ONCE = (1, 16, 64)
REQUESTS = 1500
BODY = {"post": {"title": "A hard week", "text": "I moved here two months ago and still know nobody."}}
SOAK_S = float(os.environ.get("LLUMI_SOAK_S", "600"))
QUIET = ["serving.auth=none", "serving.feedback.enabled=false"]


def run() -> dict[str, Any]:
    """All figures."""
    ways = {"uvicorn": bare, "serve": serve_alone, "haproxy": serve_haproxy}
    overhead = {name: apart(way) for name, way in ways.items()}
    return {
        "overhead": overhead,
        "cpu_ms_over_uvicorn": {name: over(overhead[name], overhead["uvicorn"]) for name in ("serve", "haproxy")},
        "scaling": apart(scaling),
        "soak": apart(soak),
    }


def over(way: dict[str, Any], bare: dict[str, Any]) -> dict[str, float]:
    """CPU ms a request that a way costs more than uvicorn alone."""
    return {str(n): round(way[str(n)]["cpu_ms"] - bare[str(n)]["cpu_ms"], 2) for n in AT_ONCE}


def apart(part: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """The part's figures, from a process of its own: Ray reads its environment once."""
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    process = context.Process(target=_tell, args=(part, queue))
    process.start()
    found: dict[str, Any] = queue.get()
    process.join()
    if "error" in found:
        raise RuntimeError(found["error"])
    return found


def _tell(part: Callable[[], dict[str, Any]], queue: Any) -> None:
    try:
        queue.put(part())
    except Exception as error:
        queue.put({"error": f"{type(error).__name__}: {error}"})
        raise


# What one request costs.


class AtOnce:
    """A ``ModelLike`` that has its answer ready: what is left is the way there and back."""

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
    from tests.ports import free_port

    port = free_port()
    server = multiprocessing.get_context("spawn").Process(target=_uvicorn, args=(port,), daemon=True)
    server.start()
    try:
        return measured(port, lambda: [psutil.Process(server.pid)])
    finally:
        server.terminate()
        server.join()


def _uvicorn(port: int) -> None:
    import uvicorn

    app = application(settings(port, tempfile.gettempdir()).serving)
    uvicorn.run(app, port=port, log_level="error", access_log=False, loop="uvloop", lifespan="off")


def serve_alone() -> dict[str, Any]:
    """Our application behind Serve's own proxy."""
    return behind("never")


def serve_haproxy() -> dict[str, Any]:
    """Our application behind HAProxy."""
    return behind("always")


def behind(haproxy: str) -> dict[str, Any]:
    """Our application in one ingress replica."""
    from tests.ports import free_port

    port = free_port()
    with tempfile.TemporaryDirectory() as folder:
        chosen = settings(port, folder, f"serving.topology.haproxy={haproxy}")
        with ray_of(chosen):
            from ray import serve

            serve.start(proxy_location="EveryNode", http_options={"host": "127.0.0.1", "port": port})
            options = {"max_ongoing_requests": 1000, "logging_config": {"enable_access_log": False}}
            app = serve.deployment(**options)(serve.ingress()(Alone)).bind(chosen.serving)
            serve.run(app, name="llumi", route_prefix="/")
            titles = ("ServeReplica:llumi", "haproxy.cfg", "ProxyActor", "HAProxyManager")
            found = measured(port, lambda: processes(*titles))
            serve.shutdown()
            return found


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


def processes(*titles: str) -> list[psutil.Process]:
    """Processes below this one whose command holds one of the words."""
    found = []
    for process in psutil.Process().children(recursive=True):
        try:
            if process.status() != psutil.STATUS_ZOMBIE and any(t in " ".join(process.cmdline()) for t in titles):
                found.append(process)
        except psutil.NoSuchProcess:
            continue
    return sorted(found, key=lambda process: process.create_time())


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


# How it scales, and what it takes.


@contextmanager
def service_of(*overrides: str) -> Iterator[tuple[str, Any]]:
    """The whole service with the tests' tiny model: its URL and settings."""
    from serving import service
    from serving.arguments import ModelPaths
    from tests.pipelines.generation.tiny import make
    from tests.ports import free_port
    from tests.serving.conftest import settings_for

    with tempfile.TemporaryDirectory() as folder:
        model = str(make(Path(folder) / "model", positions=8192, endless=True))
        chosen = settings_for(free_port(), Path(folder), "cluster.cpus=8", "serving.feedback.enabled=false", *overrides)
        with ray_of(chosen):
            try:
                yield service.start(chosen, ModelPaths(gm=model, im=model)), chosen
            finally:
                service.stop()


def scaling() -> dict[str, Any]:
    """From one replica to three under a step of load, and from none to one."""
    from serving import service
    from tests.serving.load import Load

    grown = [f"serving.gm.{key}" for key in ("max_replicas=3", "target_ongoing_requests=2", "upscale_delay_s=1")]
    with service_of(*grown, "serving.gm.downscale_delay_s=600") as (url, _), Load(url, 2, ("stream",)) as calm:
        calm.wait(20)
        before = statistics.median(calm.account.seconds)
        stepped = time.monotonic()
        reached: dict[int, float] = {}
        with Load(url, 12, ("stream",)) as step:
            while len(reached) < 2 and time.monotonic() - stepped < 120:
                for number in range(2, service.running_replicas("llumi-gm", "gm") + 1):
                    reached.setdefault(number, time.monotonic() - stepped)
                time.sleep(0.1)
            step.wait(40)
        early = [s for s, t in zip(step.account.seconds, step.account.times, strict=True) if t - stepped < 3]
        late = step.account.seconds[-40:]
    return {
        "upscale_delay_s": 1,
        "replicas_after_s": {str(number): round(seconds, 1) for number, seconds in reached.items()},
        "answer_s_median": {name: round(statistics.median(v), 3) for name, v in (("early", early), ("late", late))},
        "answer_s_median_before": round(before, 3),
        "lost": step.account.lost.total() + calm.account.lost.total(),
        "cold_start": cold_start(),
    }


def cold_start() -> dict[str, Any]:
    """The first answer of a model that slept, beside the second: how long a client waits for a replica to start."""
    from serving import service
    from tests.serving.load import Load

    with service_of("serving.gm.min_replicas=0", "serving.gm.downscale_delay_s=1") as (url, _):
        end = time.monotonic() + 120
        while service.running_replicas("llumi-gm", "gm") and time.monotonic() < end:
            time.sleep(0.2)
        asleep = service.running_replicas("llumi-gm", "gm") == 0
        with Load(url, 1, ("generate",)) as load:
            load.wait(2, seconds=120)
    first, second = load.account.seconds[:2]
    return {
        "slept": asleep,
        "first_s": round(first, 2),
        "second_s": round(second, 3),
        "lost": load.account.lost.total(),
    }


def soak() -> dict[str, Any]:
    """Account of every request at 80 % of capacity while replicas die."""
    from tests.serving.load import Load

    two = [f"serving.{name}.{limit}_replicas=2" for name in ("ingress", "gm", "im") for limit in ("min", "max")]
    kinds = ("generate", "improve")
    with service_of(*two, "serving.gm.cpus=0.2", "serving.im.cpus=0.2") as (url, _):
        with Load(url, 12, kinds) as full:
            full.wait(20)
            begun, answered = time.monotonic(), full.account.answered.total()
            time.sleep(min(20.0, SOAK_S / 4))
            capacity = (full.account.answered.total() - answered) / (time.monotonic() - begun)
        victims = ["ServeReplica:llumi-gm:gm", "ServeReplica:llumi:ingress", "ServeReplica:llumi-im:im"]
        started, killed, every = time.monotonic(), [], min(60.0, SOAK_S / 3)
        with Load(url, 24, kinds, rate=0.8 * capacity) as load:
            while time.monotonic() - started < SOAK_S:
                time.sleep(every)
                victim = victims[len(killed) % len(victims)]
                alive = processes(victim)
                if alive:
                    alive[0].kill()
                    killed.append(victim.rsplit(":", 1)[-1])
    account = load.account
    cuts = statistics.quantiles(account.seconds, n=100)
    return {
        "seconds": round(time.monotonic() - started),
        "capacity_per_s": round(capacity, 1),
        "rate_per_s": round(0.8 * capacity, 1),
        "killed": killed,
        "sent": account.sent,
        "answered": account.answered.total(),
        "refused_by_name": dict(account.refused),
        "lost": dict(account.lost),
        "p50_s": round(cuts[49], 3),
        "p99_s": round(cuts[98], 3),
    }
