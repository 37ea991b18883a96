"""Writes posts and replies: draws a topic, details and sentences, fills the slots.

A reply is drawn from a tone (how helpful its author is today) and a number of sentences
that does not depend on the tone, so that length says little about quality. It is written
for a ``Situation``, what the post is about; a reply that misread its post is written for
another one.
"""

import random
from collections import Counter
from dataclasses import dataclass
from math import exp

from pipelines.sample.language import (
    AGAIN,
    CLOSINGS,
    CONTEXTS,
    DAYS,
    FEELING_SENTENCES,
    FEELINGS,
    GREETINGS,
    PEOPLE,
    REPLIES,
    TIMES,
    sentence,
)
from pipelines.sample.quality import GENERAL, OFF_TOPIC, ON_TOPIC, Judged, judge
from pipelines.sample.topics import TOPICS, Topic

FREQUENCY = {
    "validation": 0.20, "question": 0.15, "step": 0.17, "shared": 0.15, "wish": 0.13, "filler": 0.20,
    "minimising": 0.15, "dismissal": 0.12, "judgement": 0.10,
}  # fmt: skip
"""How often a feature is drawn at a neutral tone (relative)."""
VALENCE = {
    "validation": 1.0, "question": 1.0, "step": 1.0, "shared": 1.0, "wish": 0.4, "filler": 0.0,
    "minimising": -1.0, "dismissal": -1.0, "judgement": -1.0,
}  # fmt: skip
"""How a helpful tone changes that: frequency x exp(TONE x tone x valence)."""
TONE = 1.6
ORDER = ("filler", "validation", "dismissal", "minimising", "shared", "judgement", "step", "question", "wish")
MISREAD = 0.06
"""Share of replies written for another trouble."""
MIN_WORDS, MAX_WORDS = 20, 55


@dataclass(frozen=True)
class Situation:
    """What a post is about."""

    topic: Topic
    detail: str
    strains: tuple[str, ...]
    """The helper's words for the strains that the post tells of."""
    feel: str


@dataclass(frozen=True)
class Reply:
    """A reply and the truth about it."""

    text: str
    truth: Judged


def draw_situation(rng: random.Random) -> tuple[Situation, tuple[str, ...]]:
    """A situation, and the poster's own sentences for its strains."""
    topic = rng.choice(TOPICS)
    told = rng.sample(topic.strains, rng.choice((2, 2, 3)))
    situation = Situation(topic, rng.choice(topic.details), tuple(s for _, s in told), rng.choice(FEELINGS))
    return situation, tuple(s for s, _ in told)


def write_post(rng: random.Random) -> tuple[Situation, str, str]:
    """What the post is about, its title and its text."""
    situation, strains = draw_situation(rng)
    topic, x = situation.topic, situation.detail
    other = rng.choice([feel for feel in FEELINGS if feel != situation.feel])
    contexts = [fill_context(rng, text) for text in rng.sample(CONTEXTS, 2)]
    feeling = rng.choice(FEELING_SENTENCES).format(feel=situation.feel, feel2=other)
    body = [rng.choice(topic.openings).format(x=x), contexts[0], *strains, feeling, contexts[1], rng.choice(CLOSINGS)]
    if len(" ".join(body).split()) > 85:
        del body[-2]
    return situation, sentence(rng.choice(topic.titles).format(x=x)), " ".join(sentence(part) for part in body)


def fill_context(rng: random.Random, text: str) -> str:
    """A context sentence with its slots filled."""
    return text.format(time=rng.choice(TIMES), day=rng.choice(DAYS), person=rng.choice(PEOPLE))


def write_reply(rng: random.Random, situation: Situation) -> Reply:
    """A reply of 20-55 words to a post about ``situation``."""
    tone = rng.gauss(0, 1)
    misread = rng.random() < MISREAD
    about = draw_situation(rng)[0] if misread else situation
    misread = misread and about.topic is not situation.topic
    while True:
        features = draw_features(rng, tone, rng.choices((2, 3, 4), (0.25, 0.45, 0.30))[0])
        templates = [template for feature in ORDER for template in rng.sample(REPLIES[feature], features[feature])]
        parts = fill_all(rng, templates, about)
        if rng.random() < 0.15:
            parts.insert(0, rng.choice(GREETINGS))
        text = " ".join(parts)
        if MIN_WORDS <= len(text.split()) <= MAX_WORDS:
            break
    named = any("{" in template for template in templates)
    fit = GENERAL if not named else OFF_TOPIC if misread else ON_TOPIC
    return Reply(text, judge(features, fit))


def draw_features(rng: random.Random, tone: float, sentences: int) -> Counter[str]:
    """How many sentences of each feature a reply of that tone has; repeats are rare."""
    features: Counter[str] = Counter()
    frequency = dict(FREQUENCY)
    for _ in range(sentences):
        weights = [frequency[f] * exp(TONE * tone * VALENCE[f]) for f in frequency]
        feature = rng.choices(tuple(frequency), weights)[0]
        features[feature] += 1
        frequency[feature] *= 0.15
    return features


def fill_all(rng: random.Random, templates: list[str], about: Situation) -> list[str]:
    """``templates`` as sentences; once the trouble has been named it is mostly "all of this"."""
    sentences, named = [], False
    for template in templates:
        thing = rng.choice(about.topic.things).format(x=about.detail)
        if "{thing}" in template:
            thing = rng.choice(AGAIN) if named and rng.random() < 0.8 else thing
            named = True
        sentences.append(sentence(fill(rng, template, about, thing)))
    return sentences


def fill(rng: random.Random, template: str, about: Situation, thing: str) -> str:
    """``template`` with its slots filled from what the post is about."""
    topic = about.topic
    return template.format(
        thing=thing,
        strain=rng.choice(about.strains),
        feel=about.feel,
        step=rng.choice(topic.steps),
        past=rng.choice(topic.pasts),
        ask=rng.choice(topic.asks),
    )
