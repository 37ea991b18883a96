"""What each pair rule promises of every pair, and which it allows at its bounds."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from configs import DataError
from configs.pairs import MatchedSettings, PairSettings
from pipelines.pairs.exposure_model import Kept, logged
from pipelines.pairs.rules import ALL, cautions, rule_of, rules
from pipelines.pairs.select import select
from tests.pipelines.pairs.making import THREADS, exposure, ids, of, row, table

NAMES = sorted(rule.name for rule in ALL)
MATCHED = st.builds(
    MatchedSettings,
    window_hours=st.sampled_from([0.5, 6.0, 100.0]),
    max_rank_distance=st.integers(1, 20),
    min_margin=st.sampled_from([0.0, 0.5, 1.5, 3.0]),
    min_chosen_score=st.integers(-2, 9),
    min_lift=st.sampled_from([-5.0, 0.0, 0.5]),
    balanced=st.booleans(),
)
SETTINGS = st.builds(
    PairSettings,
    matched=MATCHED,
    timing=st.booleans(),
    min_ratio=st.sampled_from([1.0, 1.5, 2.0, 5.0]),
    min_score=st.integers(-5, 5),
    min_gap=st.integers(1, 40),
    min_post_score=st.integers(0, 12),
    max_per_post=st.integers(1, 8),
    max_per_reply=st.integers(1, 4),
)
MODELS = st.builds(
    exposure,
    fall=st.lists(st.floats(-2, 0), min_size=1, max_size=6).map(lambda steps: np.cumsum([0.0, *steps]).tolist()),
    kept=st.lists(
        st.builds(
            Kept,
            stratum=st.integers(0, 3),
            earlier=st.integers(-1, 1),
            longer=st.integers(-1, 1),
            share=st.floats(0, 1),
        ),
        max_size=5,
    ),
)


def pairs(votes: Any, name: str, **changes: Any) -> list[tuple[str, str]]:
    """The pairs of one thread by one rule."""
    threads, model = table(row("p", votes)), exposure()
    settings = PairSettings(**changes)
    return ids(threads, select(of(threads, model), rules(settings, model)[name], settings))  # type: ignore[index]


@given(THREADS, SETTINGS, MODELS)
def test_by_shp_no_chosen_reply_was_posted_before_its_rejected_one(threads: Any, settings: Any, model: Any) -> None:
    replies = of(table(*threads), model)
    found = select(replies, rules(settings, model)["shp"], settings)
    high, low = replies.scores[found.chosen], replies.scores[found.rejected]
    assert not settings.timing or (replies.times[found.chosen] >= replies.times[found.rejected]).all()
    assert ((high > low) & (low >= settings.min_score) & (high >= settings.min_ratio * low)).all()


@given(THREADS, SETTINGS, MODELS)
def test_matched_never_pairs_replies_outside_its_window(threads: Any, settings: Any, model: Any) -> None:
    replies, bounds = of(table(*threads), model), settings.matched
    found = select(replies, rules(settings, model)["matched"], settings)
    chosen, rejected = found.chosen, found.rejected
    assert (abs(replies.times[chosen] - replies.times[rejected]) <= 3600 * bounds.window_hours).all()
    assert (abs(replies.ranks[chosen] - replies.ranks[rejected]) <= bounds.max_rank_distance).all()
    adjusted = logged(replies.scores) - model.expected(replies.ranks, replies.sizes)
    assert (adjusted[chosen] - adjusted[rejected] >= bounds.min_margin).all()
    assert (replies.scores[chosen] > replies.scores[rejected]).all()
    assert (replies.scores[chosen] >= bounds.min_chosen_score).all()
    for at, other in zip(chosen, rejected, strict=True):
        middle = np.median(adjusted[replies.posts == replies.posts[at]])
        assert replies.scores[other] > 0 or adjusted[at] - middle >= bounds.min_lift


@given(THREADS, SETTINGS, MODELS)
def test_paper_margin_and_askell_keep_their_bounds(threads: Any, settings: Any, model: Any) -> None:
    replies = of(table(*threads), model)
    found = {name: select(replies, rule, settings) for name, rule in rules(settings, model).items()}
    sides = {name: (replies.scores[one.chosen], replies.scores[one.rejected]) for name, one in found.items()}
    high, low = sides["paper"]
    assert ((high >= model.top_score) & (low <= model.bottom_score) & (high - low >= settings.min_gap)).all()
    assert (sides["margin"][0] - sides["margin"][1] >= settings.min_gap).all()
    grades = [[-1 if s < 0 else round(float(np.log2(1 + s))) for s in side.tolist()] for side in sides["askell"]]
    assert all(a > b for a, b in zip(*grades, strict=True))


@given(THREADS, SETTINGS, MODELS, st.sampled_from(NAMES))
def test_no_rule_chooses_the_lower_score_or_pairs_across_posts(
    threads: Any, settings: Any, model: Any, name: Any
) -> None:
    replies = of(table(*threads), model)
    found = select(replies, rules(settings, model)[name], settings)
    assert (replies.scores[found.chosen] > replies.scores[found.rejected]).all()
    assert (replies.posts[found.chosen] == replies.posts[found.rejected]).all()
    assert (replies.post_scores[found.chosen] >= settings.min_post_score).all()


@pytest.mark.parametrize(
    ("high", "low", "allowed"), [(4, 2, True), (3, 2, False), (2, 1, False), (5, 2, True), (4, -3, False)]
)
def test_by_shp_ratio_and_least_score_decide(high: int, low: int, allowed: bool) -> None:
    assert bool(pairs([(low, 1), (high, 2)], "shp")) is allowed


def test_an_earlier_reply_is_chosen_by_naive_and_by_shp_only_without_timing() -> None:
    votes = [(50, 1), (5, 2)]
    assert pairs(votes, "shp") == []
    assert pairs(votes, "shp", timing=False) == pairs(votes, "naive") == [("pc0", "pc1")]


def test_matched_takes_off_what_arrival_explains() -> None:
    # by the model the second reply has half the score of the first for coming second
    assert pairs([(15, 1), (7, 2)], "matched", matched={"min_margin": 0.1}) == []
    assert pairs([(31, 1), (7, 2)], "matched", matched={"min_margin": 0.9}) == [("pc0", "pc1")]
    assert pairs([(31, 1), (7, 2)], "matched", matched={"min_margin": 1.1}) == []


def test_matched_prefers_downvoted_replies_as_rejected_ones() -> None:
    votes = [(60, 1), (1, 2), (-4, 3), (60, 4)]
    found = pairs(votes, "matched", matched={"balanced": False, "min_margin": 1.0})
    assert [rejected for _, rejected in found[:2]] == ["pc2", "pc2"]


def test_a_reply_is_not_chosen_only_because_another_was_voted_down() -> None:
    votes = [(40, 1), (30, 2), (3, 3), (-30, 4)]
    found = pairs(votes, "matched", matched={"balanced": False, "min_lift": 0.5})
    assert ("pc2", "pc3") not in found and ("pc0", "pc3") in found


def test_what_balance_withholds_depends_on_the_two_ids_alone() -> None:
    kept = [Kept(stratum=s, earlier=e, longer=n, share=0.5) for s in range(4) for e in (-1, 0, 1) for n in (-1, 0, 1)]
    settings = PairSettings(matched={"min_margin": 1.0})
    rows = [row(f"p{i}", [(2, 1), (90, 2)]) for i in range(400)]
    model = exposure(kept=kept)
    all_at_once = ids(threads := table(*rows), select(of(threads, model), rule_of(settings, model), settings))
    assert 140 < len(all_at_once) < 260
    alone = [
        pair
        for one in rows
        for pair in ids(table(one), select(of(table(one), model), rule_of(settings, model), settings))
    ]
    assert alone == sorted(
        all_at_once, key=lambda pair: rows.index(next(r for r in rows if pair[0].startswith(r["post_id"] + "c")))
    )


def test_a_rule_that_needs_the_order_of_arrival_is_refused_without_it() -> None:
    blind = exposure(curves=[], usable_timestamps=False)
    for settings in (PairSettings(), PairSettings(rule="shp")):
        with pytest.raises(DataError, match=r"set pairs\.rule=shp and pairs\.timing=false"):
            rule_of(settings, blind)
    untimed = PairSettings(rule="shp", timing=False)
    assert rule_of(untimed, blind).name == "shp"
    assert "dumps do not tell" in cautions(untimed, blind)[0]
    assert "matched" not in rules(untimed, blind)


def test_rules_that_favour_early_replies_come_with_a_caution() -> None:
    assert cautions(PairSettings(), exposure()) == cautions(PairSettings(rule="shp"), exposure()) == []
    for name in ("naive", "paper", "askell", "margin"):
        assert "replied first has the advantage" in cautions(PairSettings(rule=name), exposure())[0]
