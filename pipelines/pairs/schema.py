"""Arrow schemas of SFT rows and preference pairs, in TRL's conversational form."""

import pyarrow as pa

MESSAGES = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))
"""A conversation, or a part of one."""

SFT = pa.schema(
    [
        ("prompt", MESSAGES),
        ("completion", MESSAGES),
        ("post_id", pa.string()),
        ("comment_id", pa.string()),
        ("original_id", pa.string()),
        ("score", pa.int64()),
        ("created_utc", pa.int64()),
        ("split", pa.string()),
        ("example_ids", pa.list_(pa.string())),
    ]
)
"""One row a reply to learn from; ``original_id`` is the reply revised (IM), null for GM.

``example_ids`` are the comments that were retrieved into the prompt, null where none were.
"""

PAIR = pa.schema(
    [
        ("prompt", MESSAGES),
        ("chosen", MESSAGES),
        ("rejected", MESSAGES),
        ("post_id", pa.string()),
        ("chosen_id", pa.string()),
        ("rejected_id", pa.string()),
        ("chosen_score", pa.int64()),
        ("rejected_score", pa.int64()),
        ("chosen_created_utc", pa.int64()),
        ("rejected_created_utc", pa.int64()),
        ("rule", pa.string()),
        ("split", pa.string()),
        ("original_id", pa.string()),
        ("example_ids", pa.list_(pa.string())),
    ]
)
"""One preference pair; ``original_id`` is the draft in the prompt (IM), null for GM; ``example_ids`` as in SFT.

Scores are net votes, null for pairs from ratings; times in seconds since 1970 UTC.
"""

SPLITS = ("train", "validation", "test")
