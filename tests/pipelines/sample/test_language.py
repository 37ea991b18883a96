"""The invented language: each sentence shows its own feature, and nothing of it is harmful."""

import random
import re

import pytest

from pipelines.sample import scorer
from pipelines.sample.language import EXTRA_SENTENCES, FEELINGS, GREETINGS, REPLIES, sentence
from pipelines.sample.topics import TOPICS
from pipelines.sample.writer import MAX_WORDS, MIN_WORDS, Situation, fill, write_post, write_reply

HARM = re.compile(
    r"suicid|kill|overdos|self-harm|noose|razor|\bhang(?:ed|ing)?\b (?:my|your)self|jump off|cut myself|\bpills?\b"
)


@pytest.fixture(scope="module")
def written() -> tuple[list[str], list[str]]:
    """600 posts, and five replies to each."""
    rng = random.Random(3)
    posts, replies = [], []
    for _ in range(600):
        situation, title, text = write_post(rng)
        posts.append(f"{title}\n{text}")
        replies += [write_reply(rng, situation).text for _ in range(5)]
    return posts, replies


@pytest.mark.parametrize("feature", REPLIES)
def test_every_template_is_recognised_as_its_own_feature_and_no_other(feature: str) -> None:
    rng = random.Random(0)
    for template in REPLIES[feature]:
        for topic in TOPICS:
            for strain in (helper for _, helper in topic.strains):
                about = Situation(topic, rng.choice(topic.details), (strain,), rng.choice(FEELINGS))
                text = sentence(fill(rng, template, about, rng.choice(topic.things).format(x=about.detail)))
                assert dict(scorer.features(text)) == {feature: 1}, text


def test_topics_are_complete_and_their_phrases_fit_the_templates() -> None:
    assert len(TOPICS) >= 12
    for topic in TOPICS:
        assert len(topic.strains) >= 5 and len(topic.steps) >= 4 and len(topic.pasts) >= 4 and len(topic.asks) >= 4
        assert all(poster.endswith(".") and not helper.endswith(".") for poster, helper in topic.strains)
        assert not any(phrase.endswith((".", "?")) for phrase in (*topic.steps, *topic.pasts, *topic.asks))
        for text in (*topic.titles, *topic.openings, *topic.things):
            assert "{" not in text.format(x=topic.details[0])


def test_posts_have_40_to_90_words_and_replies_20_to_55(written: tuple[list[str], list[str]]) -> None:
    posts, replies = written
    assert all(40 <= len(post.split("\n")[1].split()) <= 90 for post in posts)
    assert all(MIN_WORDS <= len(reply.split()) <= MAX_WORDS for reply in replies)


def test_texts_vary_while_the_vocabulary_stays_small(written: tuple[list[str], list[str]]) -> None:
    posts, replies = written
    assert len(set(posts)) == len(posts)
    assert len(set(replies)) > 0.99 * len(replies)
    words = set(re.findall(r"[a-z'-]+", " ".join(posts + replies).lower()))
    assert 700 < len(words) < 2500


def test_no_sentence_of_the_language_speaks_of_self_harm(written: tuple[list[str], list[str]]) -> None:
    everything = [
        *written[0],
        *written[1],
        *(text for topic in TOPICS for text in scorer.sentences(topic)),
        *GREETINGS,
        *EXTRA_SENTENCES.values(),
    ]
    assert not [text for text in everything if HARM.search(text.lower())]
