"""Authors become keyed hashes; where the key comes from, and who may read it."""

import logging
import stat
from pathlib import Path

import pyarrow as pa
import pytest

from configs import Settings
from configs.errors import DataError, MissingInput
from pipelines.corpus.authors import (
    KEY_FILE,
    KEY_VARIABLE,
    author_hash,
    author_hashes,
    author_key,
    given_key,
    key_check,
)
from pipelines.corpus.build import depends

ONE, OTHER = b"a" * 32, b"b" * 32


@pytest.fixture(autouse=True)
def no_key_around(monkeypatch: pytest.MonkeyPatch) -> None:
    """No key but those a test gives."""
    monkeypatch.delenv(KEY_VARIABLE, raising=False)


def test_authors_are_hashed_under_the_key_without_regard_to_case() -> None:
    assert author_hash("Someone", ONE) == author_hash("someone", ONE) != author_hash("someone", OTHER)
    assert "someone" not in str(author_hash("someone", ONE))
    assert author_hash(None, ONE) is None


def test_a_column_of_authors_is_hashed_as_each_of_them() -> None:
    names = ["B", None, "a", "b", "", "é"]
    assert author_hashes(pa.array(names), ONE).to_pylist() == [author_hash(name, ONE) for name in names]
    assert author_hashes(pa.array([], pa.string()), ONE).to_pylist() == []
    assert author_hashes(pa.array(names).slice(2, 2), ONE).to_pylist() == [author_hash(n, ONE) for n in ("a", "b")]


def test_the_key_is_made_once_for_its_owner_only(tmp_path: Path) -> None:
    assert given_key(tmp_path / "run") is None
    first = author_key(tmp_path / "run")
    assert stat.S_IMODE((tmp_path / "run" / KEY_FILE).stat().st_mode) == 0o600
    assert author_key(tmp_path / "run") == given_key(tmp_path / "run") == first != author_key(tmp_path / "another")


def test_a_key_in_the_environment_comes_before_the_file_and_is_written_nowhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = author_key(tmp_path)
    monkeypatch.setenv(KEY_VARIABLE, "a passphrase of some length")
    assert author_key(tmp_path) == author_key(tmp_path / "elsewhere") != made
    assert not (tmp_path / "elsewhere").exists()


def test_a_named_file_comes_before_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    named = tmp_path / "key"
    named.write_text("sixteen letters!\n")
    named.chmod(0o600)
    monkeypatch.setenv(KEY_VARIABLE, "a passphrase of some length")
    key = author_key(tmp_path / "run", str(named))
    assert key != author_key(tmp_path / "run")
    monkeypatch.setenv(KEY_VARIABLE, "sixteen letters!")
    assert author_key(tmp_path / "run") == key


def test_a_named_file_that_is_not_there_is_refused_and_not_made(tmp_path: Path) -> None:
    with pytest.raises(MissingInput, match=r"nowhere: corpus\.scrub\.author_key names no file"):
        author_key(tmp_path, str(tmp_path / "nowhere"))
    assert list(tmp_path.iterdir()) == []


def test_an_empty_and_a_short_key_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / KEY_FILE).touch()
    with pytest.raises(DataError, match=r"author\.key: is empty"):
        author_key(tmp_path)
    (tmp_path / KEY_FILE).write_text("short")
    with pytest.raises(DataError, match=r"author\.key: a key has 16 characters or more, this one 5"):
        author_key(tmp_path)
    monkeypatch.setenv(KEY_VARIABLE, "secret")
    with pytest.raises(DataError, match=f"{KEY_VARIABLE}: a key has 16 .* this one 6") as refused:
        author_key(tmp_path)
    assert "secret" not in str(refused.value)


def test_a_key_that_others_can_read_is_spoken_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    author_key(tmp_path)
    (tmp_path / KEY_FILE).chmod(0o644)
    with caplog.at_level(logging.WARNING, "llumi.corpus"):
        author_key(tmp_path)
    assert "can be read by others (mode 0644)" in caplog.text


def test_another_key_makes_threads_stale_and_is_not_given_away(tmp_path: Path) -> None:
    settings = Settings(output=str(tmp_path))
    assert depends(settings)["author_key"] is None
    key = author_key(tmp_path)
    first = depends(settings)
    assert first["author_key"] == key_check(key)
    text = (tmp_path / KEY_FILE).read_text().strip()
    assert text not in str(first)
    assert key.hex() not in str(first)
    (tmp_path / KEY_FILE).unlink()
    author_key(tmp_path)
    assert depends(settings) != first
