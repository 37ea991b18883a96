"""Bookkeeping that travels with the data: what became of the rows a task saw.

Counters outside the data (an actor, a file) count twice what Ray runs twice. Notes are
rows of a task's own output, so they exist exactly once, like the rows they tell about.
"""

from collections import Counter, defaultdict
from dataclasses import dataclass, field

import pyarrow as pa
import ray.data

from pipelines.corpus.schema import NOTE
from pipelines.grouping import grouped
from pipelines.manifest import Draft

Account = defaultdict[str, Counter[str | None]]
"""Counts by kind and name; for a kind of row, by how it ended (None: kept)."""


@dataclass
class Notes:
    """Notes of one task, added up."""

    entries: Counter[tuple[str, str | None]] = field(default_factory=Counter)

    def add(self, kind: str, name: str | None, count: int = 1) -> None:
        """``count`` rows of ``kind`` ended as ``name`` (None: kept), or count towards a figure of that name."""
        if count:
            self.entries[kind, name] += count

    def add_gone(self, rows: pa.Table) -> None:
        """Each row of a table of ROW as ended by its reason."""
        counts = grouped(rows, ["kind", "dropped"]).aggregate([("count", "sum")])
        for row in counts.to_pylist():
            self.add(row["kind"], row["dropped"], row["count_sum"])

    def table(self) -> pa.Table:
        """The notes as a table of NOTE."""
        rows = [(kind, name, count) for (kind, name), count in self.entries.items()]
        columns = list(zip(*rows, strict=True)) or [(), (), ()]
        return pa.table([pa.array(c, f.type) for c, f in zip(columns, NOTE, strict=True)], schema=NOTE)


def collect(notes: "ray.data.Dataset") -> Account:
    """Run the dataset, whose rows are notes, and add them up."""
    account: Account = defaultdict(Counter)
    for batch in notes.iter_batches(batch_size=None, batch_format="pyarrow"):
        for kind, name, count in zip(*(batch[column].to_pylist() for column in NOTE.names), strict=True):
            account[kind][name] += count
    return account


def record_rows(draft: Draft, name: str, ends: Counter[str | None]) -> None:
    """Every row of one kind, kept or dropped, into the manifest."""
    draft.count(
        name, read=ends.total(), kept=ends[None], dropped={str(end): n for end, n in ends.items() if end is not None}
    )
