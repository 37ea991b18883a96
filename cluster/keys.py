"""``llumi keys``: API keys made, shown and revoked; a service that runs takes notice within a second."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

import typer
from rich.console import Console
from rich.table import Table

from cluster.plan import printed
from configs.access import ORDINARY, SCOPES, Scope
from configs.errors import UsageError
from configs.settings import Settings
from serving.access import keys
from serving.access.place import keys_file

AGO = re.compile(r"(\d+)([hd])")


def create(
    settings: Settings,
    console: Console,
    name: str,
    *,
    scopes: list[str] | None = None,
    expires: str = "365d",
    requests_per_minute: int | None = None,
    concurrent: int | None = None,
) -> str:
    """Make a key and return it; what is to be known about it is told on ``console``."""
    path = keys_file(settings)
    key, entry = keys.create(
        path,
        named(name),
        known(scopes),
        expires=moment(expires),
        requests_per_minute=requests_per_minute,
        concurrent=concurrent,
    )
    until = f"until {entry.expires:%Y-%m-%d %H:%M} UTC" if entry.expires else "without an end"
    told = f"key {entry.id} for {entry.name}: {', '.join(entry.scopes)}; {until}", f"its hash is kept in {path}"
    console.print(*told, "shown this once:", sep="\n", highlight=False, markup=False, soft_wrap=True)
    return key


def named(name: str) -> str:
    """The name, if it can be shown in one line."""
    if not name.strip() or len(name) > 80 or not name.isprintable():
        raise UsageError("--name must be 1 to 80 printable characters: who or what will use the key")
    return name.strip()


def known(scopes: list[str] | None) -> tuple[Scope, ...]:
    """The scopes asked for, in their usual order; all but ``acute`` where none are."""
    if not scopes:
        return ORDINARY
    unknown = sorted(set(scopes) - set(SCOPES))
    if unknown:
        raise UsageError(f"--scope {unknown[0]} is not a scope; choose of {', '.join(SCOPES)}")
    return tuple(scope for scope in SCOPES if scope in scopes)


def moment(text: str) -> datetime | None:
    """When a key ends: after ``90d`` or ``12h``, on a day (its beginning in UTC), or ``never``."""
    if text == "never":
        return None
    match = AGO.fullmatch(text)
    try:
        if match:
            span = timedelta(hours=int(match[1])) if match[2] == "h" else timedelta(days=int(match[1]))
            end = keys.now() + span
        else:
            given = datetime.fromisoformat(text)
            end = given if given.tzinfo else given.replace(tzinfo=UTC)
    except (ValueError, OverflowError):
        raise UsageError(f"--expires {text}: give days (90d), hours (12h), a date (2027-01-31) or never") from None
    if end <= keys.now():
        raise UsageError(f"--expires {text} is not in the future")
    return end


def show(settings: Settings, *, as_json: bool) -> None:
    """Print all keys, none of them whole."""
    path = keys_file(settings)
    entries = sorted(keys.read(path).values(), key=lambda entry: entry.created)
    if as_json:
        typer.echo(keys.KeyFile(keys=entries).model_dump_json(indent=1, exclude={"keys": {"__all__": {"hash"}}}))
        return
    if not entries:
        typer.echo(f"no keys in {path}: `llumi keys create CONFIG --name NAME` makes one")
        return
    printed().print(table(entries))


def table(entries: list[keys.Entry]) -> Table:
    """The keys for people."""
    shown = Table(box=None, pad_edge=False)
    for column in ("id", "name", "state", "scopes", "created", "expires", "a minute", "at once"):
        shown.add_column(column, no_wrap=column in ("id", "created", "expires"))
    for entry in entries:
        shown.add_row(
            entry.id,
            entry.name,
            entry.state(keys.now()),
            " ".join(entry.scopes),
            f"{entry.created:%Y-%m-%d}",
            f"{entry.expires:%Y-%m-%d %H:%M}" if entry.expires else "never",
            str(entry.requests_per_minute or "-"),
            str(entry.concurrent or "-"),
        )
    return shown


def revoke(settings: Settings, key_id: str) -> None:
    """End a key for good; raises UsageError where there is none of that id."""
    entry = keys.revoke(keys_file(settings), key_id)
    typer.echo(f"{entry.id} ({entry.name}) is revoked; a service that runs refuses it within a second")


@contextmanager
def for_a_while(settings: Settings, name: str) -> Iterator[str | None]:
    """A key that is revoked when the block ends; None where the service asks for none of ours."""
    if settings.serving.auth != "keys":
        yield None
        return
    path = keys_file(settings)
    key, entry = keys.create(path, name, ORDINARY, expires=keys.now() + timedelta(hours=1))
    try:
        yield key
    finally:
        keys.revoke(path, entry.id)


def without_keys(settings: Settings) -> list[str]:
    """A line for who starts a service that nobody can call yet."""
    path = keys_file(settings)
    if settings.serving.auth != "keys" or any(e.state(keys.now()) == "active" for e in keys.read(path).values()):
        return []
    return [f"no API key is active in {path}: `llumi keys create CONFIG --name NAME` makes one, at any time"]
