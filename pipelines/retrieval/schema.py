"""Arrow schemas of retrieval: the posts on their way into the index, the index' two tables, the examples."""

import pyarrow as pa

from pipelines.corpus.schema import NOTE

ENTRIES, QUERIES = "entries", "queries"
"""Tables of the index: posts that may be found, and the vectors of those that only ask."""

REPLY = pa.struct(
    [("comment_id", pa.string()), ("author_hash", pa.string()), ("text", pa.string()), ("score", pa.int64())]
)
"""A well-received reply."""

_POST = [("post_id", pa.string()), ("author_hash", pa.string()), ("text_key", pa.string())]

POST = pa.schema(
    [*_POST, ("text", pa.string()), ("subreddit", pa.string()), ("post", pa.string()), ("replies", pa.list_(REPLY))]
)
"""A post before it has a vector: ``text`` is what is embedded, ``post`` what an example shows (null: only asks)."""

POST_OR_NOTE = pa.schema([*POST, *NOTE])
"""What leaves the first step: posts (``kind`` null) and notes (``post_id`` null)."""


def vector(dimensions: int) -> pa.Field:
    """The column that is searched: a unit vector."""
    return pa.field("vector", pa.list_(pa.float32(), dimensions))


def entry(dimensions: int) -> pa.Schema:
    """A post that may be found, best reply first."""
    return pa.schema(
        [*_POST, ("subreddit", pa.string()), ("post", pa.string()), ("replies", pa.list_(REPLY)), vector(dimensions)]
    )


def query(dimensions: int) -> pa.Schema:
    """A post that only asks: its vector, so that the next build need not embed it again; none of its words."""
    return pa.schema([*_POST, vector(dimensions)])


def embedded(dimensions: int) -> pa.Schema:
    """What leaves the embedding step: posts with vectors, without the text that was embedded, and notes."""
    return pa.schema([*(field for field in POST_OR_NOTE if field.name != "text"), vector(dimensions)])


EXAMPLE = pa.struct(
    [
        ("post_id", pa.string()),
        ("post_author_hash", pa.string()),
        ("comment_id", pa.string()),
        ("reply_author_hash", pa.string()),
        ("post", pa.string()),
        ("reply", pa.string()),
        ("score", pa.int64()),
        ("similarity", pa.float64()),
    ]
)
"""A similar post with one well-received reply; ``similarity`` is the cosine of the posts."""

EXAMPLES = pa.schema([*_POST[:2], ("examples", pa.list_(EXAMPLE))])
"""The examples of one post's prompts, most similar first."""
