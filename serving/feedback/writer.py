"""The records that wait to be written, and the one thread that writes them.

It writes what has gathered in one transaction, tries again where the database is away, and looks
every hour for what is past its days. While the database is away the records wait in memory, the
newest of them where there are too many.
"""

import contextlib
import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from itertools import islice

from serving.feedback.records import Answer, StoreAway

log = logging.getLogger("llumi.feedback")
BATCH = 256
"""Most records in one transaction."""
AGAIN_S = (0.5, 5.0)
"""Seconds before a database that is away is tried again, at first and at most."""
PURGE_EVERY_S = 3600.0
"""Seconds between two looks for what is past its days."""


class Writer:
    """A queue in memory and its thread.

    ``write`` keeps a batch whole or raises; ``purge`` removes what is past its days; ``failed`` is
    told after either of them raised.
    """

    def __init__(
        self,
        most: int,
        *,
        write: Callable[[list[Answer]], None],
        purge: Callable[[], None],
        failed: Callable[[], None],
    ):
        self.most, self._write, self._purge, self._failed = most, write, purge, failed
        self.waiting: deque[tuple[Answer, Future[None]]] = deque()
        self.lost = 0
        """Records that were given up."""
        self.is_away = False
        """The last attempt failed."""
        self.is_ending = False
        self._change = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="feedback-writer", daemon=True)
        self._thread.start()

    def add(self, answer: Answer) -> Future[None] | None:
        """Take a record; the future ends when it is written or given up. None where the process ends."""
        written: Future[None] = Future()
        with self._change:
            if self.is_ending:
                return None
            if len(self.waiting) >= self.most:
                self.waiting.popleft()[1].set_result(None)
                self.give_up(1, "the database is away for longer than max_waiting records")
            self.waiting.append((answer, written))
            self._change.notify_all()
        return written

    def holds(self, request_id: str) -> bool:
        """Whether a record of this request waits."""
        with self._change:
            return any(answer.request_id == request_id for answer, _ in self.waiting)

    def flush(self, timeout_s: float) -> None:
        """Wait until what waits now is written, or ``timeout_s`` seconds; not at all where the database is away."""
        with self._change:
            last = self.waiting[-1][1] if self.waiting else None
        if last is not None and not self.is_away:
            with contextlib.suppress(TimeoutError):
                last.result(timeout_s)

    def close(self, timeout_s: float) -> None:
        """Write what waits, as far as ``timeout_s`` allows, and end."""
        with self._change:
            self.is_ending = True
            self._change.notify_all()
        self._thread.join(timeout_s)
        if self.waiting:
            self.give_up(len(self.waiting), "the process ends")

    def give_up(self, records: int, why: str) -> None:
        """Count records that are lost, and say so now and then."""
        self.lost += records
        if self.lost == records or self.lost % 1000 == 0:
            log.error("feedback: %d records are lost so far: %s", self.lost, why)

    def _run(self) -> None:
        pause, purge_at = AGAIN_S[0], time.monotonic()
        while True:
            with self._change:
                self._change.wait_for(lambda: self.waiting or self.is_ending, max(0, purge_at - time.monotonic()))
                batch, ending = list(islice(self.waiting, BATCH)), self.is_ending
            try:
                if batch:
                    self._write([answer for answer, _ in batch])
                    self._done(batch)
                if time.monotonic() >= purge_at and not ending:
                    self._purge()
                    purge_at = time.monotonic() + PURGE_EVERY_S
            except Exception as error:  # whatever it is, this thread must go on
                self._say_away(error)
                with self._change:
                    if self._change.wait_for(lambda: self.is_ending, pause):
                        return  # nothing more can be done for what waits
                pause = min(2 * pause, AGAIN_S[1])
                continue
            pause = AGAIN_S[0]
            self._say_back()
            if ending and not self.waiting:
                return

    def _done(self, batch: list[tuple[Answer, Future[None]]]) -> None:
        written = {id(future) for _, future in batch}
        with self._change:
            # A full queue may have lost its oldest, which are the first of the batch, in the meantime.
            while self.waiting and id(self.waiting[0][1]) in written:
                self.waiting.popleft()
        for _, future in batch:
            if not future.done():
                future.set_result(None)

    def _say_away(self, error: Exception) -> None:
        self._failed()
        if not self.is_away:
            # Of an error that is not ours the type alone: its message may hold what was to be written.
            why = str(error) if isinstance(error, StoreAway) else type(error).__name__
            log.warning("feedback: %s; answers go on, their records wait", why)
        self.is_away = True

    def _say_back(self) -> None:
        if self.is_away:
            log.warning("feedback: the store is back")
        self.is_away = False
