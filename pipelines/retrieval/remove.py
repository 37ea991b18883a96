"""Taking posts, comments and authors out of the index, their words and vectors with them.

    counts = remove(layout.retrieval, post_ids={"abc"}, comment_ids=set(), author_hashes=set())

What is left is written to new files and the old ones are deleted, so that nothing removed
stays on disk in an old version. The manifest is the caller's to bring up to date. Run
while nothing else has the index open.
"""

from collections import Counter
from collections.abc import Set
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipelines.retrieval import store
from pipelines.retrieval.examples import FOLDER
from pipelines.retrieval.lookup import INDEX, Description, described
from pipelines.retrieval.schema import ENTRIES, EXAMPLES, QUERIES
from pipelines.retrieval.search import build_approximate


class Gone(NamedTuple):
    """Who and what has to leave."""

    posts: Set[str]
    comments: Set[str]
    authors: Set[str]

    def post(self, post_id: str, author: str | None) -> bool:
        """Whether this post leaves."""
        return post_id in self.posts or author in self.authors

    def reply(self, reply: dict[str, Any]) -> bool:
        """Whether this reply leaves."""
        return reply["comment_id"] in self.comments or reply["author_hash"] in self.authors

    def example(self, example: dict[str, Any]) -> bool:
        """Whether this example leaves, for its post or its reply."""
        reply = {"comment_id": example["comment_id"], "author_hash": example["reply_author_hash"]}
        return self.post(example["post_id"], example["post_author_hash"]) or self.reply(reply)


def remove(
    folder: Path,
    post_ids: Set[str] = frozenset(),
    comment_ids: Set[str] = frozenset(),
    author_hashes: Set[str] = frozenset(),
) -> dict[str, int]:
    """Remove these posts, comments and authors from the retrieval stage's output in ``folder``.

    Returns how many ``entries`` (posts that could be found; one without a reply left goes too),
    ``replies`` of the posts that stay, ``queries`` (vectors of other posts) and ``examples`` went.
    Asked again for the same, it finds nothing and still leaves no old file behind.
    """
    gone = Gone(post_ids, comment_ids, author_hashes)
    counts: Counter[str] = Counter(entries=0, replies=0, queries=0, examples=0)
    database = store.connect(folder / INDEX)
    for name, keep in ((ENTRIES, keep_entries), (QUERIES, keep_queries)):
        table = database.open_table(name)
        rows = store.batches(table, table.schema.names)
        store.rewrite(database, name, (keep(batch, gone, counts) for batch in rows))
    search_again(folder)
    for path in sorted((folder / FOLDER).glob("*.parquet")):
        keep_examples(path, gone, counts)
    return dict(counts)


def keep_entries(batch: pa.RecordBatch, gone: Gone, counts: Counter[str]) -> pa.RecordBatch:
    """The posts that stay, with the replies that stay."""
    mask, replies = [], []
    for post_id, author, some in zip(
        *(batch[name].to_pylist() for name in ("post_id", "author_hash", "replies")), strict=True
    ):
        left = [reply for reply in some if not gone.reply(reply)]
        stays = bool(left) and not gone.post(post_id, author)
        mask.append(stays)
        counts["entries"] += not stays
        if stays:
            counts["replies"] += len(some) - len(left)
            replies.append(left)
    kept = batch.filter(pa.array(mask, pa.bool_()))
    at = batch.schema.get_field_index("replies")
    return kept.set_column(at, batch.schema.field(at), pa.array(replies, batch.schema.field(at).type))


def keep_queries(batch: pa.RecordBatch, gone: Gone, counts: Counter[str]) -> pa.RecordBatch:
    """The vectors that stay."""
    pairs = zip(batch["post_id"].to_pylist(), batch["author_hash"].to_pylist(), strict=True)
    mask = pa.array([not gone.post(post_id, author) for post_id, author in pairs], pa.bool_())
    counts["queries"] += len(mask) - (pc.sum(mask).as_py() or 0)
    return batch.filter(mask)


def keep_examples(path: Path, gone: Gone, counts: Counter[str]) -> None:
    """Rewrite one file of EXAMPLES where anything in it has to leave."""
    rows = pq.read_table(path, schema=EXAMPLES).to_pylist()
    left = []
    for row in rows:
        stays = [] if gone.post(row["post_id"], row["author_hash"]) else row["examples"]
        stays = [example for example in stays if not gone.example(example)]
        counts["examples"] += len(row["examples"]) - len(stays)
        if stays:
            left.append(row | {"examples": stays})
    if left != rows:
        partial = path.with_name(f".{path.name}.partial")
        pq.write_table(pa.Table.from_pylist(left, schema=EXAMPLES), partial, compression="zstd")
        partial.replace(path)


def search_again(folder: Path) -> None:
    """Build the approximate index again over what is left, where there was one."""
    made = described(folder)
    if made is None or made.search.get("kind") == "exact":
        return
    search = build_approximate(folder / INDEX, made.search["min_recall"])
    Description(made.embedder, made.model, made.dimensions, search).write(folder)
