"""Which rows are kept: a list of rules, each keep or drop *with a reason*.

The rules are tried in the order of ``RULES``; a row is counted under the first that drops
it, and a rule only sees what the ones before it kept, so the dear one (language) comes
last. Rules that need the post a comment answers are in ``threads``; duplicates are found
in ``duplicates``, since equal texts lie in different files.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import reduce
from typing import TypeAlias

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from configs.corpus import CleaningSettings
from pipelines.corpus.language import foreign
from pipelines.corpus.schema import COMMENT, POST, RECORD, ROW, SEEN

Mask: TypeAlias = pa.BooleanArray | pa.ChunkedArray
LINK = r"\[[^\]\n]{0,300}\]\([^\s)]*\)|(?i:https?://|www\.)\S+"
"""A link as Reddit writes it (RE2), with its label or bare."""


@dataclass(frozen=True)
class Rule:
    """``drop`` gives True for each row to drop; null counts as keep."""

    reason: str
    drop: Callable[[pa.Table, CleaningSettings], Mask]


def is_kind(table: pa.Table, kind: str) -> Mask:
    """Rows of one kind."""
    return pc.equal(table["kind"], kind)


def deleted(table: pa.Table, settings: CleaningSettings) -> Mask:
    """Deleted or removed texts, and comments of deleted accounts (their writer may be the poster)."""
    nameless = pc.and_(is_kind(table, COMMENT), pc.is_null(table["author"]))
    return pc.or_(pc.fill_null(table["removed"], False), nameless)


def moderator(table: pa.Table, settings: CleaningSettings) -> Mask:
    """Rows in which a moderator or administrator speaks as one, or that are pinned."""
    return pc.or_(pc.fill_null(table["distinguished"], False), pc.fill_null(table["stickied"], False))


def bot(table: pa.Table, settings: CleaningSettings) -> Mask:
    """Accounts listed as bots or named like one, and texts that bear a bot's signature."""
    listed = pc.is_in(
        pc.utf8_lower(table["author"]), value_set=pa.array([name.lower() for name in settings.bots], pa.string())
    )
    named = pc.and_not(
        matches(table["author"], settings.bot_names), matches(table["author"], settings.bot_names_except)
    )
    signed = matches(table["text"], settings.bot_texts, ignore_case=True)
    return pc.or_(pc.or_(listed, named), signed)


def over_18(table: pa.Table, settings: CleaningSettings) -> Mask:
    """Posts marked NSFW."""
    return table["over_18"]


def link_post(table: pa.Table, settings: CleaningSettings) -> Mask:
    """Posts that point elsewhere: what the replies answer is not in the text."""
    return pc.invert(table["is_self"])


def crosspost(table: pa.Table, settings: CleaningSettings) -> Mask:
    """Posts passed on from another community."""
    return table["crosspost"]


def not_top_level(table: pa.Table, settings: CleaningSettings) -> Mask:
    """Comments that answer another comment, or do not say what they answer."""
    answers_post = pc.equal(table["parent_id"], pc.binary_join_element_wise("t3_", table["post_id"], ""))
    return pc.and_(is_kind(table, COMMENT), pc.invert(pc.fill_null(answers_post, False)))


def score_missing(table: pa.Table, settings: CleaningSettings) -> Mask:
    """Comments without a score."""
    return pc.and_(is_kind(table, COMMENT), pc.is_null(table["score"]))


def score_hidden(table: pa.Table, settings: CleaningSettings) -> Mask:
    """Comments whose score was still hidden."""
    return table["score_hidden"]


def contest_mode(table: pa.Table, settings: CleaningSettings) -> Mask:
    """Posts whose comments stand in random order with hidden scores; the comments fall with their post."""
    return table["contest_mode"]


def frozen_month(table: pa.Table, settings: CleaningSettings) -> Mask:
    """Rows of months whose votes were not updated in the public dumps."""
    spans = [month_span(month) for month in settings.frozen_months]
    created = table["created_utc"]
    return reduce(
        pc.or_,
        (pc.and_(pc.greater_equal(created, start), pc.less(created, end)) for start, end in spans),
        none(table),
    )


def score_unsettled(table: pa.Table, settings: CleaningSettings) -> Mask:
    """Rows of ``settled_from`` or later that do not say that they were read a second time."""
    late = pc.greater_equal(table["created_utc"], month_span(settings.settled_from)[0])
    return pc.and_(late, pc.invert(pc.fill_null(table["settled"], False)))


def edited(table: pa.Table, settings: CleaningSettings) -> Mask:
    """Rows edited after posting."""
    return table["edited"]


def link_only(table: pa.Table, settings: CleaningSettings) -> Mask:
    """Rows whose text is a link and next to nothing else, in a comment or below a post's title."""
    linked = pc.match_substring_regex(table["text"], LINK)
    text = pl.Series(table["text"].filter(linked), dtype=pl.String)
    beside = text.str.replace_all(LINK, " ").str.count_matches(r"\pL[\pL']*")
    return spread(linked, (beside <= settings.link_only_words).to_arrow())


def too_short(table: pa.Table, settings: CleaningSettings) -> Mask:
    """Rows with fewer words than asked."""
    least = pc.if_else(is_kind(table, POST), settings.min_post_words, settings.min_comment_words)
    return pc.less(words(table), least)


def too_long(table: pa.Table, settings: CleaningSettings) -> Mask:
    """Rows with more words than allowed."""
    most = pc.if_else(is_kind(table, POST), settings.max_post_words, settings.max_comment_words)
    long = pc.greater(pc.binary_length(whole_text(table)), pc.multiply(most, 2))  # a word and a space have 2 bytes
    return spread(long, pc.greater(words(table.filter(long)), most.filter(long)))


def not_english(table: pa.Table, settings: CleaningSettings) -> Mask:
    """Rows recognised as another language; texts too short to tell are kept."""
    return foreign(whole_text(table), settings.not_english_probability, settings.not_english_min_letters)


RULES = tuple(
    Rule(drop.__name__, drop)
    for drop in (
        deleted, moderator, over_18, link_post, crosspost, contest_mode, not_top_level, score_missing, score_hidden,
        frozen_month, score_unsettled, edited, bot, link_only, too_short, too_long, not_english,
    )
)  # fmt: skip
"""In this order, cheap ones first: a row is counted under the first rule that drops it."""


def clean(table: pa.Table, settings: CleaningSettings) -> pa.Table:
    """A table of RECORD as one of ROW, each row that a rule drops with its reason.

    Dropped comments become tallies; dropped posts stay, without their text, so that their
    comments can be told from those whose post is in no dump.
    """
    table = table.cast(RECORD)
    alive = pc.is_null(table["dropped"])
    passed, live = table.filter(pc.invert(alive)), table.filter(alive)
    seen = pc.equal(live["kind"], SEEN)
    parts, live = [passed.select(ROW.names), live.filter(seen).select(ROW.names)], live.filter(pc.invert(seen))
    for rule in RULES:
        if not getattr(settings, f"drop_{rule.reason}"):
            continue
        drop = pc.fill_null(rule.drop(live, settings), False)
        gone = live.filter(drop)
        if gone.num_rows:
            parts.append(discard(gone.select(ROW.names), rule.reason))
            live = live.filter(pc.invert(drop))
    parts.append(live.select(ROW.names))
    return pa.concat_tables(parts).cast(ROW)


def discard(rows: pa.Table, reason: str) -> pa.Table:
    """The rows as dropped: comments as one tally, posts by id alone."""
    comments = rows.filter(is_kind(rows, COMMENT))
    posts = rows.filter(is_kind(rows, POST))
    kept = {"kind", "id", "post_id", "created_utc", "count"}
    empty = {name: pa.nulls(posts.num_rows, ROW.field(name).type) for name in ROW.names if name not in kept}
    columns = {name: empty[name] if name in empty else posts[name] for name in ROW.names}
    columns["dropped"] = pa.array([reason] * posts.num_rows, pa.string())
    tally = tally_row(COMMENT, reason, pc.sum(comments["count"]).as_py() or 0)
    return pa.concat_tables([pa.table(columns, schema=ROW), tally])


def tally_row(kind: str, reason: str, count: int) -> pa.Table:
    """One row of ROW that stands for ``count`` dropped rows; none where there are none."""
    rows = [{"kind": kind, "dropped": reason, "count": count}] if count else []
    return pa.Table.from_pylist(rows, schema=ROW)


def matches(column: pa.ChunkedArray, patterns: Sequence[str], ignore_case: bool = False) -> Mask:
    """Where one of the patterns (RE2) is found; null is found nowhere."""
    if not patterns:
        return pc.and_(pc.is_null(column), False)
    pattern = "|".join(f"(?:{pattern})" for pattern in patterns)
    return pc.fill_null(pc.match_substring_regex(column, pattern, ignore_case=ignore_case), False)


def month_span(month: str) -> tuple[int, int]:
    """First second of a month (YYYY-MM, UTC) and of the next."""
    start = datetime.strptime(month, "%Y-%m").replace(tzinfo=UTC)
    after = start.replace(year=start.year + start.month // 12, month=start.month % 12 + 1)
    return int(start.timestamp()), int(after.timestamp())


def whole_text(table: pa.Table) -> pa.ChunkedArray:
    """Title and text of posts, text of comments."""
    return pc.binary_join_element_wise(pc.fill_null(table["title"], ""), pc.fill_null(table["text"], ""), " ")


def words(table: pa.Table) -> Mask:
    """Words a row, as they are separated by white space; by polars, whose regex is thrice as fast as Arrow's."""
    texts = pl.Series(whole_text(table), dtype=pl.String)
    return pa.chunked_array([texts.str.count_matches(r"[^\t\n\f\r ]+").to_arrow()])


def spread(where: Mask, values: pa.Array) -> Mask:
    """``values``, one for each True of ``where``, at their places; False elsewhere."""
    mask = pc.fill_null(where, False).to_numpy()
    out = np.zeros(len(mask), bool)
    out[mask] = values.to_numpy(zero_copy_only=False) if isinstance(values, pa.Array) else values.to_numpy()
    return pa.array(out)


def none(table: pa.Table) -> pa.BooleanArray:
    """False for each row."""
    return pa.repeat(pa.scalar(False), table.num_rows)
