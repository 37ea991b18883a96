"""Counts shared by an actor of a real Ray and by a real Redis."""

import asyncio
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from configs.access import AccessSettings
from configs.errors import ConfigError
from configs.load import load
from serving.access import boards
from serving.access.boards import ACTOR, NAMESPACE, RayBoard, RedisBoard, counters_of, end_actor
from serving.access.counters import Board, BoardDown, MemoryCounters, SharedCounters, Tally
from tests.ports import free_port
from tests.serving.access.test_counters import settled

PASSWORD = "correct-horse"


async def share(first: SharedCounters, second: SharedCounters) -> None:
    """Two replicas that count one caller, until its limit is used up by both together."""
    assert [await first.enter("a", 4, 10) for _ in range(3)] == [None] * 3
    assert await second.enter("a", 4, 10) is None
    await settled(lambda: second.others.get("a", Tally())[:2] == (3, 3))
    await settled(lambda: first.others.get("a", Tally())[:2] == (1, 1))
    for counters in (first, second):
        refused = await counters.enter("a", 4, 10)
        assert refused is not None
        assert refused.kind == "rate"
        assert 50 < refused.retry_after_s <= 60
    assert await second.enter("b", 4, 10) is None
    first.leave("a")
    await settled(lambda: second.others["a"].ongoing == 2)


def test_replicas_share_an_actor_which_is_made_anew_when_it_ends(ray_cluster: None) -> None:
    import ray

    async def asked() -> None:
        first, second = SharedCounters(RayBoard()), SharedCounters(RayBoard())
        await share(first, second)
        ray.kill(ray.get_actor(ACTOR, namespace=NAMESPACE))
        first.leave("a")
        await settled(lambda: second.others.get("a", Tally())[:2] == (3, 1))
        assert not first.is_down

    try:
        asyncio.run(asked())
    finally:
        end_actor()
    end_actor()  # and once more, where there is none


def test_the_actor_ends_by_itself_when_nobody_asks(ray_cluster: None, monkeypatch: pytest.MonkeyPatch) -> None:
    import ray

    options = {"name": "llumi-idle", "namespace": NAMESPACE, "lifetime": "detached", "num_cpus": 0}
    actor = ray.remote(boards.Sheet).options(**options).remote(idle_s=0.2)
    ray.get(actor.exchange.remote("r", {}))
    actor.live.remote()
    end = time.monotonic() + 30
    while True:
        try:
            ray.get_actor("llumi-idle", namespace=NAMESPACE)
        except ValueError:
            break
        assert time.monotonic() < end
        time.sleep(0.1)


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """A Redis server of our own, and its address."""
    binary = shutil.which("redis-server")
    if binary is None:
        pytest.skip("redis-server (Debian's package of that name) is not installed")
    port = free_port()
    given = ["--bind", "127.0.0.1", "--save", "", "--dir", str(tmp_path), "--requirepass", PASSWORD]
    (tmp_path / "password").write_text(f"{PASSWORD}\n")
    command = [binary, "--port", str(port), *given]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    yield f"redis://127.0.0.1:{port}/0", server
    server.kill()
    server.wait()


async def reached(board: Board) -> None:
    """Return once the server answers."""
    for _ in range(100):
        try:
            await board.exchange("probe", {})
        except BoardDown:
            await asyncio.sleep(0.05)
        else:
            return
    raise AssertionError("Redis did not come up")


def test_replicas_share_a_redis_and_go_on_without_it(
    redis: tuple[str, subprocess.Popen[bytes]], tmp_path: Path
) -> None:
    (url, server), file = redis, str(tmp_path / "password")
    settings = AccessSettings(counters=url, counters_password_file=file)

    async def asked() -> None:
        await reached(RedisBoard(url, file))
        with pytest.raises(BoardDown, match="AuthenticationError"):
            await RedisBoard(url).exchange("stranger", {})
        first, second = (counters_of(settings) for _ in range(2))
        assert isinstance(first, SharedCounters)
        assert isinstance(second, SharedCounters)
        await share(first, second)
        server.kill()
        server.wait()
        second.leave("a")
        await settled(lambda: second.is_down)
        assert await second.enter("a", 4, 10) is None  # by its own count, there is room

    asyncio.run(asked())


def test_where_requests_are_counted_is_as_configured(tmp_path: Path) -> None:
    for counters in ("ray", "memory"):  # this process is no replica
        assert isinstance(counters_of(AccessSettings(counters=counters)), MemoryCounters)
    for wrong in ("file:///tmp/x", "redis://user:secret@host:6379/0", "redis://:secret@host"):
        with pytest.raises(ConfigError, match=r"choose ray, memory or redis.*counters_password_file") as caught:
            load("demo", [f"serving.access.counters={wrong}"])
        assert "secret" not in str(caught.value)
    assert load("demo", ["serving.access.counters=rediss://user@host:6379/0"]).serving.access.counters
