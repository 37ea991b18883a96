"""Who and what is to be forgotten: a text file, one request a line.

    t3_1abc2d          a post, with everything under it
    t1_k3x9f0          a comment
    u/SomeAccount      all posts and comments of an account
    request:5f0c...    an answer of the service, by its request_id, and the feedback on it
    post:ticket-12     all answers of the service to a post that its caller calls by this id
    # a line or an end of line like this is for people

Anything else is refused by its number, so that a slip is not taken for a removal. What a
line says is never repeated in an error: errors end up in logs.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from configs.errors import MissingInput, UsageError

_LINE = re.compile(
    r"(?:t3_(?P<post>\w+)|t1_(?P<comment>\w+)|/?u/(?P<author>[\w-]+)"
    r"|request:(?P<request>[\x21-\x7e]{1,128})|post:(?P<own>[\x21-\x7e]{1,128}))",
    re.ASCII,
)
FORMS = "t3_<post>, t1_<comment>, u/<author>, request:<request_id>, post:<id>"
SERVED, OWN = "served:", "post:"
"""Before a caller's own id of a post, and before the id of an answer of the service, which is a reply like a comment;
a draft of it is ``served:<request_id> <index>``, since the id may hold anything but a space."""
_REMARK = re.compile(r"(?:^|\s)#.*$")


_AS: dict[str, tuple[str, Callable[[str], str]]] = {
    "post": ("post", str),
    "comment": ("comment", str),
    "author": ("author", str.lower),
    "request": ("comment", SERVED.__add__),
    "own": ("post", OWN.__add__),
}
"""What each form comes to: the kind, and the id in it."""


@dataclass(frozen=True)
class Requests:
    """Ids without Reddit's prefix and names of accounts, as they stand in the dumps; the service's with ours."""

    posts: frozenset[str]
    comments: frozenset[str]
    authors: frozenset[str]
    """In lower case: accounts are the same whatever their case."""

    def __len__(self) -> int:
        return len(self.posts) + len(self.comments) + len(self.authors)


def read(path: Path) -> Requests:
    """The requests in ``path``; raises MissingInput, and UsageError naming the line that is none."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise MissingInput(f"{path}: no such file; give one with a line for each {FORMS}") from None
    except (UnicodeDecodeError, OSError) as error:
        raise UsageError(f"{path}: cannot be read as text ({type(error).__name__})") from None
    found: dict[str, set[str]] = {"post": set(), "comment": set(), "author": set()}
    for number, line in enumerate(text.splitlines(), start=1):
        request = _REMARK.sub("", line).strip()
        if not request:
            continue
        match = _LINE.fullmatch(request)
        if match is None:
            raise UsageError(f"{path}:{number}: expected one of {FORMS}; nothing was removed")
        for kind, value in match.groupdict().items():
            if value:
                into, form = _AS[kind]
                found[into].add(form(value))
    if not any(found.values()):
        raise UsageError(f"{path}: names nothing; write a line for each {FORMS}")
    return Requests(*(frozenset(found[kind]) for kind in ("post", "comment", "author")))


def shown(kind: str, value: str) -> str:
    """A request as it stands in the file; ``kind`` is ``posts``, ``comments`` or ``authors``."""
    if value.startswith(SERVED):
        return f"request:{value.removeprefix(SERVED)}"
    if value.startswith(OWN):
        return value
    return {"posts": "t3_", "comments": "t1_", "authors": "u/"}[kind] + value
