"""What identifies a person leaves the text, for typed placeholders.

    scrub("mail me at a@b.org, u/someone") == "mail me at [EMAIL], [USER]"

Two ways with one outcome: ``scrub`` for a text, in plain Python, and ``scrub_column`` for
a column, some twenty times quicker: a gate in polars finds the rows that hold a candidate
at all, polars replaces links, e-mail addresses and accounts in those, and only rows with
candidate numbers see Python (``digits``). The patterns are therefore written in what
Rust's ``regex`` and Python's ``re`` have in common, ASCII and without looking around.

Patterns find no names of people; ``names`` holds the slot for a model that does.
"""

import re
from collections.abc import Collection
from functools import cache
from typing import NamedTuple

import numpy as np
import polars as pl
import pyarrow as pa

from configs.corpus import ScrubSettings
from pipelines.corpus import crisis, digits, names

_SPACE = r" \t\n\r\x0b\x0c\u00a0\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"
_DOMAINS = r"com|org|net|edu|gov|info|app|dev|xyz|co\.uk|org\.uk|ac\.uk|com\.au|co\.nz|ca|de|fr"
_SHORT = "me|gg|ly|io|be|co|tv|us|gl"
_MAILERS = r"gmail|googlemail|yahoo|hotmail|outlook|protonmail|proton|icloud|aol|ymail|live|msn|gmx|mail"
_NETWORKS = "snap|snapchat|insta|instagram|ig|kik|discord|telegram|twitter|skype|tiktok"
_B = r"(?-u:\b)"


class Pattern(NamedTuple):
    """A pattern in Rust's dialect and what takes the place of what it finds; ``\\1`` is its first group."""

    kind: str
    gate: str
    """Found in every text that the pattern is found in, and quicker to look for."""
    rust: str
    replacement: str

    @property
    def python(self) -> re.Pattern[str]:
        """The same in Python's dialect."""
        return re.compile(self.rust.replace("(?i-u:", "(?i:").replace(_B, r"\b"), re.ASCII)

    @property
    def rust_replacement(self) -> str:
        """The replacement in Rust's dialect."""
        return self.replacement.replace("\\1", "${1}")


PATTERNS = (
    Pattern("URL", r"\]\(", rf"\[([^\]\n]{{0,300}})\]\((?i-u:https?://|/|www\.)[^{_SPACE})]*\)", r"\1 [URL]"),
    Pattern(
        "EMAIL", "@", r"(?i-u:mailto:)?[A-Za-z0-9_.+%-]+@[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)*\.[A-Za-z]{2,}", "[EMAIL]"
    ),
    Pattern(
        "EMAIL",
        r"[\[({<] ?(?i-u:at) ?[\])}>]",
        r"[A-Za-z0-9_.+-]+ ?[\[({<] ?(?i-u:at) ?[\])}>] ?[A-Za-z0-9-]+"
        r"(?:(?: ?[\[({<] ?(?i-u:dot) ?[\])}>] ?| (?i-u:dot) |\.)[A-Za-z0-9-]+)+",
        "[EMAIL]",
    ),
    Pattern(
        "EMAIL",
        rf" (?i-u:at) (?i-u:{_MAILERS})(?: (?i-u:dot) |\.)",
        rf"[A-Za-z0-9_.+-]+ (?i-u:at) (?i-u:{_MAILERS})(?: (?i-u:dot) |\.)(?i-u:com|net|org|me|de|co\.uk){_B}",
        "[EMAIL]",
    ),
    Pattern(
        "URL",
        r"(?i-u:https?://|ftp://|www\.)",
        rf"(?i-u:https?://|ftp://|www\.)(?:[^{_SPACE}<>\"()]|\([^{_SPACE}<>\"()]*\))*"
        rf"(?:[^{_SPACE}<>\".,;:!?()\]}}'*]|\([^{_SPACE}<>\"()]*\))",
        "[URL]",
    ),
    Pattern(
        "URL",
        rf"\.(?i-u:{_DOMAINS}){_B}|\.(?i-u:{_SHORT}){_B}/",
        rf"{_B}(?:[A-Za-z0-9-]+\.)+(?:(?i-u:{_DOMAINS}){_B}(?:/[^{_SPACE}<>\")\]]*)?"
        rf"|(?i-u:{_SHORT}){_B}/[^{_SPACE}<>\")\]]+)",
        "[URL]",
    ),
    Pattern("USER", "(?i-u:u|user)/", r"(^|[^A-Za-z0-9_/])/?(?i-u:u|user)/[A-Za-z0-9_-]{3,}", r"\1[USER]"),
    Pattern("USER", "@", r"(^|[^A-Za-z0-9_@./])@[A-Za-z_][A-Za-z0-9_.-]+[A-Za-z0-9_]", r"\1[USER]"),
    Pattern("USER", "#[0-9]{4}", rf"{_B}[A-Za-z0-9_.]{{2,32}}#[0-9]{{4}}{_B}", "[USER]"),
    Pattern(
        "USER",
        rf"(?i-u:{_NETWORKS})[ :=]",
        rf"({_B}(?i-u:{_NETWORKS})"
        r"(?i-u: (?:is|name|id|username|handle))?(?: ?[:=] ?| ))[A-Za-z.]*[0-9_][A-Za-z0-9_.]*[A-Za-z0-9_]",
        r"\1[USER]",
    ),
)
"""In the order in which they are tried."""


def scrub(text: str, settings: ScrubSettings | None = None) -> str:
    """``text`` with what identifies a person as placeholders: ``[URL]``, ``[EMAIL]``, ``[USER]`` and so on."""
    settings = settings or ScrubSettings()
    for pattern, compiled in _compiled():
        if pattern.kind in settings.kinds:
            text = compiled.sub(pattern.replacement, text)
    text = digits.replace(text, settings.kinds, crisis.kept_digits(settings.keep_numbers))
    return names.recogniser(settings.names).replace([text])[0] if settings.names else text


def scrub_column(texts: pa.Array, settings: ScrubSettings | None = None) -> pa.Array:
    """``scrub`` of each text of a string column, null for null; raises UsageError where the names' model is missing."""
    settings = settings or ScrubSettings()
    column = _numbers(_words(pl.Series(texts, dtype=pl.String), settings.kinds), settings)
    scrubbed = column.to_arrow(compat_level=pl.CompatLevel.oldest()).cast(pa.string())
    if settings.names:
        found = names.recogniser(settings.names).replace(["" if t is None else t for t in scrubbed.to_pylist()])
        scrubbed = pa.array(found, pa.string(), mask=np.asarray(scrubbed.is_null()))
    return scrubbed


def _words(column: pl.Series, kinds: Collection[str]) -> pl.Series:
    """Links, e-mail addresses and accounts replaced, each pattern in the rows that may hold it."""
    patterns = [pattern for pattern in PATTERNS if pattern.kind in kinds]
    if not patterns:
        return column
    where = _found(column, "|".join(dict.fromkeys(pattern.gate for pattern in patterns)))
    some = column.gather(where)
    for pattern in patterns:
        place = _found(some, pattern.gate)
        some = some.scatter(place, some.gather(place).str.replace_all(pattern.rust, pattern.rust_replacement))
    return column.scatter(where, some)


def _numbers(column: pl.Series, settings: ScrubSettings) -> pl.Series:
    """Addresses and numbers replaced, each kind in the rows that may hold it."""
    gates = {kind: gate for kind, gate in digits.CANDIDATE.items() if kind in settings.kinds}
    if not gates:
        return column
    kept = crisis.kept_digits(settings.keep_numbers)
    where = _found(column, "[0-9]")
    where = where[_found(column.gather(where), "|".join(gates.values()))]
    some = column.gather(where)
    for kind, gate in gates.items():
        place = _found(some, gate)
        some = some.scatter(place, [digits.replace(text, (kind,), kept) for text in some.gather(place)])
    return column.scatter(where, some)


def _found(column: pl.Series, pattern: str) -> np.ndarray:
    """Positions at which the pattern is found."""
    return np.flatnonzero(column.str.contains(pattern).fill_null(False).to_numpy())


@cache
def _compiled() -> tuple[tuple[Pattern, re.Pattern[str]], ...]:
    return tuple((pattern, pattern.python) for pattern in PATTERNS)
