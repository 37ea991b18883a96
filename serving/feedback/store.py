"""Answers kept and feedback taken, off the event loop; a store that fails costs feedback, never an answer.

    store = FeedbackStore.of(settings)          # settings.resolved(output)
    await store.record(request_id="...", kind="generate", model="gm", ...)    # never raises
    await store.rate(request_id, key_id, {"empathy": 4, ...})                 # raises FeedbackError
    store.close()

Records go through a queue in memory to one thread, which writes what has gathered in one
transaction. An answer waits for its record a moment, so that feedback on it finds it; where the
database is away it does not wait at all, and the queue is written once the database is back.
The queue is not put on disk: words would then lie where neither retention nor ``llumi forget``
reaches. So a replica that is killed while the database is away takes its queue with it. Feedback
is never queued: whoever gives it is told whether it is kept.
"""

import asyncio
import contextlib
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path
from typing import Any, Self, TypeVar

from sqlalchemy import Connection
from sqlalchemy.exc import IntegrityError

from configs.errors import LlumiError
from configs.store import StoreSettings
from configs.training import ModelName
from serving.feedback import migrate, statements
from serving.feedback.crypt import Keys
from serving.feedback.database import REFUSED, Database
from serving.feedback.records import Answer, Feedback, Kind, StoreAway, Texts, UnknownRequest

log = logging.getLogger("llumi.feedback")
T = TypeVar("T")
BATCH = 256
"""Most records in one transaction."""
AGAIN_S = (0.5, 5.0)
"""Seconds before a database that is away is tried again, at first and at most."""
PURGE_EVERY_S = 3600.0
"""Seconds between two looks for what is past its days."""
THREADS = 4
"""Feedback that is written at once, a replica."""


def now() -> datetime:
    """UTC as the tables hold it."""
    return datetime.now(UTC).replace(tzinfo=None)


class FeedbackStore:
    """The store of one process."""

    def __init__(self, settings: StoreSettings):
        """Takes settings whose ``url`` is set; connects to nothing yet, raises nothing about the database."""
        assert settings.url is not None
        self.settings = settings
        self.database = Database(settings.url, settings.timeout_s)
        self.waiting: deque[tuple[Answer, Future[None]]] = deque()
        self.lost = 0
        """Records that were given up."""
        self.is_away = False
        """The last attempt to write failed."""
        self._keys: Keys | None = None
        self._is_ready = False
        self._preparing = threading.Lock()
        self._change = threading.Condition()
        self._ending = False
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="feedback")
        self._writer = threading.Thread(target=self._run, name="feedback-writer", daemon=True)
        self._writer.start()

    @classmethod
    def of(cls, settings: StoreSettings) -> Self | None:
        """The store that the settings ask for; None where it is switched off, or no database is named."""
        if settings.enabled and settings.url is None:
            log.warning("feedback: serving.feedback.url names no database, so nothing is kept")
        return cls(settings) if settings.enabled and settings.url is not None else None

    async def record(
        self,
        *,
        request_id: str,
        kind: Kind,
        model: ModelName,
        version: str | None,
        key_id: str,
        risk: str,
        drafts: int = 1,
        post_id: str | None = None,
        texts: Texts | None = None,
    ) -> None:
        """Keep that an answer was given; returns when it is written, or after ``wait_s`` seconds. Never raises."""
        texts = texts if self.settings.keep_text else None
        answer = Answer(request_id, key_id, kind, model, version or "", risk, drafts, post_id, now(), texts)
        written: Future[None] = Future()
        with self._change:
            if self._ending:
                return
            if len(self.waiting) >= self.settings.max_waiting:
                self.waiting.popleft()[1].set_result(None)
                self._give_up(1, "the database is away for longer than max_waiting records")
            self.waiting.append((answer, written))
            self._change.notify_all()
        if not self.is_away:
            await asyncio.wait([asyncio.wrap_future(written)], timeout=self.settings.wait_s)

    async def rate(
        self,
        request_id: str,
        key_id: str,
        ratings: Mapping[str, int],
        *,
        index: int | None = None,
        rater: str | None = None,
    ) -> Feedback:
        """Keep a rating, 1 to 5 by dimension, of one draft; raises FeedbackError. The same again changes nothing."""
        rater_id = rater_of(key_id, rater)

        def write(connection: Connection) -> Feedback:
            answer = statements.find(connection, request_id, key_id, self.settings.raters)
            when = now()
            draft = statements.rate(connection, answer, rater_id, ratings, index, when)
            return Feedback(request_id, draft, rater_id, dict(ratings), when)

        return await self._apart(request_id, write)

    async def choose(self, request_id: str, key_id: str, chosen_index: int, *, rater: str | None = None) -> Feedback:
        """Keep which draft was chosen, from 0; raises FeedbackError. The same again changes nothing."""
        rater_id = rater_of(key_id, rater)

        def write(connection: Connection) -> Feedback:
            answer = statements.find(connection, request_id, key_id, self.settings.raters)
            when = now()
            draft = statements.choose(connection, answer, rater_id, chosen_index, when)
            return Feedback(request_id, draft, rater_id, None, when)

        return await self._apart(request_id, write)

    async def _apart(self, request_id: str, write: Callable[[Connection], T]) -> T:
        """A transaction in a thread, after the records that wait here."""
        if self._ending or self.is_away:  # the writer looks every few seconds whether it is still away
            raise StoreAway("the feedback store is away")

        def run() -> T:
            self._flushed(self.settings.timeout_s)
            self._ready()
            try:
                with self.database.writing() as connection:
                    return write(connection)
            except IntegrityError:  # the answer went in between
                raise UnknownRequest from None
            except UnknownRequest:
                if self._waits(request_id):
                    raise StoreAway("the answer is not written yet") from None
                raise

        return await asyncio.get_running_loop().run_in_executor(self._pool, run)

    def _waits(self, request_id: str) -> bool:
        with self._change:
            return any(answer.request_id == request_id for answer, _ in self.waiting)

    def close(self, timeout_s: float | None = None) -> None:
        """Write what waits, as far as ``timeout_s`` allows, and end."""
        with self._change:
            self._ending = True
            self._change.notify_all()
        self._writer.join(self.settings.timeout_s if timeout_s is None else timeout_s)
        if self.waiting:
            self._give_up(len(self.waiting), "the process ends")
        self._pool.shutdown(wait=False, cancel_futures=True)
        self.database.close()

    # The writer's thread.

    def _run(self) -> None:
        pause, purge_at = AGAIN_S[0], time.monotonic()
        while True:
            with self._change:
                self._change.wait_for(lambda: self.waiting or self._ending, max(0, purge_at - time.monotonic()))
                batch, ending = list(islice(self.waiting, BATCH)), self._ending
            try:
                if batch:
                    self._write([answer for answer, _ in batch])
                elif not ending:
                    self._purge()
                    purge_at = time.monotonic() + PURGE_EVERY_S
            except Exception as error:  # whatever it is, this thread must go on
                self._say_away(error)
                with self._change:
                    if self._change.wait_for(lambda: self._ending, pause):
                        return  # nothing more can be done for what waits
                pause = min(2 * pause, AGAIN_S[1])
                continue
            pause = AGAIN_S[0]
            self._say_back()
            self._done(batch)
            if ending and not self.waiting:
                return

    def _write(self, batch: list[Answer]) -> None:
        """All of them, or none and StoreAway; one that the database refuses is given up alone."""
        self._ready()
        rows = [(answer, self._seal(answer)) for answer in batch]
        try:
            with self.database.writing() as connection:
                statements.keep(connection, rows)
        except REFUSED:
            for row in rows:
                try:
                    with self.database.writing() as connection:
                        statements.keep(connection, [row])
                except REFUSED as error:
                    self._give_up(1, f"the database refuses it ({type(error.orig).__name__})")

    def _seal(self, answer: Answer) -> bytes | None:
        return None if answer.texts is None or self._keys is None else self._keys.seal(answer.texts)

    def _purge(self) -> None:
        self._ready()
        with self.database.writing() as connection:
            gone = statements.purge(connection, oldest(self.settings))
        if gone:
            log.info("feedback: %d answers were past their days and are gone", gone)

    def _ready(self) -> None:
        """The schema migrated and the keys read, once; again after a failure. Raises StoreAway."""
        with self._preparing:
            if self._is_ready:
                return
            try:
                self._prepare()
            except LlumiError as error:
                raise StoreAway(str(error)) from None
            self._is_ready = True

    def _prepare(self) -> None:
        if step := migrate.upgrade(self.database):
            log.info("feedback: the schema is now %s", step)
        if self.settings.keep_text and self.settings.key_file is not None:
            self._keys = Keys(Path(self.settings.key_file))

    def _flushed(self, timeout_s: float) -> None:
        """Wait until what waits now is written; StoreAway at once where the database is away."""
        with self._change:
            last = self.waiting[-1][1] if self.waiting else None
        if last is None or self.is_away:
            return
        with contextlib.suppress(TimeoutError):
            last.result(timeout_s)

    def _done(self, batch: list[tuple[Answer, Future[Any]]]) -> None:
        written = {id(future) for _, future in batch}
        with self._change:
            # A full queue may have lost its oldest, which are the first of the batch, in the meantime.
            while self.waiting and id(self.waiting[0][1]) in written:
                self.waiting.popleft()
        for _, future in batch:
            if not future.done():
                future.set_result(None)

    def _say_away(self, error: Exception) -> None:
        self._is_ready = False
        if not self.is_away:
            # Of an error that is not ours the type alone: its message may hold what was to be written.
            why = str(error) if isinstance(error, StoreAway) else type(error).__name__
            log.warning("feedback: %s; answers go on, their records wait", why)
        self.is_away = True

    def _say_back(self) -> None:
        if self.is_away:
            log.warning("feedback: the store is back")
        self.is_away = False

    def _give_up(self, records: int, why: str) -> None:
        self.lost += records
        if self.lost == records or self.lost % 1000 == 0:
            log.error("feedback: %d records are lost so far: %s", self.lost, why)


def rater_of(key_id: str, rater: str | None) -> str:
    """Who rates: the key, or one of the people behind it by the name that the caller has for them."""
    return key_id if rater is None else f"{key_id}/{rater}"


def oldest(settings: StoreSettings) -> datetime:
    """What was given before this is past its days."""
    return now() - timedelta(days=settings.retention_days)
