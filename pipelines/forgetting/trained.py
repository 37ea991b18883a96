"""Which weights removed rows went into: through tokenised rows, threads, or another model's weights."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipelines.forgetting.files import rewrite_rows
from pipelines.forgetting.lineage import Output
from pipelines.forgetting.rewriting import Lost, Part

MARK = "trained_on_forgotten"
"""Figure in the manifest of weights that removed rows went into."""
STAGES = frozenset({"base", "train", "merge"})
SPLITS = ("train", "validation")
"""Splits that are tokenised; weights depend on the first alone, the second is only measured on."""
TOKEN_IDS = (("post_id", "comment_id"), ("post_id", "chosen_id", "rejected_id"))
"""What names a tokenised row of SFT, and one of DPO."""
NOTE = "Trained on rows that were forgotten since: stop serving it, and train again with `llumi run`."


@dataclass
class Taint:
    """Why weights are affected."""

    rows: int = 0
    """Removed rows among its own training rows."""
    through: list[str] = field(default_factory=list)
    """Models it stands on that are affected."""
    untold: bool = False
    """Whether its training rows are gone, so that it cannot be told."""

    def reason(self) -> str:
        """In words."""
        parts = [f"{self.rows} removed rows among those it was trained on"] if self.rows else []
        parts += [f"it stands on {name}" for name in self.through]
        if self.untold:
            parts.append("what it was trained on is not there any more, so it counts as affected")
        return "; ".join(parts) or "removed rows went into it before"


def key_of_row(names: Iterable[str]) -> tuple[str, ...] | None:
    """The columns by which a table with these names and the rows it was made of find each other."""
    return next((columns for columns in TOKEN_IDS if set(columns) <= set(names)), None)


def is_made_of(table: pa.Table, removed: pa.Table) -> np.ndarray:
    """For each tokenised row whether it was made of a removed one.

    Drafts and examples stand in no column of tokens, so of several rows of one reply all count.
    """
    columns = key_of_row(table.schema.names)
    if columns is None or not set(columns) <= set(removed.schema.names):
        return np.ones(table.num_rows, bool)
    found = pc.is_in(joined(table, columns), value_set=joined(removed, columns))
    return found.to_numpy(zero_copy_only=False).astype(bool)


def held(folder: Path, lost: Mapping[Part, pa.Table], model: str) -> Counter[str]:
    """Tokenised rows made of removed ones, by split."""
    found: Counter[str] = Counter()
    for split in SPLITS:
        removed = lost.get((model, split))
        for path in sorted((folder / split).glob("*.parquet")) if removed else ():
            columns = key_of_row(pq.read_schema(path).names)
            rows = pq.read_table(path, columns=list(columns) if columns else None, partitioning=None)
            found[split] += int(is_made_of(rows, removed).sum())
    return found


def take_held(folder: Path, split: str, removed: pa.Table) -> Lost:
    """Take the rows made of removed ones out of one split of tokens, or of what stands beside them."""
    lost = Lost()
    for path in sorted((folder / split).glob("*.parquet")):
        lost.rows[split] += rewrite_rows(path, lambda table: is_made_of(table, removed)).num_rows
    return lost


def joined(table: pa.Table, columns: tuple[str, ...]) -> pa.Array:
    """The columns as one text a row."""
    texts = [pc.fill_null(table[name], "") for name in columns]
    found = pc.binary_join_element_wise(*texts, "|")
    return found.combine_chunks() if isinstance(found, pa.ChunkedArray) else found


def tainted(
    output: Output, lost: Mapping[Path, Lost], held: Mapping[Path, int], known: Mapping[Path, Taint]
) -> Taint | None:
    """Why these weights are affected, None where no removed row went into them.

    ``lost`` is what data outputs lost, ``held`` how many removed rows tokenised rows held,
    ``known`` the affected weights so far.
    """
    taint = Taint()
    for name, source in output.sources.items():
        if source.path in known:
            taint.through.append(source.made.stage)
        if name == "tokens":
            taint.rows += held.get(source.path, 0)
        if name == "threads" and source.path in lost:
            taint.rows += lost[source.path].splits["train"]
    reads = "threads" if output.stage == "base" else "tokens"
    taint.untold = reads in output.made.inputs and reads not in output.sources
    already = MARK in output.made.figures
    return taint if taint.rows or taint.through or taint.untold or already else None
