"""Rows of the generation model: post in, comment out.

Texts are taken from the table of threads by Arrow; only prompts are rendered one by one,
and only for posts that get a row.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from configs.pairs import SftRowSettings
from configs.prompts import messages, render, whole_post
from pipelines.pairs.old_rules import Pair
from pipelines.pairs.replies import Ints, Replies
from pipelines.pairs.rows import turns
from pipelines.pairs.schema import PAIR, SFT
from pipelines.pairs.select import Candidates, place

Thread = Mapping[str, Any]
Row = dict[str, Any]


Examples = Mapping[str, Sequence[Mapping[str, str]]]
"""By post_id: what was retrieved for its prompt, with the keys ``post``, ``reply`` and ``comment_id``."""


def prompts(threads: pa.Table, posts: Ints, template: str, examples: Examples | None = None) -> pa.Array:
    """The conversations (MESSAGES) that ask for a comment on the posts at some rows, each rendered once."""
    rows, which = np.unique(posts, return_inverse=True)
    asked = threads.select(["post_id", "title", "text"]).take(pa.array(rows))
    found = examples or {}
    texts = [
        render(template, whole_post(title, text), examples=found.get(post_id, ()))
        for post_id, title, text in zip(*(asked[name].to_pylist() for name in asked.column_names), strict=True)
    ]
    return turns(pa.array(texts, pa.string()), "user").take(pa.array(which))


def example_ids(post_ids: pa.Array | pa.ChunkedArray, examples: Examples | None) -> pa.Array:
    """The comments retrieved into each post's prompt, null where none were."""
    if examples is None:
        return pa.nulls(len(post_ids), PAIR.field("example_ids").type)
    ids = ([example["comment_id"] for example in examples.get(post_id, ())] or None for post_id in post_ids.to_pylist())
    return pa.array(list(ids), PAIR.field("example_ids").type)


def pair_table(
    threads: pa.Table, pairs: Candidates, template: str, rule: str, examples: Examples | None = None
) -> pa.Table:
    """Rows of PAIR: of the two replies the chosen one answers the post better."""
    replies, posts = pc.list_flatten(threads["comments"].combine_chunks()), pa.array(pairs.posts)
    sides = {"chosen": replies.take(pa.array(pairs.chosen)), "rejected": replies.take(pa.array(pairs.rejected))}
    post_ids = threads["post_id"].take(posts)
    columns = {
        "prompt": prompts(threads, pairs.posts, template, examples),
        "post_id": post_ids,
        "rule": pa.array([rule]).take(pa.array(np.zeros(len(pairs), np.int64))),
        "split": threads["split"].take(posts),
        "original_id": pa.nulls(len(pairs), pa.string()),
        "example_ids": example_ids(post_ids, examples),
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


def sft_table(
    threads: pa.Table, replies: Replies, learned: Ints, template: str, examples: Examples | None = None
) -> pa.Table:
    """Rows of SFT: the replies at the positions ``learned`` answer their posts."""
    taken = pc.list_flatten(threads["comments"].combine_chunks()).take(pa.array(learned))
    posts = replies.posts[learned]
    post_ids = threads["post_id"].take(pa.array(posts))
    columns = {
        "prompt": prompts(threads, posts, template, examples),
        "completion": turns(pc.struct_field(taken, "text")),
        "post_id": post_ids,
        "comment_id": pc.struct_field(taken, "comment_id"),
        "original_id": pa.nulls(len(learned), pa.string()),
        "score": pc.struct_field(taken, "score"),
        "created_utc": pc.struct_field(taken, "created_utc"),
        "split": threads["split"].take(pa.array(posts)),
        "example_ids": example_ids(post_ids, examples),
    }
    return pa.table(columns).select(SFT.names)


def prompt(thread: Thread, template: str) -> list[dict[str, str]]:
    """The conversation that asks for a comment on the thread's post."""
    return messages(template, whole_post(thread["title"], thread["text"]))


def turn(comment: Mapping[str, Any]) -> list[dict[str, str]]:
    """A comment as the assistant's turn."""
    return [{"role": "assistant", "content": comment["text"]}]


def learned(thread: Thread, settings: SftRowSettings) -> tuple[list[int], int]:
    """Positions of the replies to learn from, best score first, and how many more had the score."""
    scores = np.array([comment["score"] for comment in thread["comments"]], dtype=np.int64)
    names = [comment["comment_id"] for comment in thread["comments"]]
    liked = [int(i) for i in np.flatnonzero(scores >= settings.min_score)]
    liked.sort(key=lambda i: (-scores[i], names[i]))
    return liked[: settings.max_per_post], len(liked[settings.max_per_post :])


def sft_row(thread: Thread, asked: list[dict[str, str]], reply: int, original: int | None = None) -> Row:
    """A row of SFT: ``reply`` answers the prompt; ``original`` is the reply it revises (IM)."""
    comments = thread["comments"]
    return {
        "prompt": asked,
        "completion": turn(comments[reply]),
        "post_id": thread["post_id"],
        "comment_id": comments[reply]["comment_id"],
        "original_id": None if original is None else comments[original]["comment_id"],
        "score": comments[reply]["score"],
        "created_utc": comments[reply]["created_utc"],
        "split": thread["split"],
    }


def pair_row(thread: Thread, asked: list[dict[str, str]], pair: Pair, rule: str) -> Row:
    """A row of PAIR: of the two replies the chosen one answers the prompt better."""
    chosen, rejected = (thread["comments"][i] for i in pair)
    return {
        "prompt": asked,
        "chosen": turn(chosen),
        "rejected": turn(rejected),
        "post_id": thread["post_id"],
        "chosen_id": chosen["comment_id"],
        "rejected_id": rejected["comment_id"],
        "chosen_score": chosen["score"],
        "rejected_score": rejected["score"],
        "chosen_created_utc": chosen["created_utc"],
        "rejected_created_utc": rejected["created_utc"],
        "rule": rule,
        "split": thread["split"],
    }
