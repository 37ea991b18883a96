"""``llumi feedback export|purge|rotate|migrate|key``: the feedback store, looked after by hand."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import psutil
from rich.console import Console

from configs.errors import DataError, UsageError
from configs.settings import Settings
from pipelines.layout import Layout
from serving.feedback import migrate as schema
from serving.feedback import statements
from serving.feedback.crypt import Keys, add_key
from serving.feedback.database import Database
from serving.feedback.export import Exported
from serving.feedback.export import export as export_ratings
from serving.feedback.records import StoreAway
from serving.feedback.store import now

FILE = "served.jsonl"
NETWORKS = ("nfs", "cifs", "smb", "9p", "afs", "ceph", "lustre", "glusterfs", "fuse.gcs", "fuse.s3", "fuse.gluster")
"""File systems that several machines write to, by the beginning of their names."""


def export(settings: Settings, config: str, path: Path | None) -> Iterator[str]:
    """Write the rating file and tell what is in it; the last line is its path."""
    target = path or Layout(Path(settings.output)).feedback / FILE
    made = export_ratings(settings, target)
    yield f"answers with feedback: {made.answers:,}, of which {made.used:,} stand in {made.lines:,} lines"
    for reason, count in sorted(made.left_out.items()):
        if count:
            yield f"  left out, {reason.replace('_', ' ')}: {count:,}"
    yield from hints(settings, made)
    if made.lines:
        example = f"llumi feedback {config} --set 'feedback.ratings=[\"{target}\"]'"
        yield f"make pairs of them: {example}"
    yield str(target)


def hints(settings: Settings, made: Exported) -> Iterator[str]:
    """What stands between this file and pairs."""
    if made.lines and made.most_raters < settings.feedback.min_raters:
        yield (
            f"  no pair of answers was rated by more than {made.most_raters}, and feedback.min_raters is"
            f" {settings.feedback.min_raters}: lower it, --set feedback.min_raters={made.most_raters}"
        )
    if made.left_out["no_key_fits"]:
        yield f"  {settings.serving.feedback.key_file} lacks the key that these texts were encrypted with"


def purge(settings: Settings, days: int | None, *, dry_run: bool) -> Iterator[str]:
    """Remove what is past its days."""
    days = settings.serving.feedback.retention_days if days is None else days
    before = now() - timedelta(days=days)
    with opened(settings) as database:
        with database.reading() as connection:
            gone = statements.past(connection, before)
        removed = 0 if dry_run else gone
        while removed:
            with database.writing() as connection:
                removed = statements.purge(connection, before)
        if gone and not dry_run:
            database.tidy()
        with database.reading() as connection:
            left = statements.count(connection)
    verb = "would be removed" if dry_run else "removed"
    yield f"{verb}: {gone:,} answers older than {days} days, with what was said of them"
    yield f"left: {', '.join(f'{n:,} {name}' for name, n in left.items())}"


def rotate(settings: Settings) -> Iterator[str]:
    """Encrypt every text with the first key of the file, a page at a time while the service runs."""
    store = settings.serving.feedback
    if store.key_file is None:
        raise UsageError("serving.feedback.key_file is not set: there is no key to encrypt with")
    keys = Keys(Path(store.key_file).expanduser())
    renewed, closed, last = 0, 0, 0
    with opened(settings) as database:
        while True:
            with database.writing() as connection:
                page = statements.sealed(connection, last)
                for row in page:
                    texts = keys.renew(row.texts)
                    if texts is None:
                        closed += 1
                    else:
                        statements.reseal(connection, row, texts)
                        renewed += 1
            if not page:
                break
            last = page[-1].id
        database.tidy()
    yield f"{renewed:,} texts are encrypted with the first key of {store.key_file}"
    if closed:
        raise DataError(
            f"{closed} texts fit none of the keys in {store.key_file}: put the key they were made with back"
        )
    yield "the keys below it may go"


def migrate(settings: Settings, step: str) -> Iterator[str]:
    """Bring the schema to a step."""
    store = settings.serving.feedback
    database = Database(store.address(settings.output), store.timeout_s)
    try:
        schema.move(database, step)
        yield f"{database.name}: schema {schema.step_of(database) or 'none, all tables are dropped'}"
    finally:
        database.close()


def key(path: Path) -> Iterator[str]:
    """Make a key."""
    add_key(path)
    yield "keep a copy of it apart from the database: without it the texts are lost"
    yield str(path)


@contextmanager
def opened(settings: Settings) -> Iterator[Database]:
    """The store's database with its schema; raises StoreAway, and UsageError where nothing was ever kept."""
    store = settings.serving.feedback
    database = Database(store.address(settings.output), store.timeout_s)
    try:
        if not database.is_made():
            raise UsageError(
                f"{database.name}: there is no feedback store; `llumi serve` makes it, or set serving.feedback.url"
            )
        schema.upgrade(database)
        yield database
    finally:
        database.close()


def prepare(settings: Settings, console: Console) -> None:
    """Before the service starts: its schema, and keys that can be read.

    Raises UsageError for keys that cannot, and for SQLite on a network's file system. A database
    that is away is told and no more, since it costs feedback and no answer.
    """
    store = settings.serving.feedback
    if not store.enabled:
        return
    if store.keep_text and store.key_file is not None:
        Keys(Path(store.key_file).expanduser())
    database = Database(store.address(settings.output), store.timeout_s)
    check_place(database)
    try:
        schema.upgrade(database)
    except StoreAway as error:
        console.print(f"{error}; answers go on, feedback gets 503 until it is back", highlight=False)
    finally:
        database.close()


def check_place(database: Database) -> None:
    """Raises UsageError for SQLite on a file system of a network: its locks and its log do not hold there."""
    if database.file is None:
        return
    place = database.file.resolve()
    mounts = [mount for mount in psutil.disk_partitions(all=True) if place.is_relative_to(mount.mountpoint)]
    kind = max(mounts, key=lambda mount: len(mount.mountpoint)).fstype if mounts else ""
    if kind.startswith(NETWORKS):
        raise UsageError(
            f"{database.name} lies on {kind}, where SQLite's locks do not hold: name a PostgreSQL database by"
            " serving.feedback.url, or a file on this machine's disk, or set serving.feedback.enabled=false"
        )
