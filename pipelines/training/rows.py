"""Tokenised rows as the trainers read them: memory-mapped, never held in memory.

``datasets`` turns the Parquet files into one Arrow file on the node's own disk, which all
workers of the node map. For sets larger than that disk, rows would have to be streamed; this
is not done here, since a mapped file is what makes an exact restart simple.
"""

import tempfile
from pathlib import Path

import pyarrow.parquet as pq
from datasets import Dataset
from datasets.utils.logging import disable_progress_bar

from pipelines.training.plan import Plan


def cache_folder(plan: Plan) -> Path:
    """Folder of the node's Arrow files of this run; found again by a worker that was started again."""
    return Path(tempfile.gettempdir()) / f"llumi-rows-{plan.name}"


def open_rows(plan: Plan) -> dict[str, Dataset]:
    """The splits that have rows."""
    disable_progress_bar()
    splits = {}
    for folder in sorted(Path(plan.tokens).iterdir()):
        files = sorted(folder.glob("*.parquet")) if folder.is_dir() else []
        if sum(pq.read_metadata(file).num_rows for file in files):
            names = [str(file) for file in files]
            cache = cache_folder(plan) / folder.name
            splits[folder.name] = Dataset.from_parquet(names, cache_dir=str(cache), keep_in_memory=False)
    return splits
