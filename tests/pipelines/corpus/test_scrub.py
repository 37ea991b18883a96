"""Identifying strings leave the text; crisis lines stay."""

import stat
from pathlib import Path

import pytest

from configs.errors import DataError
from pipelines.corpus.scrub import KEY_FILE, KEY_VARIABLE, author_hash, author_key, scrub


@pytest.mark.parametrize(
    ("text", "scrubbed"),
    [
        ("thanks u/some_body-1!", "thanks [USER]!"),
        ("/u/someone said so", "[USER] said so"),
        ("find me @some.one99", "find me [USER]"),
        ("r/Anxiety helped me", "r/Anxiety helped me"),
        ("mail a.b+c@mail.example.org now", "mail [EMAIL] now"),
        ("see https://example.org/a?b=c, it helps", "see [URL], it helps"),
        ("(www.example.com/x)", "([URL])"),
        ("example.com/x has it", "[URL] has it"),
        ("[this page](https://example.org/a_b) helped", "this page [URL] helped"),
        ("it was fine.com on", "it was [URL] on"),
        ("I slept.I woke", "I slept.I woke"),
        ("call 415-555-0132", "call [PHONE]"),
        ("call (415) 555-0132 today", "call [PHONE] today"),
        ("call +44 20 7946 0958", "call [PHONE]"),
        ("call 4155550132.", "call [PHONE]."),
        ("my ip is 192.168.1.77", "my ip is [IP]"),
        ("from 2001:db8:0:1:1:1:1:1 on", "from [IP] on"),
    ],
)
def test_what_identifies_becomes_a_typed_placeholder(text: str, scrubbed: str) -> None:
    assert scrub(text) == scrubbed


@pytest.mark.parametrize(
    "text",
    [
        "call or text 988 any time",
        "text HOME to 741741",
        "Samaritans: 116 123",
        "1-800-273-8255 is open all night",
        "(800) 273-8255",
        "0800 1111 for children",
        "13 11 14 in Australia",
        "since 2019-2020 I took 20 mg at 10:30:45",
        "I paid $1234567890 or 100,000,000",
        "version 1.2.3 of 10/12/2020",
        "24/7 and 50/50, and/or",
        "about 12000 people, 5 to 6 of 10",
    ],
)
def test_crisis_lines_and_plain_numbers_stay(text: str) -> None:
    assert scrub(text) == text


def test_a_recogniser_for_names_can_be_handed_in() -> None:
    assert scrub("tell Maria, u/x1", [lambda text: text.replace("Maria", "[NAME]")]) == "tell [NAME], [USER]"


def test_scrubbing_twice_changes_nothing_more() -> None:
    once = scrub("u/ab a@b.org www.x.org 415-555-0132 10.0.0.1 [t](https://x.org)")
    assert once == "[USER] [EMAIL] [URL] [PHONE] [IP] t [URL]"
    assert scrub(once) == once


def test_authors_are_hashed_under_the_key_without_regard_to_case() -> None:
    one, other = b"a" * 32, b"b" * 32
    assert author_hash("Someone", one) == author_hash("someone", one) != author_hash("someone", other)
    assert "someone" not in str(author_hash("someone", one))
    assert author_hash(None, one) is None


def test_the_key_is_made_once_for_its_owner_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(KEY_VARIABLE, raising=False)
    first = author_key(tmp_path / "run")
    assert stat.S_IMODE((tmp_path / "run" / KEY_FILE).stat().st_mode) == 0o600
    assert author_key(tmp_path / "run") == first != author_key(tmp_path / "another")


def test_a_key_in_the_environment_comes_first_and_is_written_nowhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(KEY_VARIABLE, "a passphrase")
    assert author_key(tmp_path) == author_key(tmp_path / "elsewhere")
    assert not (tmp_path / KEY_FILE).exists()


def test_an_empty_key_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(KEY_VARIABLE, raising=False)
    (tmp_path / KEY_FILE).touch()
    with pytest.raises(DataError, match=r"author\.key: is empty"):
        author_key(tmp_path)
