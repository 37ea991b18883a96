"""Rows of the generation model: post in, comment out.

Texts are taken from the table of threads by Arrow; only prompts are rendered one by one,
and only for posts that get a row.
"""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from configs.pairs import SftRowSettings
from configs.prompts import render, whole_post
from pipelines.pairs.replies import Ints, Replies
from pipelines.pairs.rows import turns
from pipelines.pairs.schema import PAIR, SFT
from pipelines.pairs.select import Candidates, place
from pipelines.retrieval.examples import Retrieved

Shown = Sequence[Retrieved] | None
"""What was retrieved for the posts of a table of THREAD, row by row; None where nothing is."""


def prompts(threads: pa.Table, posts: Ints, template: str, shown: Shown = None) -> pa.Array:
    """The conversations (MESSAGES) that ask for a comment on the posts at some rows, each rendered once."""
    rows, which = np.unique(posts, return_inverse=True)
    asked = threads.select(["title", "text"]).take(pa.array(rows))
    texts = [
        render(template, whole_post(title, text), examples=shown[row].examples if shown else ())
        for row, title, text in zip(rows, asked["title"].to_pylist(), asked["text"].to_pylist(), strict=True)
    ]
    return turns(pa.array(texts, pa.string()), "user").take(pa.array(which))


def example_ids(posts: Ints, shown: Shown) -> pa.Array:
    """The comments that were retrieved into the prompts of the posts at some rows, null where nothing is."""
    return pa.array([shown[row].ids if shown else None for row in posts], PAIR.field("example_ids").type)


def pair_table(threads: pa.Table, pairs: Candidates, template: str, rule: str, shown: Shown = None) -> pa.Table:
    """Rows of PAIR: of the two replies the chosen one answers the post better."""
    replies, posts = pc.list_flatten(threads["comments"].combine_chunks()), pa.array(pairs.posts)
    sides = {"chosen": replies.take(pa.array(pairs.chosen)), "rejected": replies.take(pa.array(pairs.rejected))}
    columns = {
        "prompt": prompts(threads, pairs.posts, template, shown),
        "post_id": threads["post_id"].take(posts),
        "rule": pa.array([rule]).take(pa.array(np.zeros(len(pairs), np.int64))),
        "split": threads["split"].take(posts),
        "original_id": pa.nulls(len(pairs), pa.string()),
        "example_ids": example_ids(pairs.posts, shown),
    }
    for side, taken in sides.items():
        columns[side] = turns(pc.struct_field(taken, "text"))
        columns[f"{side}_id"] = pc.struct_field(taken, "comment_id")
        columns[f"{side}_score"] = pc.struct_field(taken, "score")
        columns[f"{side}_created_utc"] = pc.struct_field(taken, "created_utc")
    return pa.table(columns).select(PAIR.names)


def well_received(replies: Replies, settings: SftRowSettings) -> tuple[Ints, int, int]:
    """Positions of the replies to learn from, by post and then best score first (ties by id).

    With how many more had the score but were over the cap, and how many had not.
    """
    liked = np.flatnonzero(replies.scores >= settings.min_score)
    liked = liked[np.lexsort((replies.names[liked], -replies.scores[liked], replies.posts[liked]))]
    kept = liked[place(replies.posts[liked]) < settings.max_per_post]
    return kept, len(liked) - len(kept), len(replies) - len(liked)


def sft_table(threads: pa.Table, replies: Replies, learned: Ints, template: str, shown: Shown = None) -> pa.Table:
    """Rows of SFT: the replies at the positions ``learned`` answer their posts."""
    taken = pc.list_flatten(threads["comments"].combine_chunks()).take(pa.array(learned))
    posts = replies.posts[learned]
    columns = {
        "prompt": prompts(threads, posts, template, shown),
        "completion": turns(pc.struct_field(taken, "text")),
        "post_id": threads["post_id"].take(pa.array(posts)),
        "comment_id": pc.struct_field(taken, "comment_id"),
        "original_id": pa.nulls(len(learned), pa.string()),
        "score": pc.struct_field(taken, "score"),
        "created_utc": pc.struct_field(taken, "created_utc"),
        "split": threads["split"].take(pa.array(posts)),
        "example_ids": example_ids(posts, shown),
    }
    return pa.table(columns).select(SFT.names)
