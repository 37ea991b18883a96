"""What identifies a person leaves the text: typed placeholders; authors become keyed hashes.

    scrub("mail me at a@b.org, u/someone") == "mail me at [EMAIL], [USER]"

Numbers of crisis lines stay: of five phone numbers in 40,000 real comments, three were
such. Patterns find no person names; a function that does can be handed in as a
``recogniser``. Without the key, the hash of an author cannot be found by trying names.
"""

import os
import re
import secrets
from collections.abc import Callable, Sequence
from hashlib import blake2b
from pathlib import Path

from configs.errors import DataError

Recogniser = Callable[[str], str]
KEY_VARIABLE = "LLUMI_AUTHOR_KEY"
KEY_FILE = "author.key"

CRISIS_LINES = frozenset(
    {
        "988", "741741", "18002738255", "8002738255", "18006624357", "8006624357", "18006564673", "8006564673",
        "18007997233", "8007997233", "18664887386", "8664887386", "678678", "18775658860", "8775658860", "18334564566",
        "8334564566", "18006686868", "8006686868", "686868", "116123", "116111", "85258", "08001111", "08006890880",
        "131114", "1800551800", "1300224636", "0800543354", "0508828865", "1737", "911", "999", "112", "111", "000",
    }
)  # fmt: skip
"""Digits of crisis and emergency lines in the United States, Canada, Britain, Ireland, Australia, New Zealand."""

_DOT = re.compile(r"\w\.[a-z]{2}", re.IGNORECASE)
_DIGITS = re.compile(r"\d[\d\s().-]{4,}\d|[0-9a-f]:[0-9a-f]", re.IGNORECASE)
_MARKDOWN_LINK = re.compile(r"\[([^\]\n]{0,300})\]\((?:https?://|/|www\.)[^\s)]*\)", re.IGNORECASE)
_URL = re.compile(r"(?:https?://|www\.)[^\s<>\"]*[^\s<>\".,;:!?)\]}'*]", re.IGNORECASE)
_DOMAIN = re.compile(
    r"(?<![\w@.-])(?:[a-z0-9-]+\.)+(?:com|org|net|io|gov|edu|co\.uk|me|gg|ly)(?:/[^\s<>\")\]]*)?(?![\w@-])",
    re.IGNORECASE,
)
_EMAIL = re.compile(r"(?<![\w.+-])[\w.+-]+@[\w-]+(?:\.[\w-]+)+", re.IGNORECASE)
_USER = re.compile(r"(?<![\w/])/?u/[\w-]{2,}", re.IGNORECASE)
_HANDLE = re.compile(r"(?<![\w@.])@[A-Za-z][\w.]{2,}\b")
_IPV4 = re.compile(r"(?<![\d.])(?:(?:25[0-5]|2[0-4]\d|1?\d?\d)\.){3}(?:25[0-5]|2[0-4]\d|1?\d?\d)(?![\d.]*\d)")
_IPV6 = re.compile(r"(?<![\w:])(?:[0-9a-f]{1,4}:){3,7}:?[0-9a-f]{1,4}(?![\w:])", re.IGNORECASE)
_PHONE = re.compile(
    r"(?<![\w.$€£/-])(?:"
    r"\+\d{1,3}(?:[\s.-]?\(?\d{1,5}\)?){2,5}"  # international
    r"|(?:1[\s.-]?)?\(?\d{3}\)?[\s.-]?\d{3}[\s.-]\d{4}"  # North America, with separators
    r"|0\d{2,4}[\s-]?\d{3}[\s-]?\d{3,4}"  # national, leading zero
    r"|1?\d{10}"  # a run of ten digits
    r")(?![\w/%-])"
)


def scrub(text: str, recognisers: Sequence[Recogniser] = ()) -> str:
    """``text`` with links, e-mail addresses, accounts, addresses and phone numbers as placeholders."""
    if "/" in text or _DOT.search(text):
        text = _MARKDOWN_LINK.sub(r"\1 [URL]", text)
        text = _EMAIL.sub("[EMAIL]", text)
        text = _URL.sub("[URL]", text)
        text = _DOMAIN.sub("[URL]", text)
        text = _USER.sub("[USER]", text)
    if "@" in text:
        text = _HANDLE.sub("[USER]", text)
    if _DIGITS.search(text):
        text = _IPV4.sub("[IP]", text)
        text = _IPV6.sub("[IP]", text)
        text = _PHONE.sub(_phone, text)
    for recognise in recognisers:
        text = recognise(text)
    return text


def _phone(match: re.Match[str]) -> str:
    digits = re.sub(r"\D", "", match.group())
    return match.group() if digits in CRISIS_LINES else "[PHONE]"


def author_hash(author: str | None, key: bytes) -> str | None:
    """Keyed BLAKE2b (hex, 16 bytes) of an account's name; None stays None."""
    return None if author is None else blake2b(author.lower().encode(), key=key, digest_size=16).hexdigest()


def author_key(folder: Path) -> bytes:
    """The key of author hashes: from ``LLUMI_AUTHOR_KEY``, else from ``author.key`` in ``folder``.

    The file is made on first use, readable by its owner only; delete it and nobody can tell
    any more which account a hash belongs to. Raises DataError where it is empty.
    """
    if given := os.environ.get(KEY_VARIABLE):
        return blake2b(given.encode(), digest_size=32).digest()
    path = folder / KEY_FILE
    folder.mkdir(parents=True, exist_ok=True)
    try:
        descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
    except FileExistsError:
        text = path.read_text(encoding="ascii", errors="replace").strip()
        if not text:
            raise DataError(f"{path}: is empty; delete it to have a new key made") from None
        return blake2b(text.encode(), digest_size=32).digest()
    text = secrets.token_hex(32)
    with os.fdopen(descriptor, "w", encoding="ascii") as file:
        file.write(text + "\n")
    return blake2b(text.encode(), digest_size=32).digest()
