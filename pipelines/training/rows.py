"""Tokenised rows as the trainers read them: memory-mapped, never held in memory.

``datasets`` turns the Parquet files into one Arrow file on the node's own disk, which all
workers of the node map. For sets larger than that disk, rows would have to be streamed; this
is not done here, since a mapped file is what makes an exact restart simple.
"""

import tempfile
from pathlib import Path

import pyarrow.parquet as pq
from datasets import Dataset, concatenate_datasets
from datasets.utils.logging import disable_progress_bar

from configs.errors import TrainingError
from pipelines.training.plan import Plan
from pipelines.training.tokens import PAIR_KEYS, REFERENCE_COLUMNS


def cache_folder(plan: Plan) -> Path:
    """Folder of the node's Arrow files of this run; found again by a worker that was started again."""
    return Path(tempfile.gettempdir()) / f"llumi-rows-{plan.name}"


def open_rows(plan: Plan) -> dict[str, Dataset]:
    """The splits that have rows; for DPO, each row with its reference's log-probabilities.

    Raises TrainingError where those are not there, or are those of other rows.
    """
    disable_progress_bar()
    splits = opened(Path(plan.tokens), cache_folder(plan) / "tokens")
    if plan.reference is None:
        return splits
    scored = opened(Path(plan.reference), cache_folder(plan) / "reference")
    return {name: beside(rows, scored.get(name), plan, name) for name, rows in splits.items()}


def opened(folder: Path, cache: Path) -> dict[str, Dataset]:
    """The non-empty splits in the folders below ``folder``."""
    splits = {}
    for split in sorted(folder.iterdir()):
        files = sorted(split.glob("*.parquet")) if split.is_dir() else []
        if sum(pq.read_metadata(file).num_rows for file in files):
            names = [str(file) for file in files]
            splits[split.name] = Dataset.from_parquet(names, cache_dir=str(cache / split.name), keep_in_memory=False)
    return splits


def beside(rows: Dataset, scored: Dataset | None, plan: Plan, split: str) -> Dataset:
    """``rows`` with the columns of their log-probabilities, once it is sure that they are of these very rows."""
    if scored is None or any(not rows.data.column(key).equals(scored.data.column(key)) for key in PAIR_KEYS):
        raise TrainingError(
            f"the reference's log-probabilities of {split} are not those of the rows in {plan.tokens}: "
            "make them again with --force on this stage's reference"
        )
    return concatenate_datasets([rows, scored.select_columns(list(REFERENCE_COLUMNS))], axis=1)
