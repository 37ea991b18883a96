"""What is asked of the tables: plain functions over a connection, the same for both databases."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, Literal, TypeAlias

from sqlalchemy import Connection, Row, Table, delete, exists, func, select, update
from sqlalchemy.dialects import postgresql, sqlite

from pipelines.feedback.ratings import DIMENSIONS
from serving.feedback.records import Answer, NoSuchDraft, SeveralRequests, UnknownRequest
from serving.feedback.tables import answers, choices, ratings

Found: TypeAlias = "Row[*tuple[Any, ...]]"
AT_ONCE = 500
"""Rows in one statement: SQLite takes a limited number of values."""


def insert(connection: Connection, table: Table) -> Any:
    """The dialect's insert, which both have with the same ``on_conflict``."""
    return (sqlite if connection.dialect.name == "sqlite" else postgresql).insert(table)


def keep(connection: Connection, rows: Sequence[tuple[Answer, bytes | None]]) -> None:
    """Write answers with their sealed texts.

    An id that the same key used before stands for the newer answer, as long as nobody has said
    anything about the older one: what was said would be said of other words.
    """
    columns = ("request_id", "key_id", "kind", "model", "version", "risk", "drafts", "post_id", "created")
    statement = insert(connection, answers)
    said = [exists().where(table.c.answer_id == answers.c.id) for table in (ratings, choices)]
    statement = statement.on_conflict_do_update(
        index_elements=["request_id", "key_id"],
        set_={name: statement.excluded[name] for name in (*columns, "texts")},
        where=~said[0] & ~said[1],
    )
    for answer, sealed in rows:
        connection.execute(statement, {name: getattr(answer, name) for name in columns} | {"texts": sealed})


def find(connection: Connection, request_id: str, key_id: str, raters: Literal["own", "any"]) -> Found:
    """Id and number of drafts of the answer that a key may speak about, its own first.

    Raises UnknownRequest, or SeveralRequests where two other keys used the id.
    """
    wanted = select(answers.c.id, answers.c.drafts, answers.c.key_id).where(answers.c.request_id == request_id)
    found = connection.execute(wanted).all()
    own = [row for row in found if row.key_id == key_id]
    allowed = own or (list(found) if raters == "any" else [])
    if not allowed:
        raise UnknownRequest
    if len(allowed) > 1:
        raise SeveralRequests
    return allowed[0]


def place(drafts: int, index: int | None) -> int:
    """The draft that is meant; raises NoSuchDraft."""
    if index is None and drafts == 1:
        return 0
    if index is None or not 0 <= index < drafts:
        raise NoSuchDraft(drafts, index)
    return index


def say(
    connection: Connection,
    table: Table,
    answer_id: int,
    rater_id: str,
    draft: int,
    values: Mapping[str, int | None],
    now: datetime,
) -> None:
    """Write what a rater says, in place of what the same rater said before."""
    keys = ["answer_id", "rater_id", *(["draft"] if table is ratings else [])]
    row = {"answer_id": answer_id, "rater_id": rater_id, "draft": draft, "updated": now, **values}
    statement = insert(connection, table).values(row)
    newer = {name: value for name, value in row.items() if name not in keys}
    connection.execute(statement.on_conflict_do_update(index_elements=keys, set_=newer))


def rate(
    connection: Connection, answer: Found, rater_id: str, given: Mapping[str, int], index: int | None, now: datetime
) -> int:
    """A rating of one draft, whole: a dimension that is not given is one that was not rated. Returns the draft."""
    draft = place(answer.drafts, index)
    say(connection, ratings, answer.id, rater_id, draft, {name: given.get(name) for name in DIMENSIONS}, now)
    return draft


def choose(connection: Connection, answer: Found, rater_id: str, index: int, now: datetime) -> int:
    """A choice among drafts; raises NoSuchDraft where there is only one."""
    if answer.drafts < 2:
        raise NoSuchDraft(answer.drafts, index)
    draft = place(answer.drafts, index)
    say(connection, choices, answer.id, rater_id, draft, {}, now)
    return draft


def past(connection: Connection, before: datetime) -> int:
    """Answers given ``before``."""
    wanted = select(func.count()).select_from(answers).where(answers.c.created < before)
    return int(connection.execute(wanted).scalar_one())


def purge(connection: Connection, before: datetime) -> int:
    """Remove answers given ``before``, with what was said of them, ``AT_ONCE`` at most; returns how many."""
    some = select(answers.c.id).where(answers.c.created < before).order_by(answers.c.created).limit(AT_ONCE)
    return connection.execute(delete(answers).where(answers.c.id.in_(some))).rowcount


def remove(connection: Connection, ids: Iterable[int]) -> int:
    """Remove answers by their number."""
    wanted, gone = sorted(ids), 0
    for start in range(0, len(wanted), AT_ONCE):
        part = wanted[start : start + AT_ONCE]
        gone += connection.execute(delete(answers).where(answers.c.id.in_(part))).rowcount
    return gone


def count(connection: Connection) -> dict[str, int]:
    """Rows by table, and answers whose texts are kept."""
    counts = {
        table.name: connection.execute(select(func.count()).select_from(table)).scalar_one()
        for table in (answers, ratings, choices)
    }
    counts["texts"] = connection.execute(select(func.count(answers.c.texts))).scalar_one()
    return counts


def sealed(connection: Connection, after: int) -> Sequence[Found]:
    """The next texts by number, a page of them."""
    page = select(answers.c.id, answers.c.texts).where(answers.c.texts.is_not(None), answers.c.id > after)
    return connection.execute(page.order_by(answers.c.id).limit(AT_ONCE)).all()


def reseal(connection: Connection, row: Found, texts: bytes) -> None:
    """Other encrypted bytes in place of those that were read; nothing where they changed since."""
    same = (answers.c.id == row.id) & (answers.c.texts == row.texts)
    connection.execute(update(answers).where(same).values(texts=texts))
