"""How often a caller asked within a minute, and how many of its requests are in progress.

Rates are counted by the ``limits`` library in a moving window: no minute holds more than the
limit, wherever it starts. It does not know requests at once, so those are counted here.

Where the service has several ingress replicas, each decides by its own counts and by those of the
others as it last heard them (``serving.access.boards``), a tenth of a second ago under load. A
caller that asks two replicas within that time may get in once more than its limit; asking a third
process before each request would cost 1.3 to 2 ms of CPU, more than all else at the ingress.
"""

import asyncio
import logging
import time
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol
from uuid import uuid4

from limits.aio.storage import MemoryStorage

WINDOW_S = 60
"""Seconds that a rate is counted over."""
TIDY_EVERY_S = 1.0
"""Seconds between two clearances of what is older than the window."""
BUSY_RETRY_S = 1.0
"""Seconds that a caller with too many requests at once is asked to wait."""
EXCHANGE_EVERY_S = 0.1
"""Fewest seconds between two exchanges with the other replicas."""
HEARTBEAT_S = 1.0
"""Most seconds between two of them while anything is counted here."""

LOG = logging.getLogger("ray.serve")


class Tally(NamedTuple):
    """What is counted of one caller at one place."""

    hits: int = 0
    """Requests within the last minute."""
    ongoing: int = 0
    """Requests in progress."""
    frees_in_s: float = WINDOW_S
    """Seconds until the oldest of ``hits`` is a minute old."""


Tallies = dict[str, Tally]
"""By caller."""


@dataclass(frozen=True)
class Refused:
    """Why a request is not let in."""

    kind: Literal["rate", "concurrency"]
    """Which limit is reached."""
    retry_after_s: float
    """Seconds after which asking again may help."""


class Counters(Protocol):
    """Where requests are counted."""

    async def enter(self, caller: str, rate: int | None, concurrent: int | None) -> Refused | None:
        """Count one request against ``rate`` (a minute) and ``concurrent`` (at once); None as a limit = without.

        A request that is refused counts against neither. One that is let in must ``leave``.
        """

    def leave(self, caller: str) -> None:
        """A request that was let in ended."""


class Window(MemoryStorage):
    """The library's moving window, tidied up once a second: by itself it starts a thread for every request."""

    tidied = float("-inf")

    async def _MemoryStorage__schedule_expiry(self) -> None:
        if time.monotonic() - self.tidied > TIDY_EVERY_S:
            self.tidied = time.monotonic()
            await super()._MemoryStorage__schedule_expiry()  # type: ignore[misc]


class MemoryCounters:
    """Counts in this process."""

    def __init__(self) -> None:
        self.window = Window()
        self.ongoing: dict[str, int] = {}
        self.callers: dict[str, float] = {}
        """When each caller last asked."""

    async def enter(
        self, caller: str, rate: int | None, concurrent: int | None, elsewhere: Tally | None = None
    ) -> Refused | None:
        """See ``Counters``; what is counted ``elsewhere`` takes its part of the limits."""
        other = elsewhere or Tally()
        if concurrent is not None and self.ongoing.get(caller, 0) + other.ongoing >= concurrent:
            return Refused("concurrency", BUSY_RETRY_S)
        self.ongoing[caller] = self.ongoing.get(caller, 0) + 1  # before the await, so that nobody slips in
        if rate is not None:
            left = rate - other.hits
            if left < 1 or not await self.window.acquire_entry(caller, left, WINDOW_S):
                self.leave(caller)
                own = await self.tally(caller)
                return Refused("rate", min(own.frees_in_s, other.frees_in_s if other.hits else WINDOW_S))
        self.callers[caller] = time.monotonic()
        return None

    def leave(self, caller: str) -> None:
        """See ``Counters``."""
        left = self.ongoing.get(caller, 0) - 1
        if left > 0:
            self.ongoing[caller] = left
        else:
            self.ongoing.pop(caller, None)

    async def tally(self, caller: str) -> Tally:
        """What is counted of one caller."""
        oldest, hits = await self.window.get_moving_window(caller, 0, WINDOW_S)
        frees = max(0.0, oldest + WINDOW_S - time.time()) if hits else WINDOW_S
        return Tally(hits, self.ongoing.get(caller, 0), frees)

    async def tallies(self) -> Tallies:
        """What is counted of all who asked within the window or have a request in progress."""
        since = time.monotonic() - WINDOW_S
        for caller in [c for c, at in self.callers.items() if at < since and c not in self.ongoing]:
            del self.callers[caller]
        return {caller: await self.tally(caller) for caller in list(self.callers)}


class Board(Protocol):
    """Where replicas put up their counts for each other."""

    async def exchange(self, replica: str, own: Tallies) -> Tallies:
        """Put up one's own and read the sums of all others'; raises BoardDown."""


class BoardDown(Exception):
    """The other replicas' counts cannot be read."""


class SharedCounters:
    """Counts in this process, with those of the other replicas taken into account.

    Where those cannot be had, each replica goes on by its own counts alone: limits protect the
    service, and their failure must not take it down.
    """

    def __init__(self, board: Board):
        self.board, self.own = board, MemoryCounters()
        self.replica = uuid4().hex
        self.others: Tallies = {}
        self.changed = asyncio.Event()
        self.exchanging: asyncio.Task[None] | None = None
        self.is_down = False

    async def enter(self, caller: str, rate: int | None, concurrent: int | None) -> Refused | None:
        """See ``Counters``."""
        if self.exchanging is None or self.exchanging.done():
            self.exchanging = asyncio.get_running_loop().create_task(self.keep_exchanging())
        refused = await self.own.enter(caller, rate, concurrent, self.others.get(caller))
        self.changed.set()
        return refused

    def leave(self, caller: str) -> None:
        """See ``Counters``."""
        self.own.leave(caller)
        self.changed.set()

    async def keep_exchanging(self) -> None:
        """Exchange at once after a change, and now and then while anything is counted here."""
        while True:
            counted = await self.exchange()
            await asyncio.sleep(EXCHANGE_EVERY_S)
            try:
                async with asyncio.timeout(HEARTBEAT_S if counted else None):
                    await self.changed.wait()
            except TimeoutError:
                continue

    async def exchange(self) -> bool:
        """Exchange once; whether anything is counted here."""
        self.changed.clear()
        own = await self.own.tallies()
        try:
            self.others, is_down = await self.board.exchange(self.replica, own), False
        except BoardDown as error:
            self.others, is_down = {}, True
            if not self.is_down:
                LOG.error("callers' limits are kept by each replica alone: %s", error)
        if self.is_down and not is_down:
            LOG.info("callers' limits are kept by all replicas together again")
        self.is_down = is_down
        return bool(own)
