"""API keys at rest: only hashes, for their owner's eyes, changed whole."""

import hashlib
import json
import os
import stat
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import pytest

from configs.access import ORDINARY, SCOPES
from configs.errors import DataError, UsageError
from serving.access import keys


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "serving" / "keys.json"


def test_a_key_is_found_again_by_itself_and_nothing_else(file: Path) -> None:
    key, entry = keys.create(file, "portal", ORDINARY)
    entries = keys.read(file)
    assert keys.find(entries, key) == entry
    for other in (key[:-1], key + "A", key.swapcase(), key.rpartition("_")[0], entry.hash, "", "llumi_", "ä" * 63):
        assert keys.find(entries, other) is None


def test_how_long_a_comparison_takes_tells_nothing_of_the_hash(file: Path) -> None:
    class Hash(str):
        __hash__ = str.__hash__

        def __eq__(self, other: object) -> bool:
            raise AssertionError("letters are compared until one differs")

    key, entry = keys.create(file, "portal", ORDINARY)
    kept = {entry.id: entry.model_copy(update={"hash": Hash(entry.hash)})}
    assert keys.find(kept, key) is kept[entry.id]
    assert keys.find(kept, key[:-1] + ("B" if key.endswith("A") else "A")) is None


def test_the_file_holds_neither_a_key_nor_its_secret(file: Path) -> None:
    key, entry = keys.create(file, "portal", ORDINARY)
    text = file.read_text()
    assert key not in text
    assert key.split("_", 2)[2] not in text
    assert entry.hash == hashlib.sha256(key.encode()).hexdigest()
    assert len(key.split("_", 2)[2]) == 43  # 256 bits in base64


def test_a_hash_copied_to_another_key_fits_nothing(file: Path) -> None:
    first, _ = keys.create(file, "first", ORDINARY)
    second, _ = keys.create(file, "second", ("models",))
    entries = keys.read(file)
    a, b = (entries[key.split("_")[1]] for key in (first, second))
    swapped = {a.id: a.model_copy(update={"hash": b.hash}), b.id: b.model_copy(update={"hash": a.hash})}
    assert keys.find(swapped, first) is None
    assert keys.find(swapped, second) is None


def test_only_the_owner_reads_the_file_and_its_folder(file: Path) -> None:
    before = os.umask(0)
    try:
        keys.create(file, "portal", ORDINARY)
    finally:
        os.umask(before)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
    assert all(stat.S_IMODE(path.stat().st_mode) == 0o600 for path in file.parent.iterdir())


def test_keys_made_at_once_are_all_kept(file: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda n: keys.create(file, f"service {n}", ORDINARY)[0], range(40)))
    entries = keys.read(file)
    assert all(keys.find(entries, key) for key in made)
    assert len(entries) == 40
    assert not list(file.parent.glob(".keys.json.*"))


def test_a_revoked_key_stays_revoked_and_tells_since_when(file: Path) -> None:
    _, entry = keys.create(file, "portal", ORDINARY)
    first = keys.revoke(file, entry.id)
    assert keys.revoke(file, entry.id).revoked == first.revoked
    assert keys.read(file)[entry.id].state(keys.now()) == "revoked"
    with pytest.raises(UsageError, match="llumi keys list"):
        keys.revoke(file, "0" * 12)


def test_a_key_ends_at_its_time_to_the_second(file: Path) -> None:
    end = keys.now() + timedelta(days=1)
    _, entry = keys.create(file, "portal", ORDINARY, expires=end)
    assert entry.state(end - timedelta(seconds=1)) == "active"
    assert entry.state(end) == "expired"


def test_acute_is_never_given_unless_asked_for() -> None:
    assert set(SCOPES) - set(ORDINARY) == {"acute"}


@pytest.mark.parametrize("text", ["", "{", "[]", '{"version": 2, "keys": []}', '{"keys": [{"id": "a"}]}', "\udcff"])
def test_a_damaged_file_is_refused_and_left_as_it_is(file: Path, text: str) -> None:
    file.parent.mkdir()
    content = text.encode("utf-8", "surrogateescape")
    file.write_bytes(content)
    with pytest.raises(DataError, match=r"keys\.json"):
        keys.create(file, "portal", ORDINARY)
    assert file.read_bytes() == content


def test_a_scope_that_is_none_makes_the_file_damaged(file: Path) -> None:
    keys.create(file, "portal", ORDINARY)
    content = json.loads(file.read_text())
    content["keys"][0]["scopes"].append("everything")
    file.write_text(json.dumps(content))
    with pytest.raises(DataError):
        keys.read(file)
