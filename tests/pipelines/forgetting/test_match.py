"""Which rows hold something forgotten, and how the threads close over what is taken out."""

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.corpus.authors import author_hash
from pipelines.corpus.schema import THREAD
from pipelines.forgetting.files import quarantined
from pipelines.forgetting.kept import NOTHING, Forgotten
from pipelines.forgetting.match import from_threads, in_line, in_rows

KEY = b"k" * 32


def forgotten(
    posts: set[str] = frozenset(), comments: set[str] = frozenset(), authors: set[str] = frozenset()
) -> Forgotten:  # type: ignore[assignment]
    return Forgotten(KEY).with_("posts", posts).with_("comments", comments).with_("authors", authors)


def threads(layout: list[tuple[str, str | None, list[tuple[str, str | None]]]]) -> pa.Table:
    """Posts with author and comments (id, author); the comments' times and scores are their places."""
    return pa.Table.from_pylist(
        [
            {
                "post_id": post,
                "author_hash": author_hash(author, KEY),
                "text": f"text of {post}",
                "comments": [
                    {"comment_id": c, "author_hash": author_hash(a, KEY), "text": c, "created_utc": k, "score": -k}
                    for k, (c, a) in enumerate(comments)
                ],
            }
            for post, author, comments in layout
        ],
        schema=THREAD,
    )


names = st.sampled_from(["ann", "ben", "cem", None])
layouts = st.lists(st.tuples(names, st.lists(names, max_size=4)), max_size=5).map(
    lambda posts: [(f"p{i}", a, [(f"c{i}x{k}", c) for k, c in enumerate(cs)]) for i, (a, cs) in enumerate(posts)]
)


@given(
    layouts,
    st.sets(st.sampled_from(["p0", "p1", "p3"])),
    st.sets(st.sampled_from(["c0x0", "c1x1", "c2x0"])),
    st.sets(st.sampled_from(["ann", "cem"])),
)
def test_threads_keep_exactly_what_was_not_asked_for(layout, posts, comments, authors) -> None:
    table = threads(layout)
    found = from_threads(table, forgotten(posts, comments, authors))
    expected = [
        (post, author, [(c, a) for c, a in replies if c not in comments and a not in authors])
        for post, author, replies in layout
        if post not in posts and author not in authors
    ]
    assert [(row["post_id"], [c["comment_id"] for c in row["comments"]]) for row in found.kept.to_pylist()] == [
        (post, [c for c, _ in replies]) for post, _, replies in expected
    ]
    assert found.kept.schema.equals(THREAD)
    assert found.posts == table.num_rows - len(expected)
    assert found.comments == sum(len(r) for _, _, r in layout) - sum(len(r) for _, _, r in expected)
    before = {c["comment_id"]: c for row in table.to_pylist() for c in row["comments"]}
    assert all(before[c["comment_id"]] == c for row in found.kept.to_pylist() for c in row["comments"])


def test_an_empty_list_touches_nothing() -> None:
    table = threads([("p0", "ann", [("c", "ben")])])
    assert from_threads(table, NOTHING).kept is table
    assert from_threads(table, forgotten(posts={"p9"})).kept is table


def test_tables_of_several_chunks_and_slices_are_matched_alike() -> None:
    whole = threads([(f"p{i}", "ann" if i % 2 else "ben", [(f"c{i}x{k}", "cem") for k in range(3)]) for i in range(6)])
    chunked = pa.concat_tables([whole.slice(0, 2), whole.slice(2, 1), whole.slice(3)])
    gone = forgotten(posts={"p1"}, comments={"c2x1", "c4x0"})
    assert from_threads(chunked, gone).kept.to_pylist() == from_threads(whole, gone).kept.to_pylist()
    part = from_threads(whole.slice(2, 3), gone)
    assert (part.posts, part.comments) == (0, 2)


@pytest.mark.parametrize(
    ("column", "value", "found"),
    [
        ("post_id", "p1", True),
        ("post_id", "c1", False),  # a comment's id is no post's
        ("comment_id", "c1", True),
        ("chosen_id", "c1", True),
        ("rejected_id", "c1", True),
        ("original_id", "c1", True),
        ("worse_id", "c1", True),
        ("revision_id", "teacher:c1", True),
        ("chosen_id", "teacher:c1", True),
        ("chosen_id", "teacher:c2", False),
        ("chosen_id", None, False),
        ("example_ids", ["c0", "c1"], True),
        ("example_ids", ["c0"], False),
        ("example_ids", [], False),
        ("example_ids", None, False),
        ("text", "c1", False),
    ],
)
def test_a_row_goes_by_any_id_it_is_made_of(column: str, value: object, found: bool) -> None:
    gone = forgotten(posts={"p1"}, comments={"c1"})
    kind = pa.list_(pa.string()) if column == "example_ids" else pa.string()
    other = ["c0"] if column == "example_ids" else "c0"
    table = pa.table({column: pa.array([other, value, other], kind)})
    assert in_rows(table, gone).tolist() == [False, found, False]
    assert in_line({column: value}, gone) is found


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ('{"id":"c1","body":"x"', True),
        ('{"body": "x", "author" : "ANN", "id": "c7"', True),
        ('{"link_id": "t3_p1", "id": "c7"}', True),
        ('{"name": "t1_c1"', True),
        ('{"id":"c7","author":"annette","link_id":"t3_p2"}', False),
        ("<html>c1 ann t3_p1</html>", False),
    ],
)
def test_a_damaged_line_goes_by_the_fields_that_are_left_of_it(line: str, found: bool) -> None:
    gone = forgotten(posts={"p1"}, comments={"c1"}, authors={"ann"})
    assert quarantined(gone)({"text": line}) is found


def test_hashes_of_different_kinds_and_keys_differ() -> None:
    one = forgotten(posts={"x"}, comments={"x"})
    assert one.posts.isdisjoint(one.comments)
    assert Forgotten(b"other" * 4).with_("posts", {"x"}).posts.isdisjoint(one.posts)
