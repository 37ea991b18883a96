"""Latent quality on the built-in sample: means a stage, and paired differences between stages.

The judge is the simulation's own scorer, which reads only wording. How well its order of
real (simulated) replies agrees with their true quality is measured beside it, because no
conclusion can be better than that.
"""

from typing import Any

import pyarrow as pa

from configs.prompts import whole_post
from configs.settings import Settings
from configs.training import STAGES
from pipelines.evaluation.drafts import grouped, quality
from pipelines.evaluation.statistics import Resampling, difference, difference_verdict, estimate, rank_correlation

Figures = dict[str, dict[str, Any]]


def measure(settings: Settings, drafts: pa.Table, threads: pa.Table, truth: dict[str, float]) -> Figures:
    """By model: each stage's mean, differences between stages, and for IM from the original.

    Under ``judge``: how the scorer agrees with the truth on the replies to test posts, and
    under ``replies`` their mean quality, both by the scorer.
    """
    how = Resampling.of(settings)
    figures: Figures = {}
    by_stage = grouped(drafts)
    for model in dict.fromkeys(model for model, _ in by_stage):
        stages: list[str] = [stage for stage in STAGES if (model, stage) in by_stage]
        rows = {stage: by_stage[model, stage] for stage in stages}
        posts = [row["post_id"] for row in rows[stages[0]]]
        values: dict[str, list[float]] = {stage: [row["quality"] for row in rows[stage]] for stage in stages}
        originals = [row["original_quality"] for row in rows[stages[0]]]
        if None not in originals:
            values = {"original": originals, **values}
        found: dict[str, Any] = {name: estimate(column, posts, how).as_dict() for name, column in values.items()}
        for before, after in contrasts(list(values)):
            change = difference(values[after], values[before], posts, how)
            found[f"{after}_minus_{before}"] = {**change.as_dict(), "verdict": difference_verdict(change)}
        figures[model] = found
    return {**figures, **judge(threads, truth, how)}


def contrasts(names: list[str]) -> list[tuple[str, str]]:
    """Which differences are shown, as (before, after)."""
    wanted = [("sft", "dpo1"), ("sft", "dpo2"), ("dpo1", "dpo2"), *(("original", stage) for stage in STAGES)]
    return [(before, after) for before, after in wanted if before in names and after in names]


def judge(threads: pa.Table, truth: dict[str, float], how: Resampling) -> Figures:
    """The scorer on replies whose quality is known."""
    posts, judged, known = [], [], []
    for thread in threads.to_pylist():
        post = whole_post(thread["title"], thread["text"])
        for reply in thread["comments"]:
            if reply["comment_id"] in truth:
                posts.append(thread["post_id"])
                judged.append(quality(reply["text"], post))
                known.append(truth[reply["comment_id"]])
    spearman = rank_correlation(judged, known)
    return {
        "judge": {"n": len(judged), "spearman": spearman},
        "replies": estimate(judged, posts, how).as_dict(),
    }
