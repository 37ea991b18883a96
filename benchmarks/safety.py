"""What the safety rules see: of labelled invented sentences, and of real posts and comments. Counts only, no text.

Real posts have no label: what is flagged among them is no error rate, it is what a service that
stands before such a community has to expect.
"""

import os
import time
from collections import Counter
from pathlib import Path

import orjson

from benchmarks.texts import lines_of
from configs.prompts import whole_post
from configs.safety import SafetySettings
from serving.safety.guard import Guard
from serving.safety.risk import LEVELS
from serving.safety.triage import Triage
from tests.serving.safety.labelled import SETS, seen, unseen

MOST = 5000
"""Posts and comments taken of one dump."""


def run() -> dict[str, object]:
    """Shares of labels seen, of real posts flagged, of real comments that break a rule; CPU ms a text."""
    triage, guard = Triage.of(SafetySettings()), Guard.of(SafetySettings())
    data = Path(os.environ.get("LLUMI_SHARED", "../shared")) / "data"
    return {
        "labelled, when it was unseen": unseen(),
        "labelled, now": {name: table(seen(triage, name)) for name in SETS},
        "real": {folder.name: real(folder, triage, guard) for folder in sorted(data.glob("*")) if folder.is_dir()},
    }


def table(counts: Counter[tuple[str, str]]) -> dict[str, dict[str, int]]:
    """By label: sentences at each level."""
    return {label: {level: counts[label, level] for level in LEVELS} for label in LEVELS}


def real(folder: Path, triage: Triage, guard: Guard) -> dict[str, object]:
    """One community's dumps."""
    posts = [whole_post(row.get("title") or "", row.get("selftext") or "") for row in rows(folder, "RS_*")]
    comments = [text for row in rows(folder, "RC_*") if len(text := row.get("body") or "") >= 60]
    started = time.process_time()
    levels = Counter(triage.look(post).level for post in posts)
    looked = time.process_time()
    broken = [guard.look(comment, post="A post.") for comment in comments]
    guarded = time.process_time()
    groups = Counter(group for rules in broken for group in {rule.split(".")[0] for rule in rules})
    return {
        "posts": len(posts),
        "level": {level: round(levels[level] / len(posts), 4) for level in LEVELS},
        "triage, CPU ms a post": round(1000 * (looked - started) / len(posts), 2),
        "comments": len(comments),
        "comments that break any rule": round(sum(map(bool, broken)) / len(comments), 4),
        "by group": {group: round(count / len(comments), 4) for group, count in groups.most_common()},
        "guard, CPU ms a comment": round(1000 * (guarded - looked) / len(comments), 2),
    }


def rows(folder: Path, names: str) -> list[dict[str, str]]:
    """The first rows of the dumps that hold more than a placeholder."""
    every = (orjson.loads(line) for file in sorted(folder.glob(names)) for line in lines_of(file))
    kept = (row for row in every if (row.get("selftext") or row.get("body")) not in ("[removed]", "[deleted]"))
    return [row for row, _ in zip(kept, range(MOST), strict=False)]
