"""Answers and what is said of them, for the tests of the store."""

from typing import Any

from sqlalchemy import select

from pipelines.feedback.ratings import DIMENSIONS
from serving.feedback.records import Texts
from serving.feedback.store import FeedbackStore
from serving.feedback.tables import answers, choices, ratings

POST = "I lie awake until sunrise and nobody knows."
FIVE = dict.fromkeys(DIMENSIONS, 4)


def given(request_id: str = "r1", key_id: str = "app", **changes: Any) -> dict[str, Any]:
    """One answer with two drafts, any field changed."""
    texts = Texts("Awake again", POST, ("Here is the first draft.", "And here the second one."))
    usual = {"kind": "generate", "model": "gm", "version": "v1", "risk": "none", "drafts": 2, "texts": texts}
    return {"request_id": request_id, "key_id": key_id} | usual | changes


def rows(store: FeedbackStore, table: str) -> list[dict[str, Any]]:
    """All rows of a table."""
    of = {"answers": answers, "ratings": ratings, "choices": choices}[table]
    with store.database.reading() as connection:
        return [dict(row) for row in connection.execute(select(of).order_by(of.c.id)).mappings()]
