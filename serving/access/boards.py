"""Where the ingress replicas put up their counts for each other: an actor on the cluster, or Redis.

A count is put up whole and not as a change, so nothing is lost or counted twice where a message is.
A replica that dies stops putting up: its requests in progress are forgotten within seconds, its
part of the rates within a minute.
"""

import asyncio
import json
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from configs.access import AccessSettings
from configs.errors import UsageError
from serving.access.counters import (
    HEARTBEAT_S,
    WINDOW_S,
    BoardDown,
    Counters,
    MemoryCounters,
    SharedCounters,
    Tallies,
    Tally,
)
from serving.deployed import in_replica

ACTOR, NAMESPACE = "llumi-counters", "llumi"
IDLE_S = 600.0
"""Seconds without a call after which the actor ends."""
ANSWER_S = 2.0
"""Seconds that the board has to answer."""
DEAD_AFTER_S = 3 * HEARTBEAT_S
"""Seconds of silence after which a replica has no requests in progress any more."""
Report = tuple[float, Tallies]
"""Seconds ago, and what was put up."""


def counters_of(settings: AccessSettings) -> Counters:
    """The counters that the configuration asks for; ``ray`` outside of a Serve replica counts in this process."""
    if settings.counters.startswith("redis"):
        return SharedCounters(RedisBoard(settings.counters, settings.counters_password_file))
    if settings.counters == "ray" and in_replica():
        return SharedCounters(RayBoard())
    return MemoryCounters()


def summed(reports: Iterable[Report]) -> Tallies:
    """All reports added up by caller; of a silent replica only what may still matter."""
    total: Tallies = {}
    for age, tallies in reports:
        for caller, tally in tallies.items():
            hits = tally.hits if age < WINDOW_S else 0
            ongoing = tally.ongoing if age < DEAD_AFTER_S else 0
            frees = max(0.0, tally.frees_in_s - age) if hits else WINDOW_S
            before = total.get(caller, Tally())
            total[caller] = Tally(before.hits + hits, before.ongoing + ongoing, min(before.frees_in_s, frees))
    return total


class Sheet:
    """What runs in the actor: the newest report of each replica."""

    def __init__(self, idle_s: float = IDLE_S) -> None:
        self.reports: dict[str, tuple[float, Tallies]] = {}
        self.idle_s, self.asked = idle_s, time.monotonic()

    async def exchange(self, replica: str, own: Tallies) -> Tallies:
        """See ``Board``."""
        now = self.asked = time.monotonic()
        self.reports[replica] = now, own
        self.reports = {name: report for name, report in self.reports.items() if now - report[0] < WINDOW_S}
        return summed((now - at, tallies) for name, (at, tallies) in self.reports.items() if name != replica)

    async def live(self) -> None:
        """Returns, and ends the actor, once nobody asks any more."""
        import ray

        while (left := self.asked + self.idle_s - time.monotonic()) > 0:
            await asyncio.sleep(left)
        ray.actor.exit_actor()


class RayBoard:
    """The sheet in an actor that belongs to nobody in particular and is made by whoever asks first."""

    def __init__(self) -> None:
        self.actor: Any = None

    async def exchange(self, replica: str, own: Tallies) -> Tallies:
        """See ``Board``; an actor that ended is made anew, once."""
        from ray.exceptions import RayActorError, RayError

        try:
            try:
                return await self.asked(replica, own)
            except RayActorError:
                self.actor = None
                return await self.asked(replica, own)
        except (RayError, TimeoutError, ValueError) as error:
            self.actor = None
            raise BoardDown(f"the actor {ACTOR} does not answer ({type(error).__name__})") from error

    async def asked(self, replica: str, own: Tallies) -> Tallies:
        """What the actor answers."""
        if self.actor is None:
            self.actor = await asyncio.to_thread(found_or_made)
        async with asyncio.timeout(ANSWER_S):
            others: Tallies = await self.actor.exchange.remote(replica, own)
        return others


def found_or_made() -> Any:
    """The actor, which is made where it is not there."""
    import ray

    options = {"name": ACTOR, "namespace": NAMESPACE, "get_if_exists": True, "lifetime": "detached", "num_cpus": 0}
    actor = ray.remote(Sheet).options(**options).remote()
    actor.live.remote()
    return actor


class RedisBoard:
    """The newest report of each replica in a hash, with times of Redis' own clock."""

    PUT_UP = """
    local now = redis.call('TIME')
    now = now[1] + now[2] / 1e6
    redis.call('HSET', KEYS[1], ARGV[1], cjson.encode({now, ARGV[2]}))
    redis.call('EXPIRE', KEYS[1], 2 * ARGV[3])
    local reports = {}
    local all = redis.call('HGETALL', KEYS[1])
    for i = 1, #all, 2 do
        local report = cjson.decode(all[i + 1])
        if now - report[1] >= tonumber(ARGV[3]) then redis.call('HDEL', KEYS[1], all[i])
        elseif all[i] ~= ARGV[1] then table.insert(reports, {tostring(now - report[1]), report[2]}) end
    end
    return reports
    """

    def __init__(self, url: str, password_file: str | None = None):
        try:
            from redis.asyncio import Redis
        except ImportError:
            raise UsageError("serving.access.counters=redis://... needs `pip install llumi[redis]`") from None
        password = None if password_file is None else Path(password_file).read_text(encoding="utf-8").strip()
        self.redis = Redis.from_url(url, password=password, socket_timeout=ANSWER_S, socket_connect_timeout=ANSWER_S)
        self.put_up = self.redis.register_script(self.PUT_UP)

    async def exchange(self, replica: str, own: Tallies) -> Tallies:
        """See ``Board``."""
        from redis.exceptions import RedisError

        try:
            reports = await self.put_up(keys=["llumi:counters"], args=[replica, json.dumps(own), WINDOW_S])
        except (RedisError, OSError, TimeoutError) as error:
            raise BoardDown(f"Redis does not answer ({type(error).__name__})") from error
        return summed(
            (float(age), {caller: Tally(*tally) for caller, tally in json.loads(tallies).items()})
            for age, tallies in reports
        )


def end_actor() -> None:
    """End the actor where there is one."""
    import ray

    try:
        ray.kill(ray.get_actor(ACTOR, namespace=NAMESPACE))
    except ValueError:
        return
