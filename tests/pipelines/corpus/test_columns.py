"""Columns converted at once hold what each value converted by itself would be."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.corpus import columns, fields
from pipelines.corpus.columns import READ, convert, table_of
from pipelines.corpus.schema import COMMENT, POST

TEXTS = st.one_of(
    st.text(max_size=30),
    st.text("ab [&;gt\r\n\t\u00a0\u2019\u200b\u2028\u2060\ufeff\ud83d\x00\x1f\x85é", max_size=12),
    st.sampled_from(["[removed]", "[deleted]", "[ Removed by Reddit ]", "[deleted by user] ", "[a", "a &amp;gt; b"]),
)
NUMBERS = st.one_of(
    st.integers(1_104_537_600, 1_900_000_000),
    st.integers(-(2**70), 2**70),
    st.floats(),
    st.sampled_from(["1617235200", "1617235200.0", "1617235200123", "", "x", 1_617_235_200_123, 1_617_235_200.5]),
)
NAMES = st.one_of(st.sampled_from(["t3_abc", "t1_x", "t3_", "abc", "ab_c", " t3_a", "té_x", "t\ud83d_", ""]), TEXTS)
ANYTHING = st.one_of(st.none(), st.booleans(), NUMBERS, TEXTS, st.just([]), st.just({"a": 1}))
VALUES: dict[str, st.SearchStrategy[Any]] = {
    **dict.fromkeys(("id", "link_id", "parent_id"), NAMES),
    **dict.fromkeys(("title", "selftext", "body", "subreddit", "author"), TEXTS),
    **dict.fromkeys(("created_utc", "score", "ups"), NUMBERS),
    **dict.fromkeys(("stickied", "over_18", "is_self", "score_hidden", "contest_mode"), st.booleans()),
    "_meta": st.sampled_from([{}, {"retrieved_2nd_on": 5}]),
}


def records(kind: str, usual: bool) -> st.SearchStrategy[list[dict[str, Any]]]:
    """Records of which each field has its usual type, or any at all."""
    one = {name: st.one_of(VALUES.get(name, st.none()), *(() if usual else (ANYTHING,))) for name in READ[kind]}
    return st.lists(st.fixed_dictionaries({}, optional=one), max_size=6)


def both(kind: str, given_records: list[dict[str, Any]]) -> None:
    """Assert that the table and the rows left out are those of the conversion record by record."""
    convert_one = fields.post if kind == POST else fields.comment
    rows, left_out = [], set()
    for place, record in enumerate(given_records):
        try:
            rows.append(convert_one(record))
        except fields.Incomplete:
            left_out.add(place)
    by_field = {name: [record.get(name) for record in given_records] for name in READ[kind]}
    table, missing = convert(kind, by_field)
    assert set(missing) == left_out
    assert table.to_pylist() == table_of(rows).to_pylist()


@settings(max_examples=300, deadline=None)
@given(given_records=st.one_of(records(POST, usual=True), records(POST, usual=False)))
def test_posts_become_the_same_rows_at_once_and_one_by_one(given_records: list[dict[str, Any]]) -> None:
    both(POST, given_records)


@settings(max_examples=300, deadline=None)
@given(given_records=st.one_of(records(COMMENT, usual=True), records(COMMENT, usual=False)))
def test_comments_become_the_same_rows_at_once_and_one_by_one(given_records: list[dict[str, Any]]) -> None:
    both(COMMENT, given_records)


@pytest.mark.parametrize("around", ["a{}b", "{}b", "a{}", "{}", "ab{}\u2019"])
def test_no_character_is_treated_differently_at_once(around: str) -> None:
    values = [around.format(chr(code)) for code in range(0x20000) if not 0xD800 <= code < 0xE000]
    assert columns.texts(values).to_pylist() == [fields.text(value) for value in values]
    assert columns.strings(values, fields.author, columns._rough_edges).to_pylist() == list(map(fields.author, values))
    assert columns.identifiers(values).to_pylist() == list(map(fields.bare, values))


@pytest.mark.parametrize("name", ["t3_ab", "t3_", "ab_c", "x3_a", "té_x", " t3_a", "t", ""])
def test_a_column_of_ids_is_treated_as_each_id(name: str) -> None:
    for others in ([], ["t3_usual", "t3_also"], ["plain"]):
        assert columns.identifiers([*others, name]).to_pylist() == [*map(fields.bare, others), fields.bare(name)]
