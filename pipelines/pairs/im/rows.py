"""Rows of the improvement model: post and draft in, revision out.

What a draft should become was decided by the stage ``revisions``; here its rows are joined
with the words of the threads they are about:

    revisions = of_slice(folder, file, threads)        # file: of threads; threads: a slice of it
    rows = pair_table(threads, revisions, template, rule, shown)
"""

from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from configs.prompts import render, whole_post
from pipelines.pairs.gm import Shown, example_ids
from pipelines.pairs.im.schema import COMMUNITY, REVISION, TEACHER
from pipelines.pairs.rows import turns
from pipelines.pairs.schema import PAIR, SFT


def of_slice(folder: Path, file: Path, threads: pa.Table) -> pa.Table:
    """The revisions (columns REVISION) in the stage's output ``folder`` of a slice of the threads in ``file``."""
    own = (folder / source / file.name for source in (COMMUNITY, TEACHER))
    found = [pq.read_table(path, partitioning=None, filters=among(threads)) for path in own if path.is_file()]
    return pa.concat_tables([REVISION.empty_table(), *found]).select(REVISION.names)


def among(threads: pa.Table) -> pc.Expression:
    """Asks for the rows of these threads."""
    return pc.field("post_id").isin(pa.array(threads["post_id"].combine_chunks()))


class Located:
    """Revisions with the threads that they are about, column by column."""

    def __init__(self, threads: pa.Table, revisions: pa.Table):
        self.threads, self.comments = threads, pc.list_flatten(threads["comments"].combine_chunks())
        ids = pc.struct_field(self.comments, "comment_id")
        self.posts = pc.index_in(revisions["post_id"], threads["post_id"]).combine_chunks()
        self.originals = pc.index_in(revisions["original_id"], ids).combine_chunks()
        better = pc.index_in(revisions["revision_id"], ids).combine_chunks()
        # A teacher's revision is no comment: its votes and time are null.
        self.revised = self.comments.take(better)
        self.texts = pc.coalesce(revisions["text"].combine_chunks(), pc.struct_field(self.revised, "text"))
        self.ids = revisions["revision_id"].combine_chunks()
        self.sources = revisions["source"].combine_chunks()
        worse = pc.coalesce(revisions["worse_id"], revisions["original_id"])
        self.rejected = self.comments.take(pc.index_in(worse, ids).combine_chunks())

    def post(self, name: str) -> pa.Array:
        """A column of the posts."""
        return self.threads[name].combine_chunks().take(self.posts)

    def original(self, name: str) -> pa.Array:
        """A field of the originals."""
        return pc.struct_field(self.comments.take(self.originals), name)

    def prompts(self, template: str, shown: Shown) -> pa.Array:
        """The conversations (MESSAGES) that ask to improve each original."""
        columns = (self.posts, self.post("title"), self.post("text"), self.original("text"))
        texts = [
            render(template, whole_post(title, text), draft, shown[row].examples if shown else ())
            for row, title, text, draft in zip(*(column.to_pylist() for column in columns), strict=True)
        ]
        return turns(pa.array(texts, pa.string()), "user")


def sft_table(threads: pa.Table, revisions: pa.Table, template: str, shown: Shown = None) -> pa.Table:
    """Rows of SFT: given post and draft, write the revision."""
    rows = Located(threads, revisions)
    columns = {
        "prompt": rows.prompts(template, shown),
        "completion": turns(rows.texts),
        "post_id": rows.post("post_id"),
        "comment_id": rows.ids,
        "original_id": rows.original("comment_id"),
        "score": pc.struct_field(rows.revised, "score"),
        "created_utc": pc.struct_field(rows.revised, "created_utc"),
        "split": rows.post("split"),
        "example_ids": example_ids(rows.posts.to_numpy(), shown),
    }
    return pa.table(columns).select(SFT.names)


def pair_table(threads: pa.Table, revisions: pa.Table, template: str, rule: str, shown: Shown = None) -> pa.Table:
    """Rows of PAIR: given post and draft, the revision is better than the draft or another, worse reply.

    ``rule`` is the pair rule that ranks the community's replies; the rows of a teacher are of the rule ``teacher``.
    """
    rows = Located(threads, revisions)
    columns = {
        "prompt": rows.prompts(template, shown),
        "chosen": turns(rows.texts),
        "rejected": turns(pc.struct_field(rows.rejected, "text")),
        "post_id": rows.post("post_id"),
        "chosen_id": rows.ids,
        "rejected_id": pc.struct_field(rows.rejected, "comment_id"),
        "chosen_score": pc.struct_field(rows.revised, "score"),
        "rejected_score": pc.struct_field(rows.rejected, "score"),
        "chosen_created_utc": pc.struct_field(rows.revised, "created_utc"),
        "rejected_created_utc": pc.struct_field(rows.rejected, "created_utc"),
        "rule": pc.if_else(pc.equal(rows.sources, TEACHER), TEACHER, rule),
        "split": rows.post("split"),
        "original_id": rows.original("comment_id"),
        "example_ids": example_ids(rows.posts.to_numpy(), shown),
    }
    return pa.table(columns).select(PAIR.names)
