"""From threads to community revisions and to what the teacher is asked, a table of threads at a time.

Both start from the same candidates of the pair rule. All that is decided here is decided by
the threads, the settings and the floor; nothing is asked of anybody.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from configs.prompts import render, whole_post
from configs.settings import Settings
from pipelines.corpus.notes import Notes
from pipelines.pairs.exposure_model import Exposure
from pipelines.pairs.im import store
from pipelines.pairs.im.joining import NONE, Encode, Likeness, drafts, joined, worse
from pipelines.pairs.im.schema import COMMUNITY, REQUEST, REVISION, TEACHER
from pipelines.pairs.replies import Floats, Ints, Replies, drawn
from pipelines.pairs.rules import Rule
from pipelines.pairs.select import candidates
from pipelines.retrieval.examples import Retrieved

Retrieve = Callable[[pa.Table, Path], Sequence[Retrieved]]
"""The examples for each row of a table of THREAD that comes from a file."""
BIN = 0.01
"""Width of the bins in which similarities are counted."""


@dataclass(frozen=True)
class Plan:
    """What one table of threads gives."""

    revisions: pa.Table
    """Of the community, columns REVISION."""
    requests: pa.Table
    """To the teacher, columns REQUEST."""


class Planner:
    """Plans by one rule and one configuration; ``encode`` is None where only the requests are wanted."""

    def __init__(
        self,
        settings: Settings,
        rule: Rule,
        exposure: Exposure,
        floor: float,
        encode: Encode | None,
        retrieve: Retrieve,
    ):
        self.settings, self.rule, self.exposure, self.floor = settings, rule, exposure, floor
        self.encode, self.retrieve = encode, retrieve

    def plan(self, threads: pa.Table, file: Path, notes: Notes) -> Plan:
        """The plan of some threads of a file; every candidate and every draft is counted in ``notes``."""
        replies = Replies.of(threads, self.exposure)
        flat = pc.list_flatten(threads["comments"].combine_chunks())
        found = candidates(replies, self.rule, self.settings.pairs)
        alike = None
        if self.encode is not None:
            both = np.concatenate([found.chosen, found.rejected])
            alike = Likeness(pc.struct_field(flat, "text"), both, self.encode)
        work = _Work(self, threads, file, replies, flat, notes)
        sources = self.settings.improvement.sources
        revisions, requests = REVISION.empty_table(), REQUEST.empty_table()
        if COMMUNITY in sources and alike is not None:
            revisions = work.revisions(found, alike)
        if TEACHER in sources:
            requests = work.requests(found, alike)
        return Plan(revisions, requests)


@dataclass(frozen=True)
class _Work:
    """One table at work."""

    by: Planner
    threads: pa.Table
    file: Path
    replies: Replies
    flat: pa.StructArray
    """All comments, by position."""
    notes: Notes

    def revisions(self, found: Any, alike: Likeness) -> pa.Table:
        """The community's revisions of its own drafts."""
        similarity = alike.between(found.chosen, found.rejected)
        note_similarities(self.notes, similarity, COMMUNITY)
        kept = joined(found, similarity, self.replies, self.by.floor, self.by.settings.pairs)
        self.notes.add("candidates", None, len(kept.pairs))
        self.notes.add("candidates", "content_lost", kept.content_lost)
        self.notes.add("candidates", "over_cap", kept.over_cap)
        originals, better = kept.pairs.rejected, kept.pairs.chosen
        others = self.worse(better, originals, found, alike)
        self.note_pairs(kept.pairs.posts, better, originals, others)
        rows = {
            "source": pa.repeat(COMMUNITY, len(originals)),
            "original_id": self.ids(originals),
            "revision_id": self.ids(better),
            "worse_id": self.ids(others),
            "similarity": pa.array(kept.similarity, pa.float32()),
        }
        return self.table(kept.pairs.posts, rows, REVISION)

    def requests(self, found: Any, alike: Likeness | None) -> pa.Table:
        """What the teacher is asked: a revision of each draft that the rule ranks below another reply."""
        teacher = self.by.settings.improvement.teacher
        assert teacher is not None
        each, over = drafts(found, teacher.max_per_post)
        self.notes.add("drafts", "over_post_cap", over)
        originals = each.rejected
        others = self.worse(originals, originals, found, alike) if alike else np.full(len(originals), NONE)
        words = self.texts(originals)
        asked, shown = self.prompts(each.posts, words)
        rows = {
            "key": pa.array([store.key_of(prompt, teacher) for prompt in asked], pa.string()),
            "prompt": pa.array(asked, pa.string()),
            "original_id": self.ids(originals),
            "original": words,
            "worse_id": self.ids(others),
            "example_ids": pa.array(shown, pa.list_(pa.string())),
        }
        return self.table(each.posts, rows, REQUEST)

    def worse(self, better: Ints, originals: Ints, found: Any, alike: Likeness) -> Ints:
        """The reply that the preference pair rejects, NONE where it is to reject the draft."""
        others = worse(better, originals, found, alike, self.replies, self.by.rule, self.by.floor)
        keys = self.replies.keys
        # The rules draw by (chosen, rejected); the other way round is another draw.
        instead = drawn(keys[originals], keys[better]) < self.by.settings.improvement.worse_share
        return np.where(instead, others, NONE)

    def prompts(self, posts: Ints, words: pa.Array) -> tuple[list[str], list[list[str] | None]]:
        """The prompt for each draft, and the ids of the examples in it."""
        rows, which = np.unique(posts, return_inverse=True)
        threads = self.threads.take(pa.array(rows))
        retrieved = self.by.retrieve(threads, self.file)
        whole = [whole_post(t, x) for t, x in zip(*(threads[c].to_pylist() for c in ("title", "text")), strict=True)]
        template = self.by.settings.prompts.im
        asked = [
            render(template, whole[at], draft, retrieved[at].examples)
            for at, draft in zip(which, words.to_pylist(), strict=True)
        ]
        return asked, [retrieved[at].ids for at in which]

    def note_pairs(self, posts: Ints, better: Ints, originals: Ints, others: Ints) -> None:
        """Count, split by split, what the pairs are like."""
        replies, splits = self.replies, self.threads["split"].to_numpy()[posts]
        kinds = {
            "pairs": np.ones(len(posts), bool),
            "earlier": replies.times[better] < replies.times[originals],
            "longer": replies.lengths[better] > replies.lengths[originals],
            "rejected_is_original": others == NONE,
        }
        for split in np.unique(splits):
            for name, mask in kinds.items():
                self.notes.add(f"{COMMUNITY}:{split}", name, int(mask[splits == split].sum()))

    def ids(self, positions: Ints) -> pa.Array:
        """Ids of the comments, null for NONE."""
        return pc.struct_field(self.flat, "comment_id").take(pa.array(positions, mask=positions == NONE))

    def texts(self, positions: Ints) -> pa.Array:
        """Words of the comments."""
        return pc.struct_field(self.flat, "text").take(pa.array(positions))

    def table(self, posts: Ints, rows: Mapping[str, pa.Array], schema: pa.Schema) -> pa.Table:
        """The rows with their posts' columns, nulls where there is none."""
        place = pa.array(posts)
        columns = {name: self.threads[name].combine_chunks().take(place) for name in ("post_id", "split")} | dict(rows)
        return pa.table([columns.get(field.name, pa.nulls(len(posts), field.type)) for field in schema], schema=schema)


def note_similarities(notes: Notes, similarity: Floats, source: str) -> None:
    """Count the similarities of drafts to what may be their revisions in bins."""
    bins, counts = np.unique(np.floor(similarity / BIN + 1e-9).astype(np.int64), return_counts=True)
    for at, count in zip(bins.tolist(), counts.tolist(), strict=True):
        notes.add(f"similarity:{source}", str(at), count)


def binned_quantiles(counts: Mapping[str | None, int], wanted: Sequence[float]) -> dict[str, float]:
    """Quantiles of binned similarities, each the lower end of its bin."""
    if not counts:
        return {}
    bins = sorted((int(str(at)), count) for at, count in counts.items())
    through = np.cumsum([count for _, count in bins])
    places = np.searchsorted(through, np.array(wanted) * through[-1])
    return {f"{q:g}": round(bins[at][0] * BIN, 2) for q, at in zip(wanted, places.tolist(), strict=True)}
