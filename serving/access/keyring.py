"""The ingress' view of the key file: looked at again when it changed, without a restart.

A replica looks for a change once a second, and for a key it does not know at once: a new key is
taken at once and a revoked one refused within a second (where storage keeps its own cache, as NFS
does, within that cache's seconds more). A file
that is not there holds no keys. One that cannot be read keeps the last keys for a minute, which a
hiccup of the storage may last; after that nobody is let in, for nobody can say who was revoked.
"""

import asyncio
import logging
import time
from pathlib import Path

from configs.access import AccessSettings
from configs.errors import DataError
from serving.access import errors, keys
from serving.access.caller import Caller

LOOK_EVERY_S = 1.0
"""Seconds between two looks at the file."""
LOOK_FOR_NEW_S = 0.05
"""Seconds between two looks for the sake of unknown keys, which anybody can send; their answer waits for it."""
GRACE_S = 60.0
"""Seconds that keys are good for after the file could last be read."""

LOG = logging.getLogger("ray.serve")
Stamp = tuple[int, int, int]


class Keyring:
    """Keys by id, as the file last was."""

    def __init__(self, path: Path, settings: AccessSettings, *, look_every_s: float = LOOK_EVERY_S):
        self.path, self.settings, self.look_every_s = path, settings, look_every_s
        self.entries: dict[str, keys.Entry] = {}
        self.stamp: Stamp | None = None
        self.looked = self.read = float("-inf")
        self.looking = asyncio.Lock()

    async def caller(self, key: str) -> Caller:
        """Who holds the key; raises ApiError with 401, or 503 where the file cannot be read."""
        asked = time.monotonic()
        await self.refresh(asked - self.look_every_s)
        key_id = keys.id_of(key)
        if key_id is not None and key_id not in self.entries:
            await self.refresh(asked, after_s=LOOK_FOR_NEW_S)
        entry = keys.find(self.entries, key)
        if entry is None:
            raise errors.invalid_credentials()
        state = entry.state(keys.now())
        if state != "active":
            raise errors.ended_credentials(f"the API key {entry.id} is {state}: ask for a new one", f"{state}_api_key")
        return Caller(
            id=entry.id,
            name=entry.name,
            scopes=frozenset(entry.scopes),
            requests_per_minute=entry.requests_per_minute or self.settings.requests_per_minute,
            concurrent=entry.concurrent or self.settings.concurrent,
        )

    async def refresh(self, since: float, after_s: float = 0.0) -> None:
        """Read the file where it changed, unless it was looked at after ``since``; ``after_s`` after the last look."""
        if self.looked <= since:
            async with self.looking:
                if self.looked <= since:
                    await asyncio.sleep(max(0.0, self.looked + after_s - time.monotonic()))
                    now = time.monotonic()
                    await asyncio.to_thread(self.look)  # storage of the network may be slow
                    self.looked = now
        if time.monotonic() - self.read > GRACE_S:
            raise errors.unknown_now("the service cannot read its API keys at the moment")

    def look(self) -> None:
        """Read the file where it changed."""
        try:
            stamp = stamp_of(self.path)
            if stamp != self.stamp or self.read < 0:
                self.entries, self.stamp = keys.read(self.path), stamp
                LOG.info("API keys read: %d", len(self.entries))
            self.read = time.monotonic()
        except (OSError, DataError) as error:
            LOG.error("API keys could not be read from %s: %s", self.path, type(error).__name__)


def stamp_of(path: Path) -> Stamp | None:
    """What changes with every new file; None where there is none."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino
