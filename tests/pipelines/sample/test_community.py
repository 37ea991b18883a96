"""The simulated votes: confounded by arrival, so that raw votes mislead and a rule with timing does not."""

from itertools import pairwise
from statistics import correlation, fmean

import pytest
from scipy.stats import spearmanr

from configs.corpus import SampleSettings
from pipelines.sample.build import simulate
from pipelines.sample.community import SUBREDDIT, Comment, Thread


@pytest.fixture(scope="module")
def threads() -> list[Thread]:
    """The demo's sample: its clean threads, with the replies that votes were given to."""
    found = [thread for thread in simulate(SampleSettings(threads=1200, seed=7)) if thread.kind == "normal"]
    for thread in found:
        thread.comments = [c for c in thread.comments if c.order and c.score is not None]
    return found


def pairs(threads: list[Thread], rule: str) -> list[list[tuple[Comment, Comment]]]:
    """(chosen, rejected) of each thread: any higher score, or SHP's rule."""

    def holds(chosen: Comment, rejected: Comment) -> bool:
        assert chosen.score is not None and rejected.score is not None
        if rule == "naive":
            return chosen.score > rejected.score
        later = chosen.created_utc >= rejected.created_utc
        return later and rejected.score >= 2 and chosen.score >= 2 * rejected.score

    return [[(a, b) for a in t.comments for b in t.comments if a is not b and holds(a, b)] for t in threads]


def agreement(found: list[list[tuple[Comment, Comment]]]) -> float:
    """Share of pairs whose chosen reply has the higher latent quality; ties count half."""
    return fmean(
        0.5 if a.truth.quality == b.truth.quality else a.truth.quality > b.truth.quality
        for own in found
        for a, b in own
        if a.truth is not None and b.truth is not None
    )


def test_there_are_as_many_threads_as_asked_with_about_nine_replies_each(threads: list[Thread]) -> None:
    assert len(threads) == 1200
    assert {thread.subreddit for thread in threads} == {SUBREDDIT}
    assert 8 < fmean(len(thread.comments) for thread in threads) < 10


def test_mean_score_falls_with_the_order_of_arrival_as_in_real_threads(threads: list[Thread]) -> None:
    means = [
        fmean(c.score for t in threads for c in t.comments if c.order == n and c.score is not None) for n in range(1, 9)
    ]
    assert means == sorted(means, reverse=True)
    assert 0.5 < means[1] / means[0] < 0.75
    assert 0.2 < means[7] / means[0] < 0.35


def test_time_and_score_correlate_within_a_thread_as_in_real_threads(threads: list[Thread]) -> None:
    own = [t.comments for t in threads if len(t.comments) >= 4]
    rho = [spearmanr([c.created_utc for c in cs], [c.score for c in cs]).statistic for cs in own]
    assert -0.65 < fmean(rho) < -0.53


def test_quality_does_not_depend_on_the_order_of_arrival(threads: list[Thread]) -> None:
    replies = [c for t in threads for c in t.comments]
    assert abs(correlation([c.order for c in replies], [c.truth.quality for c in replies if c.truth])) < 0.03


def test_raw_votes_mislead_where_the_rule_with_timing_is_right(threads: list[Thread]) -> None:
    assert 0.60 < agreement(pairs(threads, "naive")) < 0.69
    assert 0.88 < agreement(pairs(threads, "shp")) < 0.95


def test_the_rule_with_timing_still_yields_enough_pairs(threads: list[Thread]) -> None:
    assert sum(min(5, len(own)) for own in pairs(threads, "shp")) > 2200


def test_a_few_poor_replies_are_voted_below_one(threads: list[Thread]) -> None:
    replies = [c for t in threads for c in t.comments if c.score is not None]
    low = [c for c in replies if c.score is not None and c.score <= 0]
    assert 0.01 < len(low) / len(replies) < 0.06
    assert fmean(c.truth.quality for c in low if c.truth) < -1


def test_replies_arrive_after_their_post_one_after_another(threads: list[Thread]) -> None:
    for thread in threads:
        times = [c.created_utc for c in sorted(thread.comments, key=lambda c: c.order)]
        assert thread.created_utc < times[0]
        assert all(a < b for a, b in pairwise(times))


def test_some_authors_post_several_times_and_names_are_no_bots(threads: list[Thread]) -> None:
    authors = [thread.author for thread in threads]
    assert len(set(authors)) < len(authors)
    assert not any(
        name.lower().endswith("bot") for name in {*authors, *(c.author for t in threads for c in t.comments)}
    )
