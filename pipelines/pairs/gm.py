"""Rows of the generation model: post in, comment out."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from configs.pairs import SftRowSettings
from configs.prompts import messages, whole_post
from pipelines.pairs.old_rules import Pair

Thread = Mapping[str, Any]
Row = dict[str, Any]


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
