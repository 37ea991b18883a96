"""The built-in sample: dump files of an invented community, and the truth about them.

    RS_2019-03.zst ...   posts, a JSON object a line
    RC_2019-03.zst ...   comments
    truth.parquet        quality, the five dimensions and the kind of every comment

The same settings give the same rows. Nobody wrote or rated any of it: whatever is
measured on the sample shows that the machinery works, not that replies help people.
"""

import random
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from configs.corpus import SampleSettings
from pipelines.manifest import Manifest, writing
from pipelines.sample.community import Community, Thread
from pipelines.sample.dirt import soil
from pipelines.sample.dumps import by_month, comment_row, post_row, write_files
from pipelines.sample.quality import DIMENSIONS

STAGE = "sample"
TRUTH_FILE = "truth.parquet"
NOTE = "The sample is simulated: no person wrote, read or rated any of its posts and comments."

TRUTH = pa.schema(
    [
        ("comment_id", pa.string()),
        ("post_id", pa.string()),
        ("quality", pa.float64()),
        *((dimension, pa.float64()) for dimension in DIMENSIONS),
        ("arrival_rank", pa.int64()),
        ("post_created_utc", pa.int64()),
        ("created_utc", pa.int64()),
        ("kind", pa.string()),
    ]
)
"""One row a comment. Quality and dimensions (1-5) are null where there is no reply to judge (deleted rows, bots);
``arrival_rank`` counts a thread's replies from 1 and is 0 for other rows."""


def depends(sample: SampleSettings) -> dict[str, Any]:
    """The settings that the sample depends on."""
    return sample.model_dump(mode="json")


def build(sample: SampleSettings, output: Path) -> Manifest:
    """Write the sample's dumps and truth below ``output``."""
    with writing(output, stage=STAGE, settings=depends(sample), inputs={}) as draft:
        threads = simulate(sample)
        rng = random.Random(f"dumps {sample.seed}")
        posts = [post_row(rng, thread) for thread in threads]
        comments = [comment_row(rng, thread, comment) for thread in threads for comment in thread.comments]
        malformed = write_files(rng, draft.path, by_month("RS", posts) | by_month("RC", comments))
        pq.write_table(truth(threads), draft.path / TRUTH_FILE)
        for kind, rows in (("posts", len(posts)), ("comments", len(comments)), ("malformed_lines", malformed)):
            draft.count(kind, read=rows, kept=rows)
        draft.figures["posts_by_kind"] = dict(sorted(Counter(thread.kind for thread in threads).items()))
        draft.figures["comments_by_kind"] = dict(
            sorted(Counter(comment.kind for thread in threads for comment in thread.comments).items())
        )
        draft.notes.append(NOTE)
    assert draft.manifest is not None
    return draft.manifest


def simulate(sample: SampleSettings) -> list[Thread]:
    """``sample.threads`` clean threads, with the dirt of dumps added to them."""
    rng = random.Random(sample.seed)
    community = Community(rng, sample.threads)
    threads = [community.thread() for _ in range(sample.threads)]
    soil(rng, community, threads)
    return threads


def truth(threads: Sequence[Thread]) -> pa.Table:
    """The truth about every comment, schema ``TRUTH``."""
    rows = []
    for thread in threads:
        for comment in thread.comments:
            judged = comment.truth._asdict() if comment.truth is not None else {}
            rows.append(
                judged
                | {
                    "comment_id": comment.comment_id,
                    "post_id": comment.post_id or thread.post_id,
                    "arrival_rank": comment.order,
                    "post_created_utc": thread.created_utc,
                    "created_utc": comment.created_utc,
                    "kind": comment.kind,
                }
            )
    return pa.Table.from_pylist(rows, TRUTH)
