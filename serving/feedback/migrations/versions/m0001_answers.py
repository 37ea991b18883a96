"""Answers, ratings in five dimensions, choices."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

NUMBER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
DIMENSIONS = ("readability", "empathy", "connection", "actionability", "safety")


def upgrade() -> None:
    """To this step."""
    op.create_table(
        "answers",
        sa.Column("id", NUMBER, autoincrement=True, nullable=False),
        sa.Column("request_id", sa.String(128), nullable=False),
        sa.Column("key_id", sa.String(128), nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("model", sa.String(16), nullable=False),
        sa.Column("version", sa.String(256), nullable=False),
        sa.Column("risk", sa.String(16), nullable=False),
        sa.Column("drafts", sa.SmallInteger(), nullable=False),
        sa.Column("post_id", sa.String(128), nullable=True),
        sa.Column("created", sa.DateTime(), nullable=False),
        sa.Column("texts", sa.LargeBinary(), nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_answers"),
        sa.UniqueConstraint("request_id", "key_id", name="uq_answers_request_id_key_id"),
    )
    op.create_index("ix_answers_created", "answers", ["created"])
    op.create_table(
        "ratings",
        *said("ratings"),
        *(sa.Column(name, sa.SmallInteger(), nullable=True) for name in DIMENSIONS),
        *(sa.CheckConstraint(f"{name} BETWEEN 1 AND 5", name=op.f(f"ck_ratings_{name}")) for name in DIMENSIONS),
        sa.UniqueConstraint("answer_id", "rater_id", "draft", name="uq_ratings_answer_id_rater_id_draft"),
    )
    op.create_table(
        "choices",
        *said("choices"),
        sa.UniqueConstraint("answer_id", "rater_id", name="uq_choices_answer_id_rater_id"),
    )


def said(table: str) -> list[sa.Column | sa.Constraint]:
    """What ratings and choices have in common."""
    return [
        sa.Column("id", NUMBER, autoincrement=True, nullable=False),
        sa.Column("answer_id", NUMBER, nullable=False),
        sa.Column("rater_id", sa.String(256), nullable=False),
        sa.Column("draft", sa.SmallInteger(), nullable=False),
        sa.Column("updated", sa.DateTime(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=f"pk_{table}"),
        sa.ForeignKeyConstraint(["answer_id"], ["answers.id"], name=f"fk_{table}_answer_id", ondelete="CASCADE"),
    ]


def downgrade() -> None:
    """Back from it: everything goes."""
    for table in ("choices", "ratings", "answers"):
        op.drop_table(table)
