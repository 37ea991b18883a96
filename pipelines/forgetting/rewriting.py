"""The data outputs without what is forgotten: their files in a staged copy, and the counts of their manifests."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from configs.training import MODELS
from pipelines.forgetting.files import (
    clean_quarantine,
    lines_made_of,
    ratings_of,
    rewrite_lines,
    rewrite_rows,
    rows_made_of,
)
from pipelines.forgetting.kept import REASON
from pipelines.forgetting.match import counted, from_threads
from pipelines.forgetting.scope import Scope
from pipelines.grouping import grouped
from pipelines.manifest import Manifest, RowCount

SOURCES = {"community": "candidates", "teacher": "drafts"}
"""Folders of revisions, and the rows that the manifest counts for them."""
Part = tuple[str, str]
"""Model and split of a folder of rows; empty words where the output is not laid out by them."""


@dataclass
class Lost:
    """What one output lost."""

    rows: Counter[str] = field(default_factory=Counter)
    """Rows by kind, as the manifest names it."""
    splits: Counter[str] = field(default_factory=Counter)
    """Rows by split."""
    ids: dict[Part, pa.Table] = field(default_factory=dict)
    """The ids of the lost rows."""
    left: Counter[Part] = field(default_factory=Counter)
    """Rows that are left."""

    def __bool__(self) -> bool:
        return any(self.rows.values())


def take_from_threads(folder: Path, scope: Scope) -> Lost:
    """Threads and quarantine."""
    lost = Lost()
    for path in (folder / name for name in sorted(scope.files)):
        table = pq.read_table(path, partitioning=None)
        found = from_threads(table, scope.gone)
        lost.rows += Counter(posts=found.posts, comments=found.comments)
        before, after = by_split(table), by_split(found.kept)
        lost.splits += before - after
        path.unlink()  # a hard link to the file that still stands
        pq.write_table(found.kept, path, compression="zstd")
    lost.rows["quarantined_lines"] = clean_quarantine(folder / "quarantine", scope.gone)
    return lost


def by_split(threads: pa.Table) -> Counter[str]:
    """Posts and comments together, by split."""
    sizes = pc.add(pc.list_value_length(threads["comments"]), 1)
    found = grouped(pa.table({"split": threads["split"], "n": sizes}), "split").aggregate([("n", "sum")])
    return Counter(dict(zip(found["split"].to_pylist(), found["n_sum"].to_pylist(), strict=True)))


def take_from_rows(folder: Path, scope: Scope, *, shown_to_raters: bool = False) -> Lost:
    """Every file of rows and of JSON lines in the folder, by the ids in them; what raters saw also by its words."""
    goes = rows_made_of(scope.gone, scope.words if shown_to_raters else frozenset())
    lost, removed = Lost(), defaultdict(list)
    for path in sorted(folder.rglob("*.parquet")):
        part = part_of(path.relative_to(folder))
        table = rewrite_rows(path, goes, by_words=shown_to_raters)
        lost.left[part] += pq.read_metadata(path).num_rows
        if table.num_rows:
            removed[part].append(table)
            lost.rows[part[0] or "rows"] += table.num_rows
            lost.splits += counted(table["split"]) if "split" in table.schema.names else Counter()
    for path in sorted(folder.rglob("*.jsonl")):
        lost.rows["lines"] += rewrite_lines(path, lines_made_of(scope.gone))[1]
    lost.ids = {part: pa.concat_tables(tables) for part, tables in removed.items()}
    lost.rows["threads"] = posts_without_rows(folder, lost.ids.values())
    return lost


def part_of(path: Path) -> Part:
    """Model and split of a file, ``gm/train/part-1.parquet``; of ``community/part-1.parquet`` the first name."""
    if len(path.parts) == 3 and path.parts[0] in MODELS:
        return path.parts[0], path.parts[1]
    return (path.parts[0] if len(path.parts) > 1 else "", "")


def posts_without_rows(folder: Path, removed: Iterable[pa.Table]) -> int:
    """Posts that had a row and have none any more."""
    columns = [table["post_id"] for table in removed if "post_id" in table.schema.names]
    lost = set().union(*(pc.unique(column).to_pylist() for column in columns)) if columns else set()
    for path in sorted(folder.rglob("*.parquet")) if lost else ():
        if "post_id" in pq.read_schema(path).names:
            lost -= set(pc.unique(pq.read_table(path, columns=["post_id"], partitioning=None)["post_id"]).to_pylist())
    return len(lost)


def take_from_index(folder: Path, scope: Scope) -> Lost:
    """The index of similar posts, and the examples of every prompt."""
    from pipelines.retrieval.remove import remove

    if not scope.post_ids and not scope.comment_ids:
        return Lost()
    before = index_sizes(folder)
    remove(folder, scope.post_ids, scope.comment_ids, scope.gone.authors)
    return Lost(rows=before - index_sizes(folder))


def index_sizes(folder: Path) -> Counter[str]:
    """Posts and replies in the index, examples of prompts."""
    from pipelines.retrieval import store
    from pipelines.retrieval.examples import FOLDER
    from pipelines.retrieval.lookup import INDEX
    from pipelines.retrieval.schema import ENTRIES

    found: Counter[str] = Counter()
    for batch in store.batches(store.connect(folder / INDEX).open_table(ENTRIES), ["replies"]):
        found += Counter(entries=batch.num_rows, replies=pc.sum(pc.list_value_length(batch["replies"])).as_py() or 0)
    for path in sorted((folder / FOLDER).glob("*.parquet")):
        sizes = pc.list_value_length(pq.read_table(path, columns=["examples"], partitioning=None)["examples"])
        found += Counter(prompts=len(sizes), examples=pc.sum(sizes).as_py() or 0)
    return found


def take_from_ratings(folder: Path, scope: Scope) -> Lost:
    """The rating files in the folder."""
    lost = Lost()
    for path in sorted(folder.rglob("*.jsonl")):
        lost.rows["ratings"] += rewrite_lines(path, ratings_of(scope.gone))[1]
    return lost


def counted_as(kind: str, rows: Mapping[str, RowCount]) -> str | None:
    """How a manifest names rows of a kind: by its own name, its model's (``gm_items``), or its source's."""
    return next((name for name in (kind, f"{kind}_items", SOURCES.get(kind, kind)) if name in rows), None)


def recounted(rows: Mapping[str, RowCount], lost: Lost) -> dict[str, RowCount]:
    """Row counts with the lost rows moved from kept to dropped."""
    found = dict(rows)
    for kind, n in lost.rows.items():
        name = counted_as(kind, found)
        if name is None or not n:
            continue
        before = found[name]
        moved = min(n, before.kept)
        dropped = before.dropped | {REASON: before.dropped.get(REASON, 0) + moved}
        found[name] = RowCount(read=before.read, kept=before.kept - moved, dropped=dict(sorted(dropped.items())))
    return found


def refigured(made: Manifest, folder: Path, lost: Lost) -> dict[str, Any]:
    """The figures that only count rows, counted again; all others stay those of the build."""
    figures = dict(made.figures)
    if made.stage == "corpus":
        return figures | thread_figures(folder, figures)
    for (model, split), left in lost.left.items():
        name = f"{model}_pairs" if f"{model}_pairs" in figures else model
        before = figures[name].get(split) if isinstance(figures.get(name), Mapping) else None
        if isinstance(before, int):
            figures[name] = figures[name] | {split: left}
        elif isinstance(before, Mapping) and "pairs" in before:
            figures[name] = figures[name] | {split: {**before, "pairs": left}}
    return figures


def thread_figures(folder: Path, figures: Mapping[str, Any]) -> dict[str, Any]:
    """Posts and comments by community and split, and how many posts have a comment."""
    columns: dict[str, dict[str, dict[str, int]]] = {"subreddit": {}, "split": {}}
    commented = 0
    for path in sorted(folder.glob("*.parquet")):
        table = pq.read_table(path, columns=["subreddit", "split", "comments"], partitioning=None)
        sizes = pc.list_value_length(table["comments"])
        commented += int(np.count_nonzero(sizes.to_numpy(zero_copy_only=False)))
        for column, known in columns.items():
            rows = grouped(pa.table({"name": table[column], "n": sizes}), "name")
            for row in rows.aggregate([("n", "count"), ("n", "sum")]).to_pylist():
                so_far = known.setdefault(str(row["name"]), {"posts": 0, "comments": 0})
                so_far["posts"] += row["n_count"]
                so_far["comments"] += row["n_sum"]
    found = {"subreddits": columns["subreddit"], "splits": columns["split"], "posts_with_comments": commented}
    return {name: value for name, value in found.items() if name in figures}
