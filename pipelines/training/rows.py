"""Tokenised rows as the trainers read them: memory-mapped, never held in memory.

``datasets`` turns the Parquet files into one Arrow file on the node's own disk, which all
workers of the node map. Of a training set that is streamed (``streaming.py``) only what is
small comes to the disk: ids, lengths and numbers, some fifty bytes a row.
"""

import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from datasets import Dataset, concatenate_datasets
from datasets.utils.logging import disable_progress_bar

from configs.errors import TrainingError
from pipelines.training.plan import Plan
from pipelines.training.tokens import PAIR_KEYS, REFERENCE_COLUMNS

ROW = "row"
"""Column of a row's position in its split, which leads back to its ids."""


def cache_folder(plan: Plan) -> Path:
    """Folder of the node's Arrow files of this run; found again by a worker that was started again."""
    return Path(tempfile.gettempdir()) / f"llumi-rows-{plan.name}"


def open_rows(plan: Plan) -> dict[str, Dataset]:
    """The splits that have rows, each row with its position; for DPO, with its reference's log-probabilities.

    A training split that is streamed comes without its token ids. Raises TrainingError where the
    log-probabilities are not there, or are those of other rows.
    """
    disable_progress_bar()
    streamed = "train" if plan.training.ingest == "stream" else None
    splits = opened(Path(plan.tokens), cache_folder(plan) / "tokens", streamed)
    if plan.reference is not None:
        scored = opened(Path(plan.reference), cache_folder(plan) / "reference")
        splits = {name: beside(rows, scored.get(name), plan, name) for name, rows in splits.items()}
    return {name: numbered(rows) for name, rows in splits.items()}


def opened(folder: Path, cache: Path, streamed: str | None = None) -> dict[str, Dataset]:
    """The non-empty splits in the folders below ``folder``; of the ``streamed`` one, columns that are no lists."""
    splits = {}
    for split in sorted(folder.iterdir()):
        files = sorted(split.glob("*.parquet")) if split.is_dir() else []
        if sum(pq.read_metadata(file).num_rows for file in files):
            names = [str(file) for file in files]
            columns = small_columns(files[0]) if split.name == streamed else None
            splits[split.name] = Dataset.from_parquet(
                names, cache_dir=str(cache / split.name), keep_in_memory=False, columns=columns
            )
    return splits


def small_columns(file: Path) -> list[str]:
    """The columns of a file that hold one value a row."""
    return [field.name for field in pq.read_schema(file) if not pa.types.is_list(field.type)]


def numbered(rows: Dataset) -> Dataset:
    """``rows`` with their positions in the column ``ROW``."""
    positions = Dataset(pa.table({ROW: np.arange(len(rows), dtype=np.int32)}))
    return concatenate_datasets([rows, positions], axis=1)


def beside(rows: Dataset, scored: Dataset | None, plan: Plan, split: str) -> Dataset:
    """``rows`` with the columns of their log-probabilities, once it is sure that they are of these very rows."""
    if scored is None or any(not rows.data.column(key).equals(scored.data.column(key)) for key in PAIR_KEYS):
        raise TrainingError(other_rows(plan, split))
    return concatenate_datasets([rows, scored.select_columns(list(REFERENCE_COLUMNS))], axis=1)


def other_rows(plan: Plan, split: str) -> str:
    """What to say of log-probabilities that are not those of the tokenised rows."""
    return (
        f"the reference's log-probabilities of {split} are not those of the rows in {plan.tokens}: "
        "make them again with --force on this stage's reference"
    )
