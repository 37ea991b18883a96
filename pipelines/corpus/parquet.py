"""Dumps as Parquet: the needed columns, batch by batch, as records of the same form as parsed lines.

Row groups are decoded alone, so long files are read by several tasks.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from configs.errors import DataError
from pipelines.corpus import sources
from pipelines.corpus.columns import READ

BATCH = 4096
"""Rows decoded at once."""
FIELDS = {name for names in READ.values() for name in names}


@dataclass(frozen=True)
class Batch:
    """Rows of a file: of the wanted communities, and how many others."""

    rows: list[tuple[int, dict[str, Any]]]
    """Number in the file, from 1, and fields."""
    others: int
    last: int
    """Number of the batch's last row within the piece."""
    size: int
    """Bytes of the rows."""


def batches(location: str, subreddits: frozenset[str], start: int = 0, stop: int | None = None) -> Iterator[Batch]:
    """The rows of the row groups ``[start, stop)``; raises DataError naming a file that cannot be read."""
    with sources.open_random(location) as raw:
        try:
            file = pq.ParquetFile(raw, buffer_size=1 << 20)
            groups = range(start, file.num_row_groups if stop is None else stop)
            before = sum(file.metadata.row_group(group).num_rows for group in range(start))
            columns = [name for name in file.schema_arrow.names if name in FIELDS]
            read = 0
            for batch in file.iter_batches(BATCH, row_groups=list(groups), columns=columns, use_threads=False):
                yield _batch(batch, subreddits, before + read + 1, read + batch.num_rows)
                read += batch.num_rows
        except (pa.ArrowException, OSError) as error:
            raise DataError(
                f"{location}: is no Parquet file or damaged ({type(error).__name__}); fetch it again"
            ) from None


def pieces(location: str, piece: int) -> list[tuple[int, int | None]]:
    """Ranges of row groups of about ``piece`` stored bytes each."""
    with sources.open_random(location) as raw:
        try:
            metadata = pq.ParquetFile(raw).metadata
        except (pa.ArrowException, OSError) as error:
            raise DataError(
                f"{location}: is no Parquet file or damaged ({type(error).__name__}); fetch it again"
            ) from None
    if not metadata.num_row_groups:
        return [(0, None)]
    begins = [0]
    held = 0
    for number in range(metadata.num_row_groups):
        group = metadata.row_group(number)
        if held >= piece:
            begins.append(number)
            held = 0
        held += sum(group.column(column).total_compressed_size for column in range(group.num_columns))
    return list(zip(begins, [*begins[1:], None], strict=True))


def _batch(batch: pa.RecordBatch, subreddits: frozenset[str], first: int, last: int) -> Batch:
    numbers = np.arange(first, first + batch.num_rows)
    others = 0
    if subreddits and "subreddit" in batch.schema.names:
        names = pc.utf8_lower(batch["subreddit"].cast(pa.string()))
        kept = pc.or_(pc.is_null(names), pc.is_in(names, pa.array(sorted(subreddits))))
        others = batch.num_rows - pc.sum(kept).as_py() if batch.num_rows else 0
        batch, numbers = batch.filter(kept), numbers[kept.to_numpy(False)]
    columns = [_seconds(column) if pa.types.is_timestamp(column.type) else column for column in batch.columns]
    rows = pa.RecordBatch.from_arrays(columns, names=batch.schema.names).to_pylist() if columns else []
    return Batch(list(zip(numbers.tolist(), rows, strict=True)), others, last, batch.nbytes)


def _seconds(column: pa.Array) -> pa.Array:
    """Timestamps of any unit as seconds since 1970."""
    return column.cast(pa.timestamp("s", column.type.tz), safe=False).cast(pa.int64())
