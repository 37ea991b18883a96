"""Crisis lines: the numbers that stay in the text.

Of five phone numbers found in 40,000 real comments three were such. A helper who is shown
"call [PHONE]" learns to write that; so numbers on a documented list, ``crisis_lines.yaml``
(country, name, source), are kept however they are spelt.
"""

import re
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

import yaml

FILE = Path(__file__).with_name("crisis_lines.yaml")


class CrisisLine(NamedTuple):
    """One number of one line."""

    country: str
    name: str
    number: str
    """As it is dialled within the country."""
    source: str
    """The site that names the number."""
    code: str
    """International prefix, empty where the number has none."""


@cache
def lines() -> tuple[CrisisLine, ...]:
    """The documented list."""
    return tuple(
        CrisisLine(country["country"], line["name"], number, line["source"], country["code"])
        for country in yaml.safe_load(FILE.read_text(encoding="utf-8"))
        for line in country["lines"]
        for number in line["numbers"]
    )


@cache
def kept_digits(more: tuple[str, ...] = ()) -> frozenset[str]:
    """Digits of every listed number, as dialled at home and from abroad, and of ``more`` numbers as they are."""
    return frozenset(spellings(lines())) | {digits(number) for number in more}


def spellings(lines: Iterable[CrisisLine]) -> Iterator[str]:
    """Digits under which the numbers are dialled: as listed, with the prefix, with the prefix for the leading zero."""
    for line in lines:
        at_home = digits(line.number)
        yield at_home
        if line.code and len(at_home) >= 6:
            abroad = line.code + at_home.removeprefix("0")
            yield abroad
            yield line.code + at_home
            yield "00" + abroad


def digits(number: str) -> str:
    """The number's digits."""
    return re.sub(r"[^0-9]", "", number)
