"""A simulated panel of raters, for the built-in sample only: its truth, seen through noise.

Raters differ in severity and in how noisy they are; one beside the panel rates at random
and is meant to be found out by the attention items. As a study that compares systems
does, most items hold two replies of clearly different truth and of like length; the rest
are drawn at random, and among them are close ones. The file has the form of real ratings.
"""

import random
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import orjson
import pyarrow.parquet as pq

from configs.errors import UsageError
from configs.load import to_yaml
from configs.pairs import PanelSettings
from configs.settings import Settings
from configs.training import MODELS
from pipelines.feedback.build import SIMULATED
from pipelines.feedback.ratings import DIMENSIONS
from pipelines.feedback.rules import length_ratio
from pipelines.manifest import Input, Manifest, fingerprints, writing

STAGE = "panel"
FILE = "ratings.jsonl"
SEVERITY = 0.4
"""Standard deviation of raters' severity, in points of the 1-5 scale."""
LAPSE = 0.01
"""Chance that an attentive rater misses an attention item."""
ATTENTION = "This text checks that you read along. Please give it a 1 in every dimension."

Row = dict[str, Any]


@dataclass(frozen=True)
class Rater:
    """One simulated rater."""

    rater_id: str
    severity: float
    noise: float
    careless: bool = False


@dataclass(frozen=True)
class Reply:
    """A reply of a thread with the truth about it, dimension by dimension."""

    comment_id: str
    text: str
    truth: tuple[float, ...]

    @property
    def mean(self) -> float:
        """Mean of the five dimensions."""
        return fmean(self.truth)


@dataclass(frozen=True)
class Item:
    """What raters are shown."""

    post: Mapping[str, str]
    draft: Reply | None
    a: Reply
    b: Reply
    is_attention: bool = False


def depends(settings: Settings) -> dict[str, Any]:
    """The settings that the ratings depend on."""
    panel = settings.feedback.panel
    return {"panel": None if panel is None else panel.model_dump(mode="json")}


def build(settings: Settings, inputs: Mapping[str, Input], output: Path) -> Manifest:
    """Write ``ratings.jsonl`` for replies in ``inputs["threads"]`` from ``inputs["truth"]`` (truth.parquet)."""
    panel = settings.feedback.panel
    if panel is None:
        raise UsageError("no panel is configured: set feedback.panel, or name rating files in feedback.ratings")
    with writing(
        output, stage=STAGE, settings=depends(settings), inputs=fingerprints(inputs), resolved=to_yaml(settings)
    ) as draft:
        threads = read_threads(Path(str(inputs["threads"])), Path(str(inputs["truth"])))
        raters, lines = seat(panel), 0
        with (draft.path / FILE).open("wb") as file:
            for model in MODELS:
                rng = random.Random(f"{panel.seed} {model}")
                items, fate = draw_items(rng, threads, panel, model)
                draft.count(f"{model}_threads", read=len(threads), kept=fate.pop("drawn", 0), dropped=fate)
                draft.figures[f"{model}_items"] = sum(not item.is_attention for item in items)
                draft.figures[f"{model}_attention_items"] = sum(item.is_attention for item in items)
                for row in rate_all(rng, items, raters, panel, model):
                    file.write(orjson.dumps(row) + b"\n")
                    lines += 1
        draft.count("ratings", read=lines, kept=lines)
        draft.notes.append(SIMULATED)
    assert draft.manifest is not None
    return draft.manifest


def read_threads(threads: Path, truth: Path) -> list[tuple[dict[str, str], list[Reply]]]:
    """Each post with those of its replies that have a truth, in order of the posts' ids."""
    table = pq.read_table(truth, columns=["comment_id", *DIMENSIONS]).to_pylist()
    known = {row["comment_id"]: tuple(row[d] for d in DIMENSIONS) for row in table if row["safety"] is not None}
    found = []
    for path in sorted(threads.glob("*.parquet")):
        for row in pq.read_table(path, columns=["post_id", "title", "text", "comments"]).to_pylist():
            replies = [
                Reply(comment["comment_id"], comment["text"], known[comment["comment_id"]])
                for comment in row["comments"]
                if comment["comment_id"] in known
            ]
            found.append(({name: row[name] for name in ("post_id", "title", "text")}, replies))
    return sorted(found, key=lambda thread: thread[0]["post_id"])


def draw_items(
    rng: random.Random, threads: Sequence[tuple[dict[str, str], list[Reply]]], panel: PanelSettings, model: str
) -> tuple[list[Item], Counter[str]]:
    """The panel's items over posts of all splits, and the fate of every thread."""
    needed = 3 if model == "im" else 2
    eligible = [thread for thread in threads if len(thread[1]) >= needed]
    rng.shuffle(eligible)
    items: list[Item] = []
    seen: set[frozenset[str]] = set()
    # A few rounds over the posts, where more items are asked than there are posts.
    for _ in range(4):
        for post, replies in eligible[: max(0, panel.items - len(items))]:
            item = draw_item(rng, post, replies, panel, model)
            if (key := frozenset((item.a.comment_id, item.b.comment_id))) not in seen:
                seen.add(key)
                items.append(item)
    drawn = len({item.post["post_id"] for item in items})
    for item in rng.sample(items, round(panel.attention_share * len(items))):
        items.append(attention_item(item))
    fate = Counter(drawn=drawn, too_few_replies=len(threads) - len(eligible), not_drawn=len(eligible) - drawn)
    return items, fate


def draw_item(
    rng: random.Random, post: Mapping[str, str], replies: Sequence[Reply], panel: PanelSettings, model: str
) -> Item:
    """Two responses in random order, and for IM a third, weaker reply as the draft."""
    ranked = sorted(replies, key=lambda reply: reply.mean)
    draft = ranked.pop(rng.randrange(max(1, len(ranked) // 3))) if model == "im" else None
    pair = rng.sample(ranked, 2)
    if rng.random() >= panel.close_share:
        third = max(1, len(ranked) // 3)
        weak, strong = ranked[:third], ranked[-third:]
        alike = [[s, w] for s in strong for w in weak if length_ratio(s.text, w.text) <= 1.8]
        pair = rng.choice(alike) if alike else pair
    rng.shuffle(pair)
    return Item(post, draft, pair[0], pair[1])


def attention_item(item: Item) -> Item:
    """``item`` with a response that asks for a 1 in every dimension in place of b."""
    return Item(item.post, item.draft, item.a, Reply("attention:1", ATTENTION, (1.0,) * len(DIMENSIONS)), True)


def seat(panel: PanelSettings) -> list[Rater]:
    """The panel, its careless raters last."""
    rng = random.Random(f"{panel.seed} raters")
    raters = [
        Rater(f"rater-{i:03}", rng.gauss(0, SEVERITY), panel.noise * rng.uniform(0.7, 1.3))
        for i in range(1, panel.raters + 1)
    ]
    return raters + [Rater(f"rater-{panel.raters + i:03}", 0.0, 0.0, True) for i in range(1, panel.careless + 1)]


def rate_all(
    rng: random.Random, items: Sequence[Item], raters: Sequence[Rater], panel: PanelSettings, model: str
) -> Iterator[Row]:
    """A row an item and rater; careless raters come on top of the attentive ones of an item."""
    attentive = [rater for rater in raters if not rater.careless]
    for number, item in enumerate(items, start=1):
        chosen = rng.sample(attentive, min(panel.raters_per_item, len(attentive)))
        chosen += [rater for rater in raters if rater.careless and rng.random() < panel.raters_per_item / panel.raters]
        for rater in chosen:
            yield {
                "item_id": f"{model}-{number:05}",
                "model": model,
                "post_id": item.post["post_id"],
                "post": {"title": item.post["title"], "text": item.post["text"]},
                "draft": None if item.draft is None else item.draft.text,
                "response_a": {"id": item.a.comment_id, "text": item.a.text},
                "response_b": {"id": item.b.comment_id, "text": item.b.text},
                "rater_id": rater.rater_id,
                "ratings_a": rate(rng, rater, item.a),
                "ratings_b": rate(rng, rater, item.b),
                "is_attention": item.is_attention,
                "source": "simulated",
            }


def rate(rng: random.Random, rater: Rater, reply: Reply) -> dict[str, int]:
    """One rater's five ratings of one reply."""
    if rater.careless:
        return {dimension: rng.randint(1, 5) for dimension in DIMENSIONS}
    if reply.text == ATTENTION and rng.random() >= LAPSE:
        return dict.fromkeys(DIMENSIONS, 1)
    # A liking of the reply as a whole colours all five ratings, as it does with people.
    liking = rater.severity + rng.gauss(0, rater.noise)
    seen = (value + liking + rng.gauss(0, rater.noise) for value in reply.truth)
    return {dimension: min(5, max(1, round(value))) for dimension, value in zip(DIMENSIONS, seen, strict=True)}
