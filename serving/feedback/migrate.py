"""The schema, brought to what this version of the code knows; safe with any number of replicas at once.

One transaction holds a lock while it looks and changes: in SQLite the write lock of the file, in
PostgreSQL an advisory lock. Whoever comes second waits, looks, and finds the work done. DDL is
transactional in both, so a step that fails or is killed leaves the schema of before.
"""

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util.exc import CommandError
from sqlalchemy import Connection

from configs.errors import DataError, UsageError
from serving.feedback.database import Database

LOCK = 0x6C6C756D69  # "llumi"
"""Number of the advisory lock, the database's own."""
PATIENCE_S = 120
"""Seconds to wait for another process that migrates."""
HEAD, NOTHING = "head", "base"


def upgrade(database: Database) -> str | None:
    """Bring the schema to the newest step; returns that step where anything was done.

    Raises StoreAway, and DataError where a newer version of the code migrated the database.
    """
    database.make_file()
    scripts = ScriptDirectory.from_config(config())
    newest = scripts.get_current_head()
    with database.reading() as connection:
        if revision(connection) == newest:
            return None
    with database.writing() as connection:
        lock(connection, database.is_sqlite)
        before = revision(connection)
        if before == newest:
            return None
        if before is not None and before not in {step.revision for step in scripts.walk_revisions()}:
            raise DataError(
                f"the feedback store at {database.name} has the schema {before} of a newer version of llumi, this one"
                f" knows {newest}: run the newer one, or with it `llumi feedback migrate CONFIG --to {newest}`"
            )
        command.upgrade(config(connection), HEAD)
    return newest


def move(database: Database, step: str) -> None:
    """Bring the schema to any step, up or down; ``base`` drops everything. Raises UsageError for an unknown step."""
    scripts = ScriptDirectory.from_config(config())
    known = [found.revision for found in scripts.walk_revisions()]  # the newest first
    target = scripts.get_current_head() if step == HEAD else step
    if target not in (*known, NOTHING):
        raise UsageError(f"no schema {step}; there are: {', '.join(reversed(known))}, {HEAD}, {NOTHING}")
    database.make_file()
    with database.writing() as connection:
        lock(connection, database.is_sqlite)
        before = revision(connection)
        if before is not None and before not in known:
            raise DataError(
                f"the feedback store at {database.name} has the schema {before}, which only a newer llumi knows"
            )
        places = {None: len(known), NOTHING: len(known)} | {name: place for place, name in enumerate(known)}
        change = command.upgrade if places[target] < places[before] else command.downgrade
        change(config(connection), str(target))


def step_of(database: Database) -> str | None:
    """The schema's step, None for an empty database."""
    with database.reading() as connection:
        return revision(connection)


def revision(connection: Connection) -> str | None:
    """The step that a connection sees."""
    try:
        return MigrationContext.configure(connection).get_current_revision()
    except CommandError:
        raise DataError("the feedback store's schema has several heads; restore the database from a backup") from None


def lock(connection: Connection, is_sqlite: bool) -> None:
    """Wait until nobody else migrates; ends with the transaction."""
    if not is_sqlite:
        for setting in ("lock_timeout", "statement_timeout"):
            connection.exec_driver_sql(f"SET LOCAL {setting} = '{PATIENCE_S}s'")
        connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({LOCK})")


def config(connection: Connection | None = None) -> Config:
    """Alembic's settings: the steps that ship with the package."""
    made = Config()
    made.set_main_option("script_location", "serving.feedback:migrations")
    made.attributes["connection"] = connection
    return made
