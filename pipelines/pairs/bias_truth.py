"""Do the pairs of each rule agree with the truth? Only the built-in sample knows it.

Every rule is asked at its own yield, and, since a rule that offers a handful of extreme
pairs is easily right about them, the rule in use also at the other rule's yield: its
clearest pairs, as many as the other has. Intervals resample whole posts.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from configs.pairs import PairSettings, RuleName
from pipelines.evaluation.statistics import Resampling, difference_verdict, share, share_difference
from pipelines.pairs.exposure_model import Exposure
from pipelines.pairs.replies import Bools, Floats, Replies
from pipelines.pairs.rules import rules
from pipelines.pairs.select import select_all

Hits = list[tuple[str, bool]]
"""Post and whether the chosen reply is truly the better one, a pair each."""


@dataclass(frozen=True)
class Judged:
    """The pairs of a rule whose truth is known."""

    posts: list[str]
    hits: Bools
    clarity: Floats
    """Second part of the rule's clarity; the first is left out, so that one order holds over all posts."""

    def all(self) -> Hits:
        """Every pair."""
        return list(zip(self.posts, self.hits.tolist(), strict=True))

    def clearest(self, most: int) -> Hits:
        """The ``most`` clearest pairs."""
        order = np.argsort(-self.clarity, kind="stable")[:most]
        return [(self.posts[i], bool(self.hits[i])) for i in order.tolist()]


def judged(
    threads: pa.Table, settings: PairSettings, exposure: Exposure | None, truth: Mapping[str, float]
) -> dict[RuleName, Judged]:
    """The pairs of every rule on a table of THREAD, judged by the true quality by comment_id."""
    replies = Replies.of(threads, exposure)
    known = rules(settings, exposure)
    ids = pc.struct_field(pc.list_flatten(threads["comments"].combine_chunks()), "comment_id")
    quality = np.array([truth.get(name, np.nan) for name in ids.to_pylist()], dtype=float)
    names = np.array(threads["post_id"].to_pylist(), dtype=object)
    found: dict[RuleName, Judged] = {}
    for name, selection in select_all(replies, known, settings).items():
        chosen, rejected = selection.chosen, selection.rejected
        there = ~np.isnan(quality[chosen] + quality[rejected])
        chosen, rejected = chosen[there], rejected[there]
        found[name] = Judged(
            names[selection.pairs.posts[there]].tolist(),
            quality[chosen] > quality[rejected],
            known[name].clarity(replies, chosen, rejected)[1],
        )
    return found


def agreement(found: Mapping[RuleName, Judged], default: RuleName, how: Resampling) -> dict[str, dict[str, Any]]:
    """By rule: the share that agrees, and the default's difference to it, at its own and at that rule's yield.

    ``minus`` is the default's share less the rule's; ``clearest`` the share among the default's
    clearest pairs, as many as the rule has, where it has fewer; ``clearest_minus`` its difference.
    """
    ours = found.get(default)
    rows: dict[str, dict[str, Any]] = {}
    for name, pairs in found.items():
        hits = pairs.all()
        row: dict[str, Any] = estimate(hits, how)
        if ours is not None and name != default:
            row["minus"] = change(ours.all(), hits, how)
            if 0 < len(hits) < len(ours.hits):
                best = ours.clearest(len(hits))
                row["clearest"] = estimate(best, how)
                row["clearest_minus"] = change(best, hits, how)
        rows[name] = row
    return rows


def estimate(hits: Sequence[tuple[str, bool]], how: Resampling) -> dict[str, Any]:
    """A share with its interval, to four digits."""
    return short(share([hit for _, hit in hits], [post for post, _ in hits], how).as_dict())


def change(first: Hits, second: Hits, how: Resampling) -> dict[str, Any]:
    """The difference of two shares over the same posts, with its interval and a verdict."""
    found = share_difference(first, second, how)
    return short(found.as_dict()) | {"verdict": difference_verdict(found)}


def short(row: Mapping[str, Any]) -> dict[str, Any]:
    """What the report shows of an estimate."""
    kept = {name: row[name] for name in ("n", "posts", "mean", "low", "high")}
    return {name: round(value, 4) if isinstance(value, float) else value for name, value in kept.items()}
