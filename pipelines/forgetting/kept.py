"""What was forgotten, kept so that later builds from the same dumps leave it out.

``forgotten.json`` under the output holds hashes keyed by the authors' key and nothing in
plain: whoever finds the file without the key learns only how long the list is. With another
key the list would silently keep nothing out, so a check of the key stands in it and a key
that is missing or changed stops every build.

The same hashes are looked up in every output, whatever it is made of: ids of posts and
comments, names of accounts (as ``author_hash`` of the threads), and the words of forgotten
comments, for the drafts in rating files that carry no id.
"""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, replace
from hashlib import blake2b
from pathlib import Path
from typing import Literal

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import BaseModel, ConfigDict, ValidationError

from configs.errors import DataError
from pipelines.corpus.authors import KEY_FILE, KEY_VARIABLE, author_hash, given_key, key_check
from pipelines.forgetting.requests import SERVED, Requests

FILE = "forgotten.json"
REASON = "forgotten"
"""Under which manifests count what is not kept for this cause."""
Kind = Literal["posts", "comments", "authors", "texts"]
TEACHER = "teacher:"
"""Before the id of a comment: a teacher's revision of it, which is forgotten with it."""
_PREFIX = {"posts": "t3_", "comments": "t1_", "texts": "text "}


class KeptFile(BaseModel):
    """The file's form."""

    model_config = ConfigDict(extra="forbid")
    version: Literal[1] = 1
    key: str
    """Check of the key: what the key makes of a constant."""
    posts: list[str] = []
    comments: list[str] = []
    authors: list[str] = []
    texts: list[str] = []


@dataclass(frozen=True)
class Forgotten:
    """Keyed hashes (hex) of what is to be left out; empty in most outputs."""

    key: bytes = b""
    posts: frozenset[str] = frozenset()
    comments: frozenset[str] = frozenset()
    authors: frozenset[str] = frozenset()
    texts: frozenset[str] = frozenset()

    def __bool__(self) -> bool:
        return bool(self.posts or self.comments or self.authors or self.texts)

    def has(self, kind: Kind, value: str | None) -> bool:
        """Whether an id, name or text is on the list."""
        known: frozenset[str] = getattr(self, kind)
        return bool(known) and value is not None and hashed(kind, value, self.key) in known

    def among(self, kind: Kind, values: pa.Array | pa.ChunkedArray) -> pa.Array:
        """Those of ``values`` that are on the list, each once."""
        if not getattr(self, kind):
            return pa.array([], pa.string())
        return pa.array([value for value in pc.unique(values).to_pylist() if self.has(kind, value)], pa.string())

    def with_(self, kind: Kind, values: Iterable[str | None]) -> "Forgotten":
        """The list with ``values``, in plain, added to one kind."""
        added = {hashed(kind, value, self.key) for value in values if value is not None}
        return replace(self, **{kind: getattr(self, kind) | added})

    def union(self, other: "Forgotten") -> "Forgotten":
        """Both lists, of one key."""
        kinds = ("posts", "comments", "authors", "texts")
        return replace(self, **{kind: getattr(self, kind) | getattr(other, kind) for kind in kinds})

    def digest(self) -> str:
        """SHA-256 (hex) that changes with the list."""
        return hashlib.sha256(self.text().encode()).hexdigest()

    def text(self) -> str:
        """The file's text."""
        kinds = {kind: sorted(getattr(self, kind)) for kind in ("posts", "comments", "authors", "texts")}
        return KeptFile(key=key_check(self.key), **kinds).model_dump_json(indent=1) + "\n"


NOTHING = Forgotten()
"""The list of an output of which nothing was ever forgotten."""


def hashed(kind: Kind, value: str, key: bytes) -> str:
    """Keyed BLAKE2b (hex, 16 bytes); an account's is its ``author_hash`` in the threads."""
    if kind == "authors":
        return str(author_hash(value, key))
    whole = value.strip().removeprefix(TEACHER)
    if kind == "comments" and whole.startswith(SERVED):
        whole = whole.partition(" ")[0]  # one of the drafts of an answer, which is forgotten with it
    text = f"{_PREFIX[kind]}{whole}"
    return blake2b(text.encode("utf-8", "surrogatepass"), key=key, digest_size=16).hexdigest()


def asked(requests: Requests, key: bytes) -> Forgotten:
    """The requests as hashes."""
    found = Forgotten(key).with_("posts", requests.posts).with_("comments", requests.comments)
    return found.with_("authors", requests.authors)


def load(root: Path, named: str | None = None) -> Forgotten:
    """The list kept under the output ``root``, an empty one where nothing was ever forgotten.

    ``named`` is ``corpus.scrub.author_key``. Raises DataError where the file is damaged, or
    its key is missing or another one.
    """
    path = root / FILE
    if not path.is_file():
        return NOTHING
    try:
        kept = KeptFile.model_validate_json(path.read_text(encoding="utf-8"))
    except (ValidationError, UnicodeDecodeError):
        raise DataError(
            f"{path}: is damaged, so what was forgotten cannot be kept out; restore it from a backup"
        ) from None
    key = given_key(root, named)
    if key is None:
        raise DataError(
            f"{path}: what was forgotten is known by hashes, and their key is not there; restore {root / KEY_FILE}, or"
            f" give the key by {KEY_VARIABLE} or corpus.scrub.author_key"
        )
    if key_check(key) != kept.key:
        raise DataError(
            f"{path}: was written with another key than the one at hand, so what was forgotten cannot be kept out;"
            f" restore the key that was used ({root / KEY_FILE}, {KEY_VARIABLE} or corpus.scrub.author_key)"
        )
    return Forgotten(
        key, frozenset(kept.posts), frozenset(kept.comments), frozenset(kept.authors), frozenset(kept.texts)
    )


def depends(root: Path, named: str | None = None) -> dict[str, str]:
    """What the list adds to the settings that threads depend on: nothing while it is empty, else its digest."""
    kept = load(root, named)
    return {REASON: kept.digest()} if kept else {}
