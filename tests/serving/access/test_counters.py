"""Limits of a caller: in one process, and over several replicas that tell each other."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from serving.access import counters as counters_module
from serving.access.boards import Sheet, summed
from serving.access.counters import BoardDown, MemoryCounters, Refused, SharedCounters, Tallies, Tally


def test_a_minute_holds_no_more_than_the_limit() -> None:
    async def asked() -> list[Refused | None]:
        counters = MemoryCounters()
        return [await counters.enter("a", 3, None) for _ in range(5)]

    answers = asyncio.run(asked())
    assert answers[:3] == [None] * 3
    for refused in answers[3:]:
        assert refused is not None
        assert refused.kind == "rate"
        assert 55 < refused.retry_after_s <= 60


def test_the_window_moves(monkeypatch: pytest.MonkeyPatch) -> None:
    import time

    now = [time.time()]
    monkeypatch.setattr("time.time", lambda: now[0])

    async def asked() -> None:
        counters = MemoryCounters()
        for wait in (0, 20, 20):
            now[0] += wait
            assert await counters.enter("a", 3, None) is None
        refused = await counters.enter("a", 3, None)
        assert refused is not None
        assert refused.retry_after_s == pytest.approx(20, abs=0.1)
        now[0] += 20.1  # the first is a minute old now, the others are not
        assert await counters.enter("a", 3, None) is None
        assert await counters.enter("a", 3, None) is not None

    asyncio.run(asked())


def test_requests_at_once_are_limited_and_ended_ones_make_room() -> None:
    async def asked() -> None:
        counters = MemoryCounters()
        assert [await counters.enter("a", None, 2) for _ in range(2)] == [None, None]
        refused = await counters.enter("a", None, 2)
        assert refused is not None
        assert refused.kind == "concurrency"
        counters.leave("a")
        assert await counters.enter("a", None, 2) is None

    asyncio.run(asked())


def test_a_refused_request_counts_for_nothing() -> None:
    async def asked() -> None:
        counters = MemoryCounters()
        for _ in range(10):
            await counters.enter("a", 2, 5)
        assert await counters.tally("a") == Tally(2, 2, pytest.approx(60, abs=5))
        for _ in range(10):
            await counters.enter("b", 100, 1)
        assert (await counters.tally("b"))[:2] == (1, 1)

    asyncio.run(asked())


def test_callers_do_not_use_up_each_others_limits() -> None:
    async def asked() -> None:
        counters = MemoryCounters()
        assert await counters.enter("a", 1, 1) is None
        assert await counters.enter("b", 1, 1) is None
        assert await counters.enter("a", 1, 1) is not None

    asyncio.run(asked())


def test_old_hits_are_cleared_now_and_then_and_not_at_every_request(monkeypatch: pytest.MonkeyPatch) -> None:
    import time

    hops: list[object] = []
    to_thread = asyncio.to_thread

    async def watched(*arguments: Any) -> Any:
        hops.append(arguments)
        return await to_thread(*arguments)

    async def asked() -> None:
        counters = MemoryCounters()
        monkeypatch.setattr("asyncio.to_thread", watched)
        for _ in range(50):
            await counters.enter("a", 1000, None)
            await asyncio.sleep(0)
        assert len(hops) <= 5
        wall, monotonic = time.time, time.monotonic
        monkeypatch.setattr("time.time", lambda: wall() + 61)
        monkeypatch.setattr("time.monotonic", lambda: monotonic() + 61)
        await counters.enter("b", 1000, None)
        await settled(lambda: "a" not in counters.window.events)

    asyncio.run(asked())


async def settled(condition: Callable[[], bool | Awaitable[bool]]) -> None:
    for _ in range(200):
        found = condition()
        if found if isinstance(found, bool) else await found:
            return
        await asyncio.sleep(0.02)
    raise AssertionError("did not come true in time")


def test_replicas_know_of_each_others_requests() -> None:
    async def asked() -> None:
        sheet = Sheet()
        first, second = SharedCounters(sheet), SharedCounters(sheet)
        for _ in range(3):
            assert await first.enter("a", 5, 4) is None
        assert await second.enter("a", 5, 4) is None
        await settled(lambda: second.others.get("a", Tally()).ongoing == 3)
        refused = await second.enter("a", 5, 4)
        assert refused is not None
        assert refused.kind == "concurrency"
        first.leave("a")
        await settled(lambda: second.others["a"].ongoing == 2)
        assert await second.enter("a", 5, 4) is None  # the fifth of this minute
        for _ in range(3):
            second.leave("a")
        refused = await second.enter("a", 5, 4)
        assert refused is not None
        assert refused.kind == "rate"
        assert 50 < refused.retry_after_s <= 60
        await settled(lambda: first.others.get("a", Tally()).hits == 2)
        refused = await first.enter("a", 5, 4)
        assert refused is not None
        assert refused.kind == "rate"

    asyncio.run(asked())


def test_a_replica_that_falls_silent_holds_nothing_back_for_long() -> None:
    tallies = {"a": Tally(hits=4, ongoing=2, frees_in_s=50)}
    assert summed([(1.0, tallies)])["a"] == Tally(4, 2, 49)
    assert summed([(4.0, tallies)])["a"] == Tally(4, 0, 46)
    assert summed([(61.0, tallies)])["a"] == Tally(0, 0, 60)
    assert summed([(1.0, tallies), (2.0, {"a": Tally(1, 1, 10)})])["a"] == Tally(5, 3, 8)


class Broken:
    """A board that is not there, until it is."""

    def __init__(self) -> None:
        self.sheet: Sheet | None = None
        self.asked = 0

    async def exchange(self, replica: str, own: Tallies) -> Tallies:
        self.asked += 1
        if self.sheet is None:
            raise BoardDown("not there")
        return await self.sheet.exchange(replica, own)


def test_without_the_others_each_replica_keeps_the_limits_by_itself(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(counters_module, "EXCHANGE_EVERY_S", 0.01)

    async def asked() -> None:
        board = Broken()
        counters = SharedCounters(board)
        assert await counters.enter("a", 2, None) is None
        await settled(lambda: counters.is_down)
        assert await counters.enter("a", 2, None) is None
        assert await counters.enter("a", 2, None) is not None
        await settled(lambda: board.asked > 1)
        board.sheet = Sheet()
        counters.leave("a")
        await settled(lambda: not counters.is_down)

    with caplog.at_level("INFO", logger="ray.serve"):
        asyncio.run(asked())
    told = [record.getMessage() for record in caplog.records]
    assert len([line for line in told if "by each replica alone" in line]) == 1
    assert len([line for line in told if "together again" in line]) == 1


def test_what_is_over_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    import time

    now = [time.monotonic()]

    async def asked() -> None:
        counters = MemoryCounters()
        for caller in ("a", "b"):
            await counters.enter(caller, 5, 5)
        counters.leave("a")
        monkeypatch.setattr("time.monotonic", lambda: now[0] + 61)
        assert set(await counters.tallies()) == {"b"}  # still in progress
        counters.leave("b")
        assert set(await counters.tallies()) == set()
        assert not counters.ongoing

    asyncio.run(asked())
