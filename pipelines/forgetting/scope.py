"""What a request comes to in the threads: an account's posts and comments, a post's whole thread.

Rows made of threads carry ids and no names, so the way from an account to its rows leads
through the threads, and only for rows made of these very threads.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipelines.forgetting.kept import Forgotten, hashed
from pipelines.forgetting.match import flat, marked
from pipelines.forgetting.requests import Requests, shown


@dataclass
class Scope:
    """What goes from this output. Holds ids and words in plain: it is never written down, logged or shown."""

    gone: Forgotten
    """Everything that goes, as hashes: what was asked, what accounts wrote, what lies under posts."""
    keep_out: Forgotten
    """What is added to the kept list: the same without what lies under posts, which goes with them anyway."""
    files: frozenset[str] = frozenset()
    """Names of the threads' files that hold any of it."""
    post_ids: frozenset[str] = frozenset()
    """Of the posts among it that lie in the threads."""
    comment_ids: frozenset[str] = frozenset()
    """Of the comments among it that lie in the threads."""
    words: frozenset[str] = frozenset()
    """Texts of the comments that are forgotten themselves."""
    seen: frozenset[str] = frozenset()
    """Hashes of what was asked and lies in the threads."""

    def unknown(self, requests: Requests, before: Forgotten) -> list[str]:
        """The requests, as in the file, of which the threads hold nothing and that were not made ``before``."""
        key, known = self.gone.key, self.seen | before.posts | before.comments | before.authors
        named = [(kind, value) for kind in ("posts", "comments", "authors") for value in getattr(requests, kind)]
        return sorted(shown(kind, value) for kind, value in named if hashed(kind, value, key) not in known)  # type: ignore[arg-type]


@dataclass
class _Found:
    posts: set[str] = field(default_factory=set)
    comments: set[str] = field(default_factory=set)
    below: set[str] = field(default_factory=set)
    words: set[str] = field(default_factory=set)
    seen: set[str] = field(default_factory=set)
    files: set[str] = field(default_factory=set)


def resolve(threads: Path, asked: Forgotten) -> Scope:
    """The scope of what was ``asked`` in the Parquet files of ``threads``; a folder that is not there holds nothing."""
    found = _Found()
    for file in sorted(threads.glob("*.parquet")):
        if look(pq.read_table(file, columns=["post_id", "author_hash", "comments"], partitioning=None), asked, found):
            found.files.add(file.name)
    own = asked.with_("posts", found.posts).with_("comments", found.comments).with_("texts", found.words)
    return Scope(
        own.with_("comments", found.below),
        own,
        frozenset(found.files),
        frozenset(found.posts),
        frozenset(found.comments | found.below),
        frozenset(found.words),
        frozenset(found.seen),
    )


def look(table: pa.Table, asked: Forgotten, found: _Found) -> bool:
    """Add what one table of THREAD holds of it; returns whether it holds any."""
    posts, comments = marked(table, asked)
    if not posts.any() and not comments.any():
        return False
    replies = flat(table["comments"])
    names = pc.struct_field(replies, "comment_id")
    sizes = pc.list_value_length(table["comments"]).to_numpy(zero_copy_only=False).astype(np.int64)
    below = np.repeat(posts, sizes)
    found.posts |= values(table["post_id"], posts)
    found.comments |= values(names, comments)
    found.below |= values(names, below)
    found.words |= values(pc.struct_field(replies, "text"), comments)
    authors = values(table["author_hash"], posts) | values(pc.struct_field(replies, "author_hash"), comments)
    found.seen |= authors | hashes(found.posts, "posts", asked.key) | hashes(found.comments, "comments", asked.key)
    return True


def values(column: pa.Array | pa.ChunkedArray, chosen: np.ndarray) -> set[str]:
    """The values at the chosen places."""
    return {value for value in column.filter(pa.array(chosen)).to_pylist() if value is not None}


def hashes(names: Iterable[str], kind: str, key: bytes) -> set[str]:
    """Names as the list knows them."""
    return {hashed(kind, name, key) for name in names}  # type: ignore[arg-type]
