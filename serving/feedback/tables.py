"""The store's tables, the same in SQLite and PostgreSQL. A change here needs a migration beside it.

Ids and numbers lie in plain so that they can be found and counted; words lie in ``texts`` only,
as one Fernet token. Deleting an answer deletes what was said about it.
"""

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    DateTime,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    SmallInteger,
    String,
    Table,
    UniqueConstraint,
)

from pipelines.feedback.ratings import DIMENSIONS

METADATA = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "pk": "pk_%(table_name)s",
    }
)
NUMBER = BigInteger().with_variant(Integer, "sqlite")
"""SQLite counts up only what is called INTEGER."""

answers = Table(
    "answers",
    METADATA,
    Column("id", NUMBER, primary_key=True, autoincrement=True),
    Column("request_id", String(128), nullable=False),
    Column("key_id", String(128), nullable=False),
    Column("kind", String(16), nullable=False),
    Column("model", String(16), nullable=False),
    Column("version", String(256), nullable=False),
    Column("risk", String(16), nullable=False),
    Column("drafts", SmallInteger, nullable=False),
    Column("post_id", String(128), nullable=True),
    Column("created", DateTime, nullable=False),
    Column("texts", LargeBinary, nullable=True),
    UniqueConstraint("request_id", "key_id"),
    Index(None, "created"),
)


def said(name: str, *columns: Column, unique: tuple[str, ...]) -> Table:
    """A table of what raters say about an answer's drafts, once each."""
    return Table(
        name,
        METADATA,
        Column("id", NUMBER, primary_key=True, autoincrement=True),
        Column("answer_id", NUMBER, ForeignKey("answers.id", ondelete="CASCADE"), nullable=False),
        Column("rater_id", String(256), nullable=False),
        Column("draft", SmallInteger, nullable=False),
        *columns,
        Column("updated", DateTime, nullable=False),
        UniqueConstraint(*unique),
    )


ratings = said(
    "ratings",
    *(Column(name, SmallInteger, CheckConstraint(f"{name} BETWEEN 1 AND 5", name=name)) for name in DIMENSIONS),
    unique=("answer_id", "rater_id", "draft"),
)
choices = said("choices", unique=("answer_id", "rater_id"))
