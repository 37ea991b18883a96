"""Pair rules as pure functions: what they allow, and what the caps leave."""

from collections import Counter

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from configs.pairs import PairSettings
from pipelines.corpus.schema import THREAD
from pipelines.pairs.old_rules import RULES, Replies, naive, pair_ids, post_allowed, select, shp

SCORES = st.integers(-20, 300)
TIMES = st.integers(0, 40)


@st.composite
def threads(draw: st.DrawFn) -> Replies:
    """Up to 25 replies with many ties in score and time."""
    votes = draw(st.lists(st.tuples(SCORES, TIMES), max_size=25))
    return Replies(
        tuple(f"c{i}" for i in range(len(votes))),
        np.array([score for score, _ in votes], dtype=np.int64),
        np.array([time for _, time in votes], dtype=np.int64),
    )


RULE_SETTINGS = st.builds(
    PairSettings,
    timing=st.booleans(),
    min_ratio=st.sampled_from([1.0, 1.5, 2.0, 5.0]),
    min_score=st.integers(-5, 5),
    max_per_post=st.integers(1, 8),
    max_per_reply=st.integers(1, 4),
)


def replies(*votes: tuple[int, int]) -> Replies:
    """Replies of the given (score, time)."""
    return Replies(
        tuple(f"c{i}" for i in range(len(votes))),
        np.array([score for score, _ in votes]),
        np.array([time for _, time in votes]),
    )


@given(threads(), RULE_SETTINGS)
def test_by_shp_no_chosen_reply_was_posted_earlier(thread: Replies, settings: PairSettings) -> None:
    for chosen, rejected in select(thread, settings, "shp").pairs:
        high, low = thread.scores[chosen], thread.scores[rejected]
        assert not settings.timing or thread.times[chosen] >= thread.times[rejected]
        assert high > low >= settings.min_score
        assert high >= settings.min_ratio * low


@given(threads(), RULE_SETTINGS, st.sampled_from(sorted(RULES)))
def test_the_caps_hold_and_no_two_replies_are_paired_twice(thread: Replies, settings: PairSettings, rule: str) -> None:
    selection = select(thread, settings, rule)
    uses = Counter(i for pair in selection.pairs for i in pair)
    assert len(selection.pairs) <= settings.max_per_post
    assert max(uses.values(), default=0) <= settings.max_per_reply
    assert len({frozenset(pair) for pair in selection.pairs}) == len(selection.pairs)
    assert selection.candidates == len(selection.pairs) + selection.over_reply_cap + selection.over_post_cap
    assert bool(selection.pairs) == bool(selection.candidates)


@given(threads(), RULE_SETTINGS, st.sampled_from(sorted(RULES)), st.randoms())
def test_the_choice_does_not_depend_on_the_order_of_replies(
    thread: Replies, settings: PairSettings, rule: str, rng
) -> None:
    order = list(range(len(thread)))
    rng.shuffle(order)
    shuffled = Replies(tuple(thread.ids[i] for i in order), thread.scores[order], thread.times[order])
    once = [(thread.ids[a], thread.ids[b]) for a, b in select(thread, settings, rule).pairs]
    again = [(shuffled.ids[a], shuffled.ids[b]) for a, b in select(shuffled, settings, rule).pairs]
    assert once == again


@given(threads(), RULE_SETTINGS)
def test_what_shp_allows_the_naive_rule_allows_as_well(thread: Replies, settings: PairSettings) -> None:
    assert not (shp(thread, settings) & ~naive(thread, settings)).any()


def test_a_reply_posted_earlier_is_never_chosen_unless_timing_is_off() -> None:
    thread = replies((50, 1), (5, 2))
    assert select(thread, PairSettings()).pairs == []
    assert select(thread, PairSettings(timing=False)).pairs == [(0, 1)]
    assert select(thread, PairSettings(), "naive").pairs == [(0, 1)]


def test_replies_of_the_same_second_may_be_paired() -> None:
    assert select(replies((4, 1), (2, 1)), PairSettings()).pairs == [(0, 1)]


@pytest.mark.parametrize(
    ("high", "low", "allowed"), [(4, 2, True), (3, 2, False), (2, 1, False), (5, 2, True), (4, -3, False)]
)
def test_ratio_and_least_score_decide(high: int, low: int, allowed: bool) -> None:
    assert bool(select(replies((low, 1), (high, 2)), PairSettings()).pairs) is allowed


def test_the_clearest_pairs_come_first() -> None:
    thread = replies((2, 1), (4, 2), (40, 3))
    assert select(thread, PairSettings()).pairs == [(2, 0), (2, 1), (1, 0)]
    assert select(thread, PairSettings(max_per_post=1)).pairs == [(2, 0)]
    capped = select(thread, PairSettings(max_per_reply=1))
    assert (capped.pairs, capped.over_reply_cap) == ([(2, 0)], 2)


def test_a_thread_without_replies_has_no_pairs() -> None:
    assert select(replies(), PairSettings()).pairs == []


def test_posts_with_few_votes_give_no_pairs() -> None:
    settings = PairSettings(min_post_score=10)
    assert post_allowed(10, settings)
    assert not post_allowed(9, settings)
    assert not post_allowed(None, settings)
    comments = [
        {"comment_id": name, "author_hash": None, "text": "x", "created_utc": time, "score": score}
        for name, time, score in (("a", 1, 2), ("b", 2, 9))
    ]
    rows = [{"post_id": f"p{score}", "score": score, "split": "test", "comments": comments} for score in (9, 10)]
    found = pair_ids(pa.Table.from_pylist(rows, schema=THREAD), settings)
    assert found.to_pylist() == [{"post_id": "p10", "split": "test", "chosen_id": "b", "rejected_id": "a"}]
