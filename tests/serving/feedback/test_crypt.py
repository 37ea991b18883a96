"""Keys of texts: made, changed while in use, never shown."""

import logging
from pathlib import Path

import pytest

from configs.errors import MissingInput, UsageError
from serving.feedback.crypt import Keys, add_key
from serving.feedback.records import Texts

TEXTS = Texts("title", "post", ("one", None, "three"), "draft")


def test_what_is_sealed_shows_nothing_and_opens_again(key_file: Path) -> None:
    sealed = Keys(key_file).seal(TEXTS)
    assert b"post" not in sealed
    assert Keys(key_file).open(sealed) == TEXTS


def test_a_new_key_on_top_is_used_at_once_and_the_old_ones_still_open(key_file: Path, tmp_path: Path) -> None:
    keys = Keys(key_file)
    before = keys.seal(TEXTS)
    add_key(key_file)
    after = keys.seal(TEXTS)
    assert len(key_file.read_text().split()) == 2
    only_new = tmp_path / "only-new"
    only_new.write_text(key_file.read_text().split()[0])
    assert Keys(only_new).open(after) == TEXTS
    assert Keys(only_new).open(before) is None
    assert keys.open(before) == TEXTS


def test_renewed_texts_open_with_the_first_key_alone(key_file: Path, tmp_path: Path) -> None:
    keys = Keys(key_file)
    before = keys.seal(TEXTS)
    add_key(key_file)
    renewed = keys.renew(before)
    assert renewed is not None
    key_file.write_text(key_file.read_text().split()[0])
    assert keys.open(renewed) == TEXTS
    assert keys.renew(before) is None


def test_bytes_that_were_changed_open_nothing(key_file: Path) -> None:
    keys = Keys(key_file)
    sealed = bytearray(keys.seal(TEXTS))
    sealed[40] ^= 1
    assert keys.open(bytes(sealed)) is None


def test_a_file_that_breaks_while_in_use_leaves_the_keys_of_before(
    key_file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    keys = Keys(key_file)
    sealed = keys.seal(TEXTS)
    key_file.write_text("half a k")
    assert keys.open(sealed) == TEXTS
    assert "the keys of before are kept" in caplog.text
    assert "half a k" not in caplog.text


def test_a_key_file_is_for_its_owner_and_one_that_others_can_read_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "deep" / "keys"
    add_key(path)
    assert path.stat().st_mode & 0o777 == 0o600
    path.chmod(0o644)
    with caplog.at_level(logging.WARNING):
        Keys(path)
    assert "chmod 600" in caplog.text


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (None, "is not there"),
        ("", "holds no key"),
        ("# nothing\n\n", "holds no key"),
        ("# ok\nshort\n", ":2: is no Fernet"),
    ],
)
def test_what_is_no_key_is_named_by_its_line_and_never_shown(tmp_path: Path, content: str | None, what: str) -> None:
    path = tmp_path / "keys"
    if content is not None:
        path.write_text(content)
    with pytest.raises((UsageError, MissingInput), match=what) as caught:
        Keys(path)
    assert "llumi feedback key" in str(caught.value)
    assert "short" not in str(caught.value)
