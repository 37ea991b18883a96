"""API keys: made, kept as hashes, found again, revoked.

A key reads ``llumi_ID_SECRET``. The id is public: it stands in logs and in ``llumi keys list``.
The secret has 256 random bits, so one SHA-256 of it is enough at rest: there is nothing to guess
that a slow hash would slow down (OWASP's advice to stretch hashes is for passwords). The id is
hashed along, so a hash copied to another key's place fits nothing.

The file is JSON with mode 0600, replaced whole and never written in place, so that a reader sees
the old or the new one.
"""

import fcntl
import hashlib
import hmac
import json
import os
import re
import secrets
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from configs.access import Scope
from configs.errors import DataError, UsageError

KEY = re.compile(r"llumi_([0-9a-f]{12})_([A-Za-z0-9_-]{43})")
SECRET_BYTES = 32
State = Literal["active", "expired", "revoked"]


class Entry(BaseModel):
    """One key as the file keeps it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: str = Field(pattern=r"^[0-9a-f]{12}$")
    """Public half of the key."""
    name: str
    """Whose it is, in the words of whoever made it."""
    hash: str = Field(pattern=r"^[0-9a-f]{64}$")
    """SHA-256 of the key."""
    scopes: tuple[Scope, ...]
    """What it may be used for."""
    created: AwareDatetime
    """When it was made."""
    expires: AwareDatetime | None = None
    """When it ends; None = never."""
    revoked: AwareDatetime | None = None
    """When it was revoked; None = it was not."""
    requests_per_minute: int | None = Field(None, ge=1)
    """Most requests in any minute; None = as ``serving.access`` says."""
    concurrent: int | None = Field(None, ge=1)
    """Most requests at once; None = as ``serving.access`` says."""

    def state(self, now: datetime) -> State:
        """Whether the key can be used at ``now``."""
        if self.revoked is not None:
            return "revoked"
        return "expired" if self.expires is not None and self.expires <= now else "active"


class KeyFile(BaseModel):
    """The whole file."""

    model_config = ConfigDict(extra="forbid")

    version: Literal[1] = 1
    keys: list[Entry] = []


def digest(key: str) -> str:
    """What is kept of a key."""
    return hashlib.sha256(key.encode("ascii")).hexdigest()


def read(path: Path) -> dict[str, Entry]:
    """The keys in the file by id; none where there is no file. Raises DataError where it is damaged, OSError."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return {}
    except UnicodeDecodeError:
        raise damaged(path) from None
    try:
        return {entry.id: entry for entry in KeyFile.model_validate_json(text).keys}
    except ValidationError:
        raise damaged(path) from None


def damaged(path: Path) -> DataError:
    """A file that is not one of ours, or not whole."""
    return DataError(f"{path} is not a file of API keys: restore it, or move it away and make new keys")


def id_of(key: str) -> str | None:
    """The public half of a key; None of what is no key."""
    match = KEY.fullmatch(key)
    return match[1] if match else None


def find(entries: dict[str, Entry], key: str) -> Entry | None:
    """The entry of ``key``, whatever its state; None where the key is none of them."""
    entry = entries.get(id_of(key) or "")
    return entry if entry and hmac.compare_digest(digest(key), entry.hash) else None


def create(
    path: Path,
    name: str,
    scopes: tuple[Scope, ...],
    *,
    expires: datetime | None = None,
    requests_per_minute: int | None = None,
    concurrent: int | None = None,
) -> tuple[str, Entry]:
    """A new key and its entry; the key itself is nowhere but in what is returned."""
    key_id = secrets.token_hex(6)
    key = f"llumi_{key_id}_{secrets.token_urlsafe(SECRET_BYTES)}"
    entry = Entry(
        id=key_id,
        name=name,
        hash=digest(key),
        scopes=scopes,
        created=now(),
        expires=expires,
        requests_per_minute=requests_per_minute,
        concurrent=concurrent,
    )
    with changing(path) as entries:
        entries[key_id] = entry
    return key, entry


def revoke(path: Path, key_id: str) -> Entry:
    """Revoke a key for good; raises UsageError where no key has that id. A second time changes nothing."""
    with changing(path) as entries:
        entry = entries.get(key_id)
        if entry is None:
            raise UsageError(f"{path} holds no key with the id {key_id}: `llumi keys list CONFIG` shows them")
        if entry.revoked is None:
            entry = entries[key_id] = entry.model_copy(update={"revoked": now()})
    return entry


@contextmanager
def changing(path: Path) -> Iterator[dict[str, Entry]]:
    """The keys, to change and write back; two who change them at once do so one after the other."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    lock = os.open(path.with_name(path.name + ".lock"), os.O_CREAT | os.O_RDWR, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        entries = read(path)
        yield entries
        replace(path, KeyFile(keys=list(entries.values())))
    finally:
        os.close(lock)


def replace(path: Path, content: KeyFile) -> None:
    """Put the new file in the place of the old one, at once and for its owner only."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")  # with mode 0600
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            json.dump(content.model_dump(mode="json"), file, indent=1)
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def now() -> datetime:
    """The time, to the second."""
    return datetime.now(UTC).replace(microsecond=0)
