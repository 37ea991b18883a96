"""Arrow schemas of the stage ``revisions``: what is asked of the teacher, what it answered, what came of it."""

import pyarrow as pa

COMMUNITY, TEACHER = "community", "teacher"
"""Sources of revisions."""

REQUEST = pa.schema(
    [
        ("key", pa.string()),
        ("prompt", pa.string()),
        ("post_id", pa.string()),
        ("split", pa.string()),
        ("original_id", pa.string()),
        ("original", pa.string()),
        ("worse_id", pa.string()),
        ("example_ids", pa.list_(pa.string())),
    ]
)
"""One draft that the teacher is to revise; ``key`` is equal for equal prompts to the same model, equally sampled.

Lives only while the stage runs.
"""

ANSWER = pa.schema(
    [
        ("key", pa.string()),
        ("text", pa.string()),
        ("finish_reason", pa.string()),
        ("prompt_tokens", pa.int64()),
        ("completion_tokens", pa.int64()),
        ("post_id", pa.string()),
        ("original_id", pa.string()),
        ("example_ids", pa.list_(pa.string())),
    ]
)
"""One answer of the teacher; ``finish_reason`` is the endpoint's (stop, length, ...), or ``refused`` for a status 4xx.

Token counts are the endpoint's own, null where it gives none. The ids name all that the prompt was made of.
"""

REVISION = pa.schema(
    [
        ("post_id", pa.string()),
        ("split", pa.string()),
        ("source", pa.string()),
        ("original_id", pa.string()),
        ("revision_id", pa.string()),
        ("text", pa.string()),
        ("worse_id", pa.string()),
        ("similarity", pa.float32()),
        ("example_ids", pa.list_(pa.string())),
    ]
)
"""One draft and what it should become.

``revision_id`` is a comment of the same post, or ``teacher:`` and the original's id; ``text``
is the teacher's words, null for a comment, whose words stay in the threads. ``worse_id`` is
the comment that the preference pair rejects, null where it rejects the original.
``similarity`` is the cosine of original and revision. ``example_ids`` are the comments that
the teacher was shown, null where none were.
"""


def teacher_id(original_id: str) -> str:
    """The id of the teacher's revision of a comment: names the comment, so that forgetting it finds the revision."""
    return f"{TEACHER}:{original_id}"
