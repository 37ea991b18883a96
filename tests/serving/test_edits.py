"""What a revision changed, and how much of the draft it kept."""

import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.edits import MOST_CHANGES, Edit, edits, matches
from serving.preservation import preservation

TEXTS = st.text(st.sampled_from("ab \n\t.é "), max_size=60)


@given(TEXTS, TEXTS)
def test_both_texts_can_be_put_together_again_from_the_edits(draft: str, revision: str) -> None:
    found = edits(draft, revision)
    assert "".join(edit.draft for edit in found) == draft
    assert "".join(edit.revision for edit in found) == revision


@given(TEXTS, TEXTS)
def test_what_is_called_equal_has_the_same_words_and_nothing_else_is(draft: str, revision: str) -> None:
    for edit in edits(draft, revision):
        same = edit.draft.split() == edit.revision.split()
        assert same == (edit.op == "equal") or not (edit.draft.split() or edit.revision.split())
        assert (edit.op == "insert") == (not edit.draft)
        assert (edit.op == "delete") == (not edit.revision)


def test_words_that_come_go_and_change_are_told_apart() -> None:
    assert edits("You could go out.", "You could maybe go out.") == [
        Edit("equal", "You could ", "You could "),
        Edit("insert", "", "maybe "),
        Edit("equal", "go out.", "go out."),
    ]
    assert [edit.op for edit in edits("one two three", "one three")] == ["equal", "delete", "equal"]
    assert [edit.op for edit in edits("one two three", "one 2 three")] == ["equal", "replace", "equal"]
    assert edits("", "") == []
    assert edits("same", "same") == [Edit("equal", "same", "same")]


def test_the_fewest_words_are_changed() -> None:
    def changed(draft: str, revision: str) -> int:
        return sum(len(e.draft.split()) + len(e.revision.split()) for e in edits(draft, revision) if e.op != "equal")

    chance = random.Random(5)
    for _ in range(300):
        old, new = (" ".join(chance.choices("abc", k=chance.randint(0, 7))) for _ in range(2))
        assert changed(old, new) == fewest(old.split(), new.split())


def fewest(old: list[str], new: list[str]) -> int:
    """Insertions and deletions by the textbook's table."""
    table = np.zeros((len(old) + 1, len(new) + 1), int)
    for i, a in enumerate(old, 1):
        for j, b in enumerate(new, 1):
            table[i, j] = table[i - 1, j - 1] + 1 if a == b else max(table[i - 1, j], table[i, j - 1])
    return len(old) + len(new) - 2 * int(table[-1, -1])


def test_a_hostile_draft_costs_no_more_than_its_length_deserves() -> None:
    class Word(str):
        compared = 0
        __hash__ = str.__hash__

        def __eq__(self, other: object) -> bool:
            Word.compared += 1
            return str.__eq__(self, other)

    chance = random.Random(1)
    old, new = (chance.choices("ab", k=10_000) for _ in range(2))
    list(matches([Word(word) for word in old], [Word(word) for word in new]))
    assert Word.compared < 5 * MOST_CHANGES**2 + len(old) + len(new)  # each with each would be 100,000,000
    found = edits(" ".join(old), " ".join(new))
    assert "".join(edit.revision for edit in found) == " ".join(new)


def test_content_is_what_is_kept_and_small_words_are_not() -> None:
    draft = "You could join the chess club in town."
    assert preservation(draft, draft).score == 1.0
    assert preservation(draft, "A chess club in your town is something you might join.").score == 1.0
    assert preservation(draft, "Nobody knows.").score == 0.0
    half = preservation("chess club", "I like chess.")
    assert (half.score, half.method) == (0.5, "lexical")
    assert preservation("you and me", "you").score == pytest.approx(0.3333)
    assert preservation("...", "anything").score == 1.0


def test_with_an_embedder_it_is_the_cosine() -> None:
    class Known:
        fingerprint, dimensions = "0", 2

        def encode(self, texts: list[str]) -> np.ndarray:
            return np.array([[1.0, 0.0], [0.6, 0.8] if texts[1] == "near" else [-1.0, 0.0]], np.float32)

    near, opposite = preservation("x", "near", Known()), preservation("x", "far", Known())
    assert (near.score, near.method) == (0.6, "embedding")
    assert opposite.score == 0.0
