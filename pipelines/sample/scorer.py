"""The simulation's own judge: the quality of any text, from its wording alone.

Each feature of the invented language is recognised by cues, sentence by sentence, and
weighed as in ``quality``. Texts that are not of the language earn nothing for cues they
happen to contain: unknown pairs of words, repetition, and texts too short or too long
cost quality. It knows only this simulation's language and says nothing about real
comments.
"""

import re
from collections import Counter
from collections.abc import Iterator
from functools import cache
from itertools import pairwise

from pipelines.sample.language import AGAIN, EXTRAS, FEELINGS, GREETINGS, REPLIES
from pipelines.sample.quality import GENERAL, OFF_TOPIC, ON_TOPIC, judge
from pipelines.sample.topics import TOPICS, Topic

CUES = {
    "validation": r"makes? sense|in your place|sounds really hard|are not weak|sorry that|hear how heavy"
    r"|nothing wrong with you|no wonder|lot for one person|took courage|every right|understandable|human answer"
    r"|feel is real|felt for you",
    "question": r"\?",
    "step": r"you could|start small|first step|fix it all|have the energy|it may help|before anything else|my advice"
    r"|gentle with yourself|that can help is|permission to|small step",
    "shared": r"been there myself|my own life|years ago|felt the same way|what this is like|not alone in this"
    r"|what helped me|could have been me|still remember how|not long ago|same here|went through something"
    r"|i also felt",
    "wish": r"i hope|warm hug|rooting for you|i wish you|come back and tell|good care of|glad that you wrote"
    r"|thinking of you|kind to yourself|good luck|you matter",
    "minimising": r"much worse|not that bad|at least you|no big deal|bigger than it|just a phase|could be worse"
    r"|if i only had|overreacting|you will laugh|others manage|end of the world|compared to my",
    "dismissal": r"get over|do not see why|stop thinking|nobody here|a real problem|waste a post|cheer up|no point in"
    r"|tired of reading|get a grip|nobody will care|just move on|stopped reading|not this again",
    "judgement": r"on yourself|just lazy|own fault|selfish|grown person|should be ashamed|had tried|clearly do"
    r"|people like you|too soft|foolish|to blame|the victim|weak people",
}
"""What each feature is recognised by, in lower case."""
_CUES = {feature: re.compile(pattern) for feature, pattern in CUES.items()}
_TOKENS = re.compile(r"[a-z0-9'@./-]*[a-z0-9]|[?!.,:]")
_SENTENCES = re.compile(r"(?<=[.?!])\s+")
SHORT, LONG = 8, 70
"""Words below and above which a text loses quality."""
WORST = -6.0
"""Quality of an empty text, and the lowest there is."""


def quality(text: str, post: str | None = None) -> float:
    """Quality of ``text``, unbounded above 0 being better; given the ``post``, a reply to another trouble loses.

    Generated replies lie between about -5 and 4; an empty text has -6.
    """
    words = tokens(text)
    count = sum(word[0].isalnum() for word in words)
    if count == 0:
        return WORST
    strange = 1 - known_share(words)
    value = judge(features(text), fit(words, None if post is None else tokens(post))).quality
    credit = max(0.0, 1 - 3 * max(0.0, strange - 0.03))
    value = value * credit if value > 0 else value
    penalty = 6 * max(0.0, strange - 0.08) + 5 * max(0.0, repetition(words) - 0.1)
    penalty += 0.25 * max(0, SHORT - count) + 0.03 * max(0, count - LONG)
    return max(WORST, value - penalty)


def features(text: str) -> Counter[str]:
    """How many sentences show each feature; one that shows none counts as filler, except a greeting."""
    found: Counter[str] = Counter()
    for sentence in _SENTENCES.split(text.strip()):
        lower = sentence.lower()
        shown = [feature for feature, cue in _CUES.items() if cue.search(lower)]
        found.update(shown or (["filler"] if len(lower.split()) > 3 else []))
    return found


def fit(words: list[str], post: list[str] | None) -> float:
    """Worth of the trouble that a text names: the post's own, several or another one, or none."""
    named = topics_of(words)
    if not named:
        return GENERAL
    about = topics_of(post) if post else set()
    if about:
        return ON_TOPIC if named <= about else OFF_TOPIC
    return ON_TOPIC if len(named) == 1 else OFF_TOPIC


def topics_of(words: list[str]) -> set[str]:
    """Names of the topics of which ``words`` holds at least two characteristic pairs of words, or all it has."""
    counts = Counter(owner for pair in set(pairwise(words)) if (owner := owners().get(pair)))
    enough = min(2, max(counts.values(), default=0))
    return {topic for topic, n in counts.items() if n >= enough}


def repetition(words: list[str]) -> float:
    """Share of runs of four words that were there before (0-1)."""
    runs = [tuple(words[i : i + 4]) for i in range(len(words) - 3)]
    return 1 - len(set(runs)) / len(runs) if runs else 0.0


def known_share(words: list[str]) -> float:
    """Share of neighbouring words that also stand side by side somewhere in the language (0-1)."""
    pairs = list(pairwise([".", *words]))
    return sum(pair in known_pairs() for pair in pairs) / len(pairs)


def tokens(text: str) -> list[str]:
    """Words and marks of ``text`` in lower case; question and exclamation marks end a sentence like a full stop."""
    return [re.sub(r"^[?!]$", ".", token) for token in _TOKENS.findall(text.lower())]


@cache
def known_pairs() -> frozenset[tuple[str, str]]:
    """Every pair of neighbouring words that replies of the language can hold."""
    general = {pair for text in (*GREETINGS, *EXTRAS) for pair in pairwise([".", *tokens(text)])}
    return frozenset(general.union(*(pairs_of(topic) for topic in TOPICS)))


@cache
def owners() -> dict[tuple[str, str], str]:
    """The topic that a pair of words belongs to, for pairs that occur with one topic only."""
    seen: dict[tuple[str, str], list[str]] = {}
    for topic in TOPICS:
        posts = [text.format(x=x) for text in (*topic.titles, *topic.openings) for x in topic.details]
        posts += [poster for poster, _ in topic.strains]
        for pair in pairs_of(topic).union(*(pairwise(tokens(text)) for text in posts)):
            seen.setdefault(pair, []).append(topic.name)
    return {pair: names[0] for pair, names in seen.items() if len(names) == 1}


@cache
def pairs_of(topic: Topic) -> frozenset[tuple[str, str]]:
    """Every pair of neighbouring words that replies about a topic can hold."""
    return frozenset(pair for text in sentences(topic) for pair in pairwise([".", *tokens(text)]))


def sentences(topic: Topic) -> Iterator[str]:
    """Each template of a reply with each value of each of its slots at least once."""
    values: dict[str, list[str]] = {
        "thing": [*AGAIN, *(thing.format(x=x) for thing in topic.things for x in topic.details)],
        "strain": [helper for _, helper in topic.strains],
        "step": list(topic.steps),
        "past": list(topic.pasts),
        "ask": list(topic.asks),
        "feel": list(FEELINGS),
    }
    for template in (template for group in REPLIES.values() for template in group):
        used = [slot for slot in values if f"{{{slot}}}" in template]
        for i in range(max((len(values[slot]) for slot in used), default=1)):
            yield template.format(**{slot: values[slot][i % len(values[slot])] for slot in used})
