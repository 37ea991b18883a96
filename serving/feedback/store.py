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
import logging
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Self, TypeVar

from sqlalchemy import Connection
from sqlalchemy.exc import IntegrityError

from configs.errors import LlumiError
from configs.store import StoreSettings
from configs.training import ModelName
from serving.feedback import migrate, statements
from serving.feedback.crypt import Keys
from serving.feedback.database import REFUSED, Database
from serving.feedback.records import Answer, Feedback, Kind, StoreAway, Texts, UnknownRequest
from serving.feedback.writer import Writer

log = logging.getLogger("llumi.feedback")
T = TypeVar("T")
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
        self._keys: Keys | None = None
        self._is_ready = False
        self._preparing = threading.Lock()
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="feedback")
        self.writer = Writer(settings.max_waiting, write=self._write, purge=self._purge, failed=self._unready)

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
        written = self.writer.add(answer)
        if written is not None and not self.writer.is_away:
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
        if self.writer.is_ending or self.writer.is_away:  # the writer looks every few seconds whether it is still away
            raise StoreAway("the feedback store is away")

        def run() -> T:
            self.writer.flush(self.settings.timeout_s)
            self._ready()
            try:
                with self.database.writing() as connection:
                    return write(connection)
            except IntegrityError:  # the answer went in between
                raise UnknownRequest from None
            except UnknownRequest:
                if self.writer.holds(request_id):
                    raise StoreAway("the answer is not written yet") from None
                raise

        return await asyncio.get_running_loop().run_in_executor(self._pool, run)

    def close(self, timeout_s: float | None = None) -> None:
        """Write what waits, as far as ``timeout_s`` allows, and end."""
        self.writer.close(self.settings.timeout_s if timeout_s is None else timeout_s)
        self._pool.shutdown(wait=False, cancel_futures=True)
        self.database.close()

    # What the writer's thread does.

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
                    self.writer.give_up(1, f"the database refuses it ({type(error.orig).__name__})")

    def _seal(self, answer: Answer) -> bytes | None:
        return None if answer.texts is None or self._keys is None else self._keys.seal(answer.texts)

    def _purge(self) -> None:
        self._ready()
        gone, part = 0, statements.AT_ONCE
        while part == statements.AT_ONCE:
            with self.database.writing() as connection:
                part = statements.purge(connection, oldest(self.settings))
            gone += part
        if gone:
            log.info("feedback: %d answers were past their days and are gone", gone)

    def _unready(self) -> None:
        self._is_ready = False

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


def rater_of(key_id: str, rater: str | None) -> str:
    """Who rates: the key, or one of the people behind it by the name that the caller has for them."""
    return key_id if rater is None else f"{key_id}/{rater}"


def oldest(settings: StoreSettings) -> datetime:
    """What was given before this is past its days."""
    return now() - timedelta(days=settings.retention_days)
