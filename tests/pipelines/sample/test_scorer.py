"""The simulation's judge: agrees with the latent quality, and is not taken in by non-language."""

import random

import pytest
from scipy.stats import pearsonr

from pipelines.sample.scorer import WORST, known_share, quality, repetition, tokens
from pipelines.sample.writer import Reply, write_post, write_reply

GOOD = (
    "It makes sense that watching the clock and counting the hours wears you down. I have been there myself: "
    "I did not sleep through a night for half a year. Maybe start small and leave the phone in the kitchen at night."
)
POOR = "Just get over this lack of sleep already. You brought all of this on yourself. Other people have it much worse."
POST = "Awake until sunrise again\n\nI lie awake until sunrise almost every night. I have started to fear my own bed."
OTHER_POST = "The cat\n\nMy cat died last week and I cannot stop crying. I still fill the bowl in the morning."


@pytest.fixture(scope="module")
def pool() -> list[tuple[str, Reply]]:
    """1,500 posts with one reply each."""
    rng = random.Random(5)
    pool = []
    for _ in range(1500):
        situation, title, text = write_post(rng)
        pool.append((f"{title}\n\n{text}", write_reply(rng, situation)))
    return pool


def test_the_judge_agrees_with_the_latent_quality_from_the_wording_alone(pool: list[tuple[str, Reply]]) -> None:
    truth = [reply.truth.quality for _, reply in pool]
    assert pearsonr([quality(reply.text) for _, reply in pool], truth).statistic > 0.95
    assert pearsonr([quality(reply.text, post) for post, reply in pool], truth).statistic > 0.97


def test_length_is_a_poor_proxy_of_quality(pool: list[tuple[str, Reply]]) -> None:
    lengths = [len(reply.text.split()) for _, reply in pool]
    assert abs(pearsonr(lengths, [reply.truth.quality for _, reply in pool]).statistic) < 0.4


def test_a_caring_reply_is_better_than_a_dismissive_one() -> None:
    assert quality(GOOD) > 2.5
    assert quality(POOR) < -2.5


def test_a_reply_to_another_trouble_is_worse_than_one_to_the_post() -> None:
    assert quality(GOOD, POST) == quality(GOOD)
    assert quality(GOOD, OTHER_POST) < quality(GOOD, POST) - 1


@pytest.mark.parametrize("text", ["", "   ", "...", "🙂"])
def test_an_empty_text_has_the_lowest_quality(text: str) -> None:
    assert quality(text) == WORST


def test_word_salad_earns_nothing_for_the_cues_it_holds() -> None:
    words = GOOD.split()
    random.Random(1).shuffle(words)
    assert quality(" ".join(words)) < -1
    assert quality("sense hope you could small same here rooting ? makes been years ago step") < -1


def test_foreign_words_earn_nothing() -> None:
    assert quality("zxcv qwer asdf uiop hjkl bnmv tyui ghjk") < -3


def test_repeating_a_good_sentence_makes_a_reply_worse() -> None:
    once = "It makes sense that studying all day and remembering nothing wears you down."
    assert quality(" ".join([once] * 8)) < quality(once) - 2
    assert repetition(tokens(once)) == 0


def test_a_text_that_rambles_on_loses_quality(pool: list[tuple[str, Reply]]) -> None:
    good = [reply.text for _, reply in pool if reply.truth.quality > 2][:8]
    assert quality(" ".join(good)) < min(map(quality, good))


def test_generated_replies_consist_of_known_pairs_of_words(pool: list[tuple[str, Reply]]) -> None:
    assert all(known_share(tokens(reply.text)) == 1 for _, reply in pool)
