"""Keys that are made, revoked or lost while the service runs."""

import asyncio
import json
import time
from collections.abc import Callable, Coroutine
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from configs.access import ORDINARY, AccessSettings
from serving.access import keyring, keys
from serving.access.keyring import Keyring
from serving.wire import ApiError


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "keys.json"


@pytest.fixture
def ring(file: Path) -> Keyring:
    """Looks at the file at every request."""
    return Keyring(file, AccessSettings(requests_per_minute=7, concurrent=3), look_every_s=0)


def refused(asked: Coroutine[Any, Any, Any]) -> tuple[int, str]:
    with pytest.raises(ApiError) as caught:
        asyncio.run(asked)
    return caught.value.status, caught.value.body["error"]["code"]


def test_a_new_key_is_taken_without_a_restart(ring: Keyring, file: Path) -> None:
    assert refused(ring.caller("llumi_" + "0" * 12 + "_" + "A" * 43)) == (401, "invalid_api_key")
    key, entry = keys.create(file, "portal", ("generate",))
    caller = asyncio.run(ring.caller(key))
    assert (caller.id, caller.name, caller.scopes) == (entry.id, "portal", frozenset({"generate"}))


def test_a_revoked_key_is_refused_without_a_restart(ring: Keyring, file: Path) -> None:
    key, entry = keys.create(file, "portal", ORDINARY)
    asyncio.run(ring.caller(key))
    keys.revoke(file, entry.id)
    assert refused(ring.caller(key)) == (401, "revoked_api_key")


def test_an_expired_key_is_told_so_and_one_that_is_about_to_is_taken(ring: Keyring, file: Path) -> None:
    key, _ = keys.create(file, "portal", ORDINARY, expires=keys.now() + timedelta(hours=1))
    asyncio.run(ring.caller(key))
    entry = json.loads(file.read_text())
    entry["keys"][0]["expires"] = "2020-01-01T00:00:00Z"
    file.write_text(json.dumps(entry))
    assert refused(ring.caller(key)) == (401, "expired_api_key")


def test_who_does_not_hold_the_whole_key_is_not_told_what_became_of_it(ring: Keyring, file: Path) -> None:
    key, entry = keys.create(file, "portal", ORDINARY)
    keys.revoke(file, entry.id)
    guessed = key[:-4] + ("AAAA" if not key.endswith("AAAA") else "BBBB")
    assert refused(ring.caller(guessed)) == (401, "invalid_api_key")


def test_a_keys_own_limits_go_before_those_of_the_settings(ring: Keyring, file: Path) -> None:
    plain = asyncio.run(ring.caller(keys.create(file, "plain", ORDINARY)[0]))
    own = asyncio.run(ring.caller(keys.create(file, "own", ORDINARY, requests_per_minute=100, concurrent=1)[0]))
    assert (plain.requests_per_minute, plain.concurrent) == (7, 3)
    assert (own.requests_per_minute, own.concurrent) == (100, 1)


def test_a_file_that_is_gone_holds_no_keys(ring: Keyring, file: Path) -> None:
    key, _ = keys.create(file, "portal", ORDINARY)
    asyncio.run(ring.caller(key))
    file.unlink()
    assert refused(ring.caller(key)) == (401, "invalid_api_key")


def test_a_file_that_cannot_be_read_keeps_the_last_keys_for_a_while_only(
    ring: Keyring, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key, _ = keys.create(file, "portal", ORDINARY)
    asyncio.run(ring.caller(key))
    file.write_text("damaged")
    assert asyncio.run(ring.caller(key)).name == "portal"
    monkeypatch.setattr(keyring, "GRACE_S", -1.0)
    assert refused(ring.caller(key)) == (503, "auth_unavailable")
    monkeypatch.undo()
    file.unlink()
    again, _ = keys.create(file, "portal", ORDINARY)
    assert asyncio.run(ring.caller(again)).name == "portal"


def test_a_file_that_never_could_be_read_lets_nobody_in(file: Path) -> None:
    file.write_text("damaged")
    ring = Keyring(file, AccessSettings())
    assert refused(ring.caller("llumi_" + "0" * 12 + "_" + "A" * 43)) == (503, "auth_unavailable")


def test_the_file_is_not_looked_at_for_every_request(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    key, _ = keys.create(file, "portal", ORDINARY)
    ring, looks = Keyring(file, AccessSettings(), look_every_s=30), []
    look: Callable[[], None] = ring.look
    monkeypatch.setattr(ring, "look", lambda: (looks.append(time.monotonic()), look()))

    async def many() -> None:
        await asyncio.gather(*(ring.caller(key) for _ in range(50)))

    asyncio.run(many())
    assert len(looks) == 1
