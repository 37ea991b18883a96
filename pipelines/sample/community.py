"""The simulated community: who posts, who answers when, and how votes come about.

    score = exposure(order of arrival) x appeal(quality) x noise, minus what poor replies lose

Exposure is what makes raw votes misleading: the first reply is seen by many more readers
than the eighth, whatever it says. Its fall is calibrated on real comments (mean score by
order of arrival 70, 50, 39, 30 ... 19), and so is the within-thread Spearman correlation
of time and score (about -.6). Quality never depends on the order of arrival.
"""

import random
from dataclasses import dataclass, field
from math import exp

from pipelines.sample.quality import Judged
from pipelines.sample.writer import Situation, write_post, write_reply

SUBREDDIT = "QuietHarbor"
OTHER_SUBREDDIT = "QuietHarborMeta"
START, END = 1_551_398_400, 1_556_323_200
"""First and last time of a post: 1 March and 27 April 2019, 0:00 UTC."""
FIRST_SCORE = 40.0
"""Score of an average first reply in an average thread."""
EXPOSURE = 0.69
"""Exposure falls as order ** -EXPOSURE."""
APPEAL = 0.17
"""Log score a point of quality."""
NOISE = 0.43
"""Standard deviation of the log score's noise."""
CROWD = 0.45
"""Standard deviation of a thread's log popularity."""
MEAN_QUALITY = 0.35
"""Quality at which appeal is 1."""

_FIRST = (
    "Quiet",
    "Soft",
    "Amber",
    "Gentle",
    "Misty",
    "Silver",
    "Early",
    "Hidden",
    "Little",
    "Northern",
    "Paper",
    "Slow",
)
_SECOND = (
    "Maple",
    "Lantern",
    "Pebble",
    "Otter",
    "Willow",
    "Harbor",
    "Meadow",
    "Sparrow",
    "Kettle",
    "Ember",
    "Tide",
    "Fern",
)


@dataclass
class Comment:
    """A comment of the simulation; ``truth`` is None where the wording has none."""

    comment_id: str
    author: str
    text: str
    created_utc: int
    score: int | None
    truth: Judged | None = None
    order: int = 0
    """Order of arrival among the thread's replies, from 1; 0 for rows that are not such replies."""
    kind: str = "normal"
    parent: str | None = None
    """Id of the comment answered; None answers the post."""
    post_id: str | None = None
    """Id of the post answered, where that is not the thread's."""
    fields: dict[str, object] = field(default_factory=dict)
    """Columns of the dump that differ from the usual."""


@dataclass
class Thread:
    """A post of the simulation and its comments."""

    post_id: str
    author: str
    title: str
    text: str
    created_utc: int
    score: int
    situation: Situation
    comments: list[Comment]
    kind: str = "normal"
    subreddit: str = SUBREDDIT
    fields: dict[str, object] = field(default_factory=dict)


class Ids:
    """Ids in base 36, as Reddit gives them out: rising, with gaps."""

    def __init__(self, rng: random.Random, start: str):
        self._rng, self._next = rng, int(start, 36)

    def __call__(self) -> str:
        self._next += self._rng.randint(1, 40)
        digits, n = "", self._next
        while n:
            n, digit = divmod(n, 36)
            digits = "0123456789abcdefghijklmnopqrstuvwxyz"[digit] + digits
        return digits


class Community:
    """Draws threads; no two posts and no two replies have the same text."""

    def __init__(self, rng: random.Random, threads: int):
        self.rng = rng
        self.post_ids, self.comment_ids = Ids(rng, "aw0000"), Ids(rng, "ehk0000")
        names = [f"{a}{b}{n}" for a in _FIRST for b in _SECOND for n in rng.sample(range(10, 100), 8)]
        rng.shuffle(names)
        self.posters = names[: max(8, threads * 6 // 10)][:700]
        self.helpers = names[-400:]
        self.activity = [exp(rng.gauss(0, 1)) for _ in self.helpers]
        self.written: set[str] = set()

    def thread(self) -> Thread:
        """One thread with all its replies and their votes."""
        situation, title, text = self._new_post()
        author = self.rng.choice(self.posters)
        created = self.rng.randint(START, END)
        crowd = exp(self.rng.gauss(0, CROWD))
        count = min(30, max(2, round(self.rng.gammavariate(4, 2.25))))
        thread = Thread(self.post_ids(), author, title, text, created, round(25 * crowd), situation, [])
        time = float(created)
        for order in range(1, count + 1):
            time += 60 + self.rng.expovariate(1 / (600 * order))
            thread.comments.append(self.reply(thread, order, int(time), crowd))
        return thread

    def reply(self, thread: Thread, order: int, created: int, crowd: float) -> Comment:
        """The reply that arrives at that order, with its votes."""
        reply = write_reply(self.rng, thread.situation)
        while reply.text in self.written:
            reply = write_reply(self.rng, thread.situation)
        self.written.add(reply.text)
        author = self.rng.choices(self.helpers, self.activity)[0]
        score = votes(self.rng, reply.truth.quality, order, crowd)
        return Comment(self.comment_ids(), author, reply.text, created, score, reply.truth, order)

    def _new_post(self) -> tuple[Situation, str, str]:
        while True:
            situation, title, text = write_post(self.rng)
            if text not in self.written:
                self.written.add(text)
                return situation, title, text


def votes(rng: random.Random, quality: float, order: int, crowd: float) -> int:
    """Net votes of a reply: exposure x appeal x noise; a few poor replies are voted below 1."""
    if rng.random() < 0.12 / (1 + exp(1.5 * (quality + 1.5))):
        return -rng.randint(0, 8)
    exposure = FIRST_SCORE * crowd * order**-EXPOSURE
    return round(exposure * exp(APPEAL * (quality - MEAN_QUALITY) + rng.gauss(0, NOISE)))
