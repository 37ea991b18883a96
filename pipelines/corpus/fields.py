"""Fields of the dumps, 2005-2026, converted one by one to one form.

The dumps drifted: ``created_utc`` is a string in 96 of 242 comment months, ``score`` may
be null, ``edited`` is a bool, a float or an int, ids come with and without prefix, text
holds lone surrogates and HTML entities. Readers with a fixed schema raise on that or turn
values into nulls without a word; here each field has a function that says what it takes,
and a line without what every row needs is ``incomplete`` and goes to quarantine.
"""

import html
import re
from collections.abc import Mapping
from typing import Any

from pipelines.corpus.schema import COMMENT, POST

Record = Mapping[str, Any]
REMOVED = frozenset({"[removed]", "[ removed by reddit ]", "[removed by reddit]"})
GONE = frozenset({"[deleted]", "[deleted by user]"}) | REMOVED
NAMELESS = frozenset({"", "[deleted]", "[removed]"})
EARLIEST, LATEST = 1_104_537_600, 4_102_444_800
"""2005-01-01 and 2100-01-01 UTC, in seconds: what can be a time of posting."""
_INVISIBLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b\u200e\u200f\u2028-\u202e\u2060\ufeff]")


class Incomplete(ValueError):
    """A line lacks a field that every row needs; the message is the field's name."""


def post(record: Record) -> dict[str, Any]:
    """The columns of RECORD for a post, without its bookkeeping; raises Incomplete."""
    body = text(record.get("selftext"))
    return {
        **_common(record),
        "kind": POST,
        "post_id": identifier(record, "id"),
        "parent_id": None,
        "title": text(required(record, "title")),
        "text": "" if is_gone(body) else body,
        "removed": is_gone(body) or bool(record.get("removed_by_category")),
        "over_18": boolean(record.get("over_18")),
        "is_self": boolean(record.get("is_self")),
        "crosspost": is_crosspost(record),
        "score_hidden": None,
        "contest_mode": boolean(record.get("contest_mode")),
    }


def comment(record: Record) -> dict[str, Any]:
    """The columns of RECORD for a comment, without its bookkeeping; raises Incomplete."""
    body = text(required(record, "body"))
    return {
        **_common(record),
        "kind": COMMENT,
        "post_id": identifier(record, "link_id"),
        "parent_id": name_of(record.get("parent_id")),
        "title": None,
        "text": body,
        "removed": is_gone(body),
        "over_18": None,
        "is_self": None,
        "crosspost": None,
        "score_hidden": boolean(record.get("score_hidden")),
        "contest_mode": None,
    }


def _common(record: Record) -> dict[str, Any]:
    created = seconds(record.get("created_utc"))
    if created is None:
        raise Incomplete("created_utc")
    return {
        "id": identifier(record, "id"),
        "subreddit": name_of(required(record, "subreddit")),
        "author": author(record.get("author")),
        "created_utc": created,
        "score": integer(record.get("ups") if record.get("score") is None else record["score"]),
        "distinguished": bool(record.get("distinguished")),
        "stickied": boolean(record.get("stickied")),
        "edited": edited(record.get("edited")),
        "settled": settled(record.get("_meta")),
    }


def required(record: Record, name: str) -> Any:
    """The field's value; raises Incomplete where it is absent or null."""
    value = record.get(name)
    if value is None:
        raise Incomplete(name)
    return value


def identifier(record: Record, name: str) -> str:
    """An id without its ``t3_`` or ``t1_`` prefix; raises Incomplete."""
    value = bare(record.get(name))
    if value is None:
        raise Incomplete(name)
    return value


def bare(value: Any) -> str | None:
    """An id without its ``t3_`` or ``t1_`` prefix, None where nothing is left."""
    name = encodable(str(value).strip()) if value is not None else ""
    if name[2:3] == "_" and name[0] == "t":
        name = name[3:]
    return name or None


def name_of(value: Any) -> str | None:
    """A name as it stands."""
    return encodable(str(value)) if value is not None else None


def is_crosspost(record: Record) -> bool:
    """Whether a post repeats one of another community."""
    return bool(record.get("crosspost_parent") or record.get("crosspost_parent_list"))


def seconds(value: Any) -> int | None:
    """Seconds since 1970 UTC from an int, float or string, in seconds or milliseconds."""
    number = integer(value)
    if number is None:
        return None
    if number > LATEST:
        number //= 1000
    return number if EARLIEST <= number < LATEST else None


def integer(value: Any) -> int | None:
    """An int from an int, float or numeric string; None for anything else."""
    if isinstance(value, bool) or value is None:
        return None
    try:
        number = int(value) if isinstance(value, int) else int(float(value))
    except (TypeError, ValueError, OverflowError):
        return None
    return number if -(2**63) <= number < 2**63 else None


def boolean(value: Any) -> bool | None:
    """A bool from a bool, number or string; None where the dump does not say."""
    if value is None:
        return None
    if isinstance(value, str):
        return value.strip().lower() not in {"", "false", "0", "no", "none", "null"}
    return bool(value)


def edited(value: Any) -> bool | None:
    """Whether the row was edited: ``false``, ``true`` (before 2010) or the time of the edit."""
    return boolean(value)


def settled(meta: Any) -> bool | None:
    """Whether the score was read a second time, 36 h after posting, by the row's ``_meta``; None where that is silent.

    From 2023-11 on the public dumps hold each row as first seen and mark in ``_meta`` the
    rows that were read again.
    """
    return meta.get("retrieved_2nd_on") is not None if isinstance(meta, Mapping) else None


def author(value: Any) -> str | None:
    """The account's name, None where it was deleted."""
    name = str(value).strip() if value is not None else ""
    return None if name.lower() in NAMELESS else encodable(name)


def text(value: Any) -> str:
    """Text as its writer saw it: entities resolved, lone surrogates replaced, invisible characters out."""
    if not isinstance(value, str):
        return ""
    if "&" in value:
        value = html.unescape(html.unescape(value))
    value = value.replace("\r\n", "\n")
    return _INVISIBLE.sub("", encodable(value)).strip()


def encodable(value: str) -> str:
    """``value`` with surrogate pairs joined and lone surrogates replaced, so that UTF-8 can hold it."""
    if value.isascii():
        return value
    try:
        value.encode()
    except UnicodeEncodeError:
        return value.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return value


def is_gone(body: str) -> bool:
    """Whether a text stands for one that was deleted by its writer or removed by others."""
    return body[:1] == "[" and len(body) < 40 and body.lower() in GONE
