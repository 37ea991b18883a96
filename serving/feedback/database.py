"""The database under the store: how it is opened, migrated and written to, SQLite and PostgreSQL alike.

Every transaction that writes takes SQLite's write lock at its start (``BEGIN IMMEDIATE``): one
that begins by reading and then wants to write is refused at once where another was quicker, and
no time to wait helps it. What cannot be had within ``timeout_s`` ends in ``StoreAway``, with
nothing changed; no message shows a statement's values.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event, make_url
from sqlalchemy.exc import DataError, DBAPIError, IntegrityError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from serving.feedback.records import StoreAway

REFUSED = (IntegrityError, DataError)
"""Errors that lie in the row and not in the database: trying again does not help."""
POOL = 8
"""Most connections of one process."""


class Database:
    """One database, by URL; connects when it is first needed."""

    def __init__(self, url: str, timeout_s: float):
        self.url = make_url(url)
        self.timeout_s = timeout_s
        self.is_sqlite = self.url.get_backend_name() == "sqlite"
        self.engine = self._engine()

    def _engine(self) -> Engine:
        common: dict[str, Any] = {"hide_parameters": True, "pool_size": POOL, "max_overflow": 0}
        common |= {"pool_timeout": self.timeout_s}
        if self.is_sqlite:
            engine = create_engine(self.url, connect_args={"timeout": self.timeout_s}, **common)
            event.listen(engine, "connect", self._prepare)
            event.listen(engine, "begin", begin)
            return engine
        milliseconds = int(1000 * self.timeout_s)
        arguments = {
            "connect_timeout": max(2, round(self.timeout_s)),  # libpq takes 1 for 2
            "tcp_user_timeout": milliseconds,
            "options": f"-c statement_timeout={milliseconds} -c lock_timeout={milliseconds}",
        }
        return create_engine(self.url, connect_args=arguments, pool_pre_ping=True, **common)

    def _prepare(self, connection: Any, _record: object) -> None:
        connection.isolation_level = None  # transactions are begun by ``begin`` and not by the driver
        for pragma in (
            "journal_mode = WAL",  # readers and a writer at once
            "synchronous = FULL",  # what was committed outlives a power cut
            "foreign_keys = ON",
            "secure_delete = ON",  # what is deleted is overwritten
        ):
            connection.execute(f"PRAGMA {pragma}")

    @property
    def file(self) -> Path | None:
        """SQLite's file."""
        return Path(str(self.url.database)) if self.is_sqlite else None

    def is_made(self) -> bool:
        """False for a SQLite file that is not there: nothing was ever kept."""
        return self.file is None or self.file.is_file()

    def make_file(self) -> None:
        """SQLite's file, for its owner only; SQLite gives those beside it the same mode."""
        if self.file is not None and not self.file.exists():
            try:
                self.file.parent.mkdir(parents=True, exist_ok=True)
                os.close(os.open(self.file, os.O_CREAT | os.O_WRONLY, 0o600))
            except OSError as error:
                raise StoreAway(f"{self.file.parent}: cannot hold the feedback store: {error.strerror}") from None

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """A transaction that is committed where the block ends well; raises StoreAway."""
        with self.explained(), self.engine.begin() as connection:
            yield connection

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """A transaction that changes nothing and holds up no writer; raises StoreAway."""
        with self.explained(), self.engine.connect().execution_options(reading=True) as connection:
            yield connection

    @contextmanager
    def explained(self) -> Iterator[None]:
        """What the driver raises as ``StoreAway``, but for what lies in the row."""
        try:
            yield
        except REFUSED:
            raise
        except (SQLAlchemyError, PoolTimeout) as error:
            raise StoreAway(f"the feedback store at {self.name} fails: {reason(error)}") from None

    @property
    def name(self) -> str:
        """Where it is, without who connects."""
        return str(self.file) if self.is_sqlite else f"{self.url.host or 'local'}:{self.url.port or 5432}"

    def tidy(self) -> None:
        """After much was deleted: leave none of it in files that only the database reads."""
        with self.explained():
            connection = self.engine.raw_connection()
            try:
                driver: Any = connection.driver_connection
                if self.is_sqlite:
                    driver.execute("PRAGMA wal_checkpoint(TRUNCATE)")
                else:
                    driver.autocommit = True
                    driver.execute("SET statement_timeout = 0")
                    driver.execute("VACUUM answers, ratings, choices")
            finally:
                connection.invalidate()  # do not hand its settings on
                connection.close()

    def close(self) -> None:
        """Give every connection back."""
        self.engine.dispose()


def begin(connection: Connection) -> None:
    """SQLite's transactions, see above."""
    is_reading = connection.get_execution_options().get("reading", False)
    connection.exec_driver_sql("BEGIN" if is_reading else "BEGIN IMMEDIATE")


def reason(error: Exception) -> str:
    """Why a driver failed: its own class and, of SQLite and PostgreSQL, the name or code of the error."""
    original = error.orig if isinstance(error, DBAPIError) and error.orig is not None else error
    code = getattr(original, "sqlite_errorname", None) or getattr(original, "sqlstate", None)
    return f"{type(original).__name__} ({code})" if code else type(original).__name__
