"""Which weights removed rows went into: through tokenised rows, threads, or another model's weights."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipelines.forgetting.lineage import Output
from pipelines.forgetting.rewriting import Lost

MARK = "trained_on_forgotten"
"""Figure in the manifest of weights that removed rows went into."""
STAGES = frozenset({"base", "train", "merge"})
LEARNED = ("train", "validation")
"""Splits that training reads."""
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


def tokens_held(folder: Path, lost: Mapping[tuple[str, str], pa.Table], model: str) -> int:
    """Tokenised rows made of rows that were lost. Drafts and examples stand in no column of theirs, so that of several
    rows of the same reply all count."""
    held = 0
    for split in LEARNED:
        removed = lost.get((model, split))
        if removed is None:
            continue
        for path in sorted((folder / split).glob("*.parquet")):
            names = set(pq.read_schema(path).names)
            columns = next((columns for columns in TOKEN_IDS if names >= set(columns)), None)
            if columns is None or not set(columns) <= set(removed.schema.names):
                return max(1, held)
            rows = pq.read_table(path, columns=list(columns), partitioning=None)
            held += pc.sum(pc.is_in(joined(rows, columns), value_set=joined(removed, columns))).as_py() or 0
    return held


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
            taint.rows += sum(lost[source.path].splits[split] for split in LEARNED)
    reads = "threads" if output.stage == "base" else "tokens"
    taint.untold = reads in output.made.inputs and reads not in output.sources
    already = MARK in output.made.figures
    return taint if taint.rows or taint.through or taint.untold or already else None
