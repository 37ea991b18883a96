"""From ratings to preferences: each rule for leaving something out, alone."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from configs.pairs import FeedbackSettings
from pipelines.feedback.ratings import DIMENSIONS
from pipelines.feedback.rules import Preference, differences, excluded_raters, preferences, usable
from tests.pipelines.feedback.making import GOOD_TEXT, attention, line, rows

RULES = FeedbackSettings()
THREE = ("r1", "r2", "r3")


def outcome(*lines: dict[str, Any], rules: FeedbackSettings = RULES) -> Preference | str:
    """What one item comes to."""
    found, dropped = preferences(rows(lines), rules)
    return found[0] if found else next(iter(dropped["gm"]))


def test_the_response_that_raters_like_better_is_chosen_wherever_it_stood() -> None:
    first = outcome(*(line(rater=r, a=5, b=2) for r in THREE))
    second = outcome(*(line(rater=r, a=2, b=5) for r in THREE))
    assert isinstance(first, Preference) and isinstance(second, Preference)
    assert (first.chosen.id, first.rejected.id) == ("c1", "c2")
    assert (second.chosen.id, second.rejected.id) == ("c2", "c1")
    assert first.agreement == 1 and first.raters == 3 and first.margin > 0


def test_two_raters_are_too_few() -> None:
    assert outcome(line(rater="r1"), line(rater="r2")) == "too_few_raters"


def test_a_margin_is_measured_in_a_raters_own_standard_deviations() -> None:
    # r1 uses the whole scale, r2 two neighbouring points: one point means more from r2.
    wide = [line("i1", "r1", 3, 2), line("i2", "r1", 5, 1), line("i3", "r1", 1, 5)]
    narrow = [line("i1", "r2", 3, 2), line("i2", "r2", 3, 2), line("i3", "r2", 2, 3)]
    margin_wide, margin_narrow = differences(rows(wide + narrow))["gm", "i1"]
    assert margin_narrow == pytest.approx(2.0)
    assert 0 < margin_wide < margin_narrow / 2


def test_a_severe_and_a_lenient_rater_count_the_same() -> None:
    lenient = [line("i1", "r1", 5, 4), line("i2", "r1", 4, 3)]
    severe = [line("i1", "r2", 3, 2), line("i2", "r2", 2, 1)]
    first, second = differences(rows(lenient + severe))["gm", "i1"]
    assert first == pytest.approx(second)


def test_a_small_margin_makes_no_pair() -> None:
    small = dict.fromkeys(DIMENSIONS, 3) | {"empathy": 4}
    others = [line("i2", r, 5, 1) for r in THREE]
    found, dropped = preferences(rows([line("i1", r, ratings_a=small, b=3) for r in THREE] + others), RULES)
    assert [preference.item_id for preference in found] == ["i2"]
    assert dropped["gm"] == {"margin_too_small": 1}


def test_two_of_three_raters_are_enough_and_one_of_three_is_not() -> None:
    two = outcome(
        line(rater="r1", a=5, b=2),
        line(rater="r2", a=5, b=2),
        line(
            rater="r3",
            a=3,
            b=3,
            ratings_a=dict.fromkeys(DIMENSIONS, 3) | {"safety": 4},
            ratings_b=dict.fromkeys(DIMENSIONS, 4),
        ),
    )
    assert isinstance(two, Preference) and two.agreement == pytest.approx(2 / 3)
    tied = dict.fromkeys(DIMENSIONS, 3)
    lone = [line(rater="r1", a=5, b=1)] + [line("i1", r, ratings_a=tied, ratings_b=tied) for r in ("r2", "r3")]
    spread = [line("i2", r, 5, 1) for r in THREE]
    _, dropped = preferences(rows(lone + spread), RULES)
    assert dropped["gm"] == {"raters_disagree": 1}


@pytest.mark.parametrize(("safety_a", "safety_b", "vetoed"), [(2, 1, True), (3, 4, True), (3, 3, False), (4, 2, False)])
def test_an_unsafe_response_is_never_chosen(safety_a: int, safety_b: int, vetoed: bool) -> None:
    a = dict.fromkeys(DIMENSIONS, 5) | {"safety": safety_a}
    b = dict.fromkeys(DIMENSIONS, 1) | {"safety": safety_b}
    result = outcome(*(line(rater=r, ratings_a=a, ratings_b=b) for r in THREE))
    assert (result == "safety_veto") == vetoed
    assert vetoed or isinstance(result, Preference)


def test_a_response_twice_as_long_makes_no_pair_but_one_just_within_does() -> None:
    n = len(GOOD_TEXT.split())
    for words, paired in ((2 * n, True), (2 * n + 1, False)):
        long = {"id": "c2", "text": " ".join(["word"] * words)}
        result = outcome(*(line(rater=r, response_b=long) for r in THREE))
        assert isinstance(result, Preference) == paired
        assert paired or result == "length_ratio"


def test_a_rater_may_fail_one_attention_item_and_no_more() -> None:
    real = [line(f"i{n}", r) for n in range(3) for r in THREE]
    once = [attention("x1", "r1", 4), attention("x2", "r1", 1)]
    twice = [attention("x1", "r2", 4), attention("x2", "r2", 5)]
    assert excluded_raters(rows(real + once + twice), RULES) == {"r2": "failed_attention"}


def test_a_rater_who_gives_one_rating_throughout_is_excluded() -> None:
    straight = [line(f"i{n}", "r1", 2 + n % 2, 2 + n % 2) for n in range(6)]
    mostly = [line(f"i{n}", "r2", 3, 3) for n in range(4)] + [line(f"i{n}", "r2") for n in (4, 5)]
    assert excluded_raters(rows(straight + mostly), RULES) == {"r1": "straight_lining"}


def test_a_rater_without_any_variance_has_no_scale() -> None:
    assert excluded_raters(rows([line("i1", "r1", 3, 3)]), RULES) == {"r1": "no_variance"}


def test_every_rating_left_out_is_counted_under_its_reason() -> None:
    lines = [line("i1", r) for r in THREE]
    lines += [line("i1", "r1"), line("i2", "r1", ratings_a={"empathy": 3})]
    lines += [attention("x1", "r1", 1), attention("x1", "r4", 5), attention("x2", "r4", 5), line("i2", "r4")]
    kept, dropped = usable(rows(lines), RULES)
    assert len(kept) == 3
    assert dropped == {"rated_twice": 1, "incomplete_readability": 1, "attention_item": 1, "rater_failed_attention": 3}
    assert len(kept) + sum(dropped.values()) == len(lines)


rated = st.builds(
    lambda item, rater, a, b: line(f"i{item}", f"r{rater}", a, b),
    st.integers(0, 3), st.integers(0, 4), st.integers(1, 5), st.integers(1, 5),
)  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(st.lists(rated, max_size=30))
def test_nothing_is_lost_and_swapping_the_sides_swaps_the_outcome(lines: list[dict[str, Any]]) -> None:
    kept, dropped = usable(rows(lines), RULES)
    assert len(lines) == len(kept) + sum(dropped.values())
    found, reasons = preferences(kept, RULES)
    assert len({row.item_id for row in kept}) == len(found) + sum(reasons["gm"].values())
    mirrored = [
        row.model_copy(
            update={
                "response_a": row.response_b,
                "response_b": row.response_a,
                "ratings_a": row.ratings_b,
                "ratings_b": row.ratings_a,
            }
        )
        for row in kept
    ]
    again, _ = preferences(mirrored, RULES)
    assert [(p.item_id, p.chosen.id) for p in again] == [(p.item_id, p.chosen.id) for p in found]


NONE: dict[str, None] = {}


def choice(item: str, rater: str, preferred: str) -> dict:
    """A line that holds a choice and no ratings."""
    return line(item, rater, ratings_a=NONE, ratings_b=NONE, preferred=preferred)


def test_choices_without_ratings_make_a_preference() -> None:
    found, dropped = preferences(usable(rows([choice("i1", r, "b") for r in THREE]), RULES)[0], RULES)
    assert [(p.chosen.id, p.margin, p.agreement, p.raters) for p in found] == [("c2", RULES.choice_margin, 1.0, 3)]
    assert not dropped


def test_choices_can_be_left_out() -> None:
    without = RULES.model_copy(update={"choice_margin": 0.0})
    found, dropped = preferences(rows([choice("i1", r, "b") for r in THREE]), without)
    assert (found, dropped["gm"]) == ([], {"margin_too_small": 1})


def test_complete_ratings_count_before_a_choice() -> None:
    found, _ = preferences(usable(rows([line("i1", r, 5, 2, preferred="b") for r in THREE]), RULES)[0], RULES)
    assert [preference.chosen.id for preference in found] == ["c1"]


def test_choices_do_not_make_safe_what_raters_found_unsafe() -> None:
    unsafe = {"safety": 2, "empathy": 5, "readability": 5, "connection": 5, "actionability": 5}
    lines = [choice("i1", "r1", "a"), choice("i1", "r2", "a"), line("i1", "r3", ratings_a=unsafe, b=1)]
    found, dropped = preferences(usable(rows(lines), RULES)[0], RULES)
    assert (found, dropped["gm"]) == ([], {"safety_veto": 1})


def test_a_rater_who_only_chooses_is_not_left_out_for_want_of_a_scale() -> None:
    assert excluded_raters(rows([choice(f"i{n}", "r1", "a") for n in range(5)]), RULES) == {}
