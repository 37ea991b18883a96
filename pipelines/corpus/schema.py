"""Arrow schemas of the corpus stage: the only place that spells its columns."""

import pyarrow as pa

POST = pa.schema(
    [
        ("post_id", pa.string()),
        ("subreddit", pa.string()),
        ("author", pa.string()),
        ("title", pa.string()),
        ("text", pa.string()),
        ("created_utc", pa.int64()),
        ("score", pa.int64()),
    ]
)
"""A post as read; ``created_utc`` in seconds since 1970 UTC, ids without their ``t3_`` prefix."""

COMMENT = pa.schema(
    [
        ("comment_id", pa.string()),
        ("post_id", pa.string()),
        ("parent_id", pa.string()),
        ("author", pa.string()),
        ("text", pa.string()),
        ("created_utc", pa.int64()),
        ("score", pa.int64()),
    ]
)
"""A comment as read; ``parent_id`` keeps its ``t1_`` or ``t3_`` prefix."""

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
