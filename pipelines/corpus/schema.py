"""Arrow schemas of the corpus stage: the only place that spells its columns.

Every row carries its own fate: ``dropped`` is null while the row lives and holds the
reason once it does not, and ``count`` says how many lines of a dump the row stands for
(more than one only for tallies, which have no id). Each step maps a table to a table
with the same sum of ``count``; that is what makes the manifest's row counts exact even
when Ray runs a task twice.
"""

import pyarrow as pa

POST, COMMENT, SEEN, TALLY = "post", "comment", "seen", "tally"
"""Kinds of row; ``seen`` counts the lines of a subreddit and is no line itself."""

ROW = pa.schema(
    [
        ("kind", pa.string()),
        ("id", pa.string()),
        ("post_id", pa.string()),
        ("parent_id", pa.string()),
        ("subreddit", pa.string()),
        ("author", pa.string()),
        ("title", pa.string()),
        ("text", pa.string()),
        ("created_utc", pa.int64()),
        ("score", pa.int64()),
        ("dropped", pa.string()),
        ("count", pa.int64()),
    ]
)
"""A post, a comment or a tally; ids without prefix, ``parent_id`` with, times in seconds since 1970 UTC.

``author`` is null where the account was deleted.
"""

FLAGS = pa.schema(
    [
        ("removed", pa.bool_()),
        ("distinguished", pa.bool_()),
        ("stickied", pa.bool_()),
        ("edited", pa.bool_()),
        ("over_18", pa.bool_()),
        ("is_self", pa.bool_()),
        ("crosspost", pa.bool_()),
        ("score_hidden", pa.bool_()),
        ("contest_mode", pa.bool_()),
        ("settled", pa.bool_()),
    ]
)
"""What the cleaning rules ask beside a row's own columns; null where the dump does not say."""

RECORD = pa.schema([*ROW, *FLAGS])
"""A row as read, before cleaning."""

KEY = pa.schema(
    [
        ("key", pa.uint64()),
        ("near", pa.bool_()),
        ("kind", pa.string()),
        ("id", pa.string()),
        ("post_id", pa.string()),
        ("created_utc", pa.int64()),
        ("signature", pa.binary()),
    ]
)
"""What a living row may share with a row that it repeats: the hash of its text, or that of one band of its signature.

``near`` tells the two apart; ``signature`` is what two rows of one key are compared by (8 bytes
of another hash, or a compact MinHash signature).
"""

REPLY = pa.struct(
    [
        ("comment_id", pa.string()),
        ("author_hash", pa.string()),
        ("text", pa.string()),
        ("created_utc", pa.int64()),
        ("score", pa.int64()),
    ]
)
"""A comment inside its thread, scrubbed, its author as a keyed hash (hex)."""

THREAD = pa.schema(
    [
        ("post_id", pa.string()),
        ("subreddit", pa.string()),
        ("author_hash", pa.string()),
        ("title", pa.string()),
        ("text", pa.string()),
        ("created_utc", pa.int64()),
        ("score", pa.int64()),
        ("split", pa.string()),
        ("comments", pa.list_(REPLY)),
    ]
)
"""One row a post; ``split`` is train, validation or test, by the post's author; comments in order of arrival."""

NOTE = pa.schema([("kind", pa.string()), ("name", pa.string()), ("count", pa.int64())])
"""A line of the stage's bookkeeping: of ``kind``, so many rows ended as ``name`` (null: kept)."""
