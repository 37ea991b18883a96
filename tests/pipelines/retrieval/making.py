"""Threads by hand, and an index of them without Ray."""

from pathlib import Path
from typing import Any

import pyarrow as pa

from configs.retrieval import RetrievalSettings
from pipelines.corpus.notes import Account
from pipelines.corpus.schema import THREAD
from pipelines.retrieval.build import describe, stored
from pipelines.retrieval.lookup import INDEX, Lookup
from pipelines.retrieval.posts import posts
from pipelines.retrieval.vectors import Embedding

TOPICS = {
    "exam": "failed chemistry exam grades professor midterm study semester class notes",
    "room": "roommate dorm noise kitchen dishes sleep loud music shared apartment door",
    "money": "tuition loan rent salary scholarship budget debt bank part-time wages",
    "home": "homesick family parents mother visit weekend train town alone holidays",
}
"""Words that posts on one subject share."""


def reply(
    comment_id: str, text: str = "You will manage, take one step after the other.", **more: Any
) -> dict[str, Any]:
    """A comment, well received and by somebody else unless told otherwise."""
    return {
        "comment_id": comment_id,
        "author_hash": f"by-{comment_id}",
        "text": text,
        "created_utc": 1,
        "score": 10,
    } | more


def thread(post_id: str, text: str, replies: list[dict[str, Any]] | None = None, **more: Any) -> dict[str, Any]:
    """A thread of the training split with one well-received reply unless told otherwise."""
    return {
        "post_id": post_id,
        "subreddit": "college",
        "author_hash": f"author-{post_id}",
        "title": "",
        "text": text,
        "created_utc": 1,
        "score": 5,
        "split": "train",
        "comments": [reply(f"c-{post_id}")] if replies is None else replies,
    } | more


def table(*threads: dict[str, Any]) -> pa.Table:
    """Threads as the corpus writes them."""
    return pa.Table.from_pylist(list(threads), schema=THREAD)


def subject_threads(each: int = 6) -> list[dict[str, Any]]:
    """Posts on four subjects; those on one subject share some of its words, in other orders."""
    threads = []
    for subject, line in TOPICS.items():
        words = line.split()
        for i in range(each):
            some = [words[(i + 2 * k) % len(words)] for k in range(5)]
            threads.append(thread(f"{subject}{i}", f"{' '.join(some)} number{subject}{i}", subreddit=subject))
    return threads


def settings_for(**changes: Any) -> RetrievalSettings:
    """Two examples a prompt unless told otherwise."""
    return RetrievalSettings(**{"examples": 2, **changes})


def index_of(
    folder: Path, threads: pa.Table, settings: RetrievalSettings, earlier: Path | None = None
) -> tuple[Lookup, Account]:
    """The index of a table of THREAD in ``folder``, open, and what became of its rows."""
    embedding = Embedding(settings.embedder, earlier / INDEX if earlier else None, gpu=False)
    account = stored([embedding(posts(threads, settings))], folder / INDEX)
    describe(settings, folder, account)
    return Lookup(folder, settings, embedding.embedder), account
