"""Rows that hold something forgotten, found by the ids they carry and taken out.

Pure functions over Arrow tables. Taking a post out of the threads takes everything under
it; taking a comment out leaves the rest of its thread. A row of any other output goes where
a post or comment it is made of goes: as its post, its reply, either side of a pair, the
draft that is revised, or an example in its prompt. Rows are found by id, not by wording: a
comment of somebody else that quotes a forgotten one stays.
"""

from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.forgetting.kept import Forgotten, Kind

IDS: dict[str, Kind] = {
    "post_id": "posts",
    "comment_id": "comments",
    "chosen_id": "comments",
    "rejected_id": "comments",
    "original_id": "comments",
    "revision_id": "comments",
    "worse_id": "comments",
    "example_ids": "comments",
}
"""Columns (of JSON lines: fields) that name what a row is made of; one of lists names several."""


@dataclass(frozen=True)
class Threads:
    """Threads without what is forgotten, and what that was."""

    kept: pa.Table
    """Schema THREAD."""
    posts: int
    """Posts taken out."""
    comments: int
    """Comments taken out, those under these posts among them."""


def from_threads(table: pa.Table, gone: Forgotten) -> Threads:
    """A table of THREAD without its forgotten posts and comments; the same table where there are none."""
    if not gone:
        return Threads(table, 0, 0)
    posts, comments = marked(table, gone)
    sizes = pc.list_value_length(table["comments"]).to_numpy(zero_copy_only=False).astype(np.int64)
    owners = np.repeat(np.arange(table.num_rows), sizes)
    lost = comments | posts[owners]
    if not posts.any() and not lost.any():
        return Threads(table, 0, 0)
    stay = ~lost
    left = np.bincount(owners[stay], minlength=table.num_rows)
    offsets = pa.array(np.concatenate([[0], np.cumsum(left)]), pa.int32())
    replies = flat(table["comments"]).filter(pa.array(stay))
    position = table.schema.get_field_index("comments")
    whole = pa.ListArray.from_arrays(offsets, replies, type=table.schema.field(position).type)
    kept = table.set_column(position, table.schema.field(position), whole).filter(pa.array(~posts))
    return Threads(kept, int(posts.sum()), int(lost.sum()))


def marked(table: pa.Table, gone: Forgotten) -> tuple[np.ndarray, np.ndarray]:
    """Of a table of THREAD: which posts, and which of all comments one after the other, are forgotten themselves."""
    replies = flat(table["comments"])
    posts = named(table["post_id"], "posts", gone) | named(table["author_hash"], "authors", gone)
    comments = named(pc.struct_field(replies, "comment_id"), "comments", gone)
    return posts, comments | named(pc.struct_field(replies, "author_hash"), "authors", gone)


def named(values: pa.Array | pa.ChunkedArray, kind: Kind, gone: Forgotten) -> np.ndarray:
    """For each value whether it is on the list; a hash of an author is looked up as it is."""
    if kind == "authors":
        found = pc.is_in(values, value_set=pa.array(sorted(gone.authors), pa.string()))
    else:
        found = pc.is_in(values, value_set=gone.among(kind, values))
    return found.to_numpy(zero_copy_only=False).astype(bool)


def flat(lists: pa.ChunkedArray) -> pa.StructArray:
    """All values of a column of lists as one array."""
    values = pc.list_flatten(lists)
    return values.combine_chunks() if isinstance(values, pa.ChunkedArray) else values


def in_rows(table: pa.Table, gone: Forgotten) -> np.ndarray:
    """For each row of any other table whether it is made of something forgotten."""
    found = np.zeros(table.num_rows, bool)
    for name, kind in IDS.items():
        if name not in table.schema.names:
            continue
        column = table[name]
        if pa.types.is_list(column.type) or pa.types.is_large_list(column.type):
            owners = pc.list_parent_indices(column).to_numpy().astype(np.int64)
            found[owners[named(pc.list_flatten(column), kind, gone)]] = True
        else:
            found |= named(column, kind, gone)
    return found


def in_line(row: dict[str, Any], gone: Forgotten) -> bool:
    """``in_rows`` for one JSON object."""
    for name, kind in IDS.items():
        value = row.get(name)
        values = value if isinstance(value, list) else [value]
        if any(gone.has(kind, item) for item in values if isinstance(item, str)):
            return True
    return False


def in_rating(row: dict[str, Any], gone: Forgotten) -> bool:
    """Whether a line of a rating file shows something forgotten: its post, a response, or the draft by its words."""
    responses = [row.get(name) or {} for name in ("response_a", "response_b")]
    return (
        gone.has("posts", row.get("post_id"))
        or any(gone.has("comments", response.get("id")) for response in responses)
        or any(gone.has("texts", text) for text in [row.get("draft"), *(r.get("text") for r in responses)])
    )


def counted(column: pa.ChunkedArray) -> Counter[str]:
    """How often each value occurs."""
    found = column.value_counts()
    return Counter(dict(zip(found.field("values").to_pylist(), found.field("counts").to_pylist(), strict=True)))
