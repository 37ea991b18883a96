"""Dumps as a Ray Data source: a read task for each file or piece of one.

Files of many .zst frames and Parquet files of many row groups are cut into pieces of about
``piece`` stored bytes; one frame, or a file of another compression, is one task's work, so
parallelism then comes from the number of files.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

from ray.data import Datasource, ReadTask
from ray.data.block import BlockMetadata

from configs.errors import DataError
from pipelines.corpus import frames, parquet, sources
from pipelines.corpus.decoding import ZSTD, suffix
from pipelines.corpus.reader import Dump, ReadOptions, read_dump
from pipelines.corpus.schema import RECORD


class DumpDatasource(Datasource):
    """Dump files of both kinds as tables of RECORD."""

    def __init__(self, dumps: Sequence[Dump], options: ReadOptions, piece: int):
        """Cuts the dumps into pieces of about ``piece`` stored bytes; raises DataError for an empty file."""
        super().__init__()
        self.options = options
        self.pieces = [part for dump in dumps for part in cut(dump, piece)]
        """One a read task."""

    def estimate_inmemory_data_size(self) -> int | None:
        return None

    def get_read_tasks(
        self, parallelism: int, per_task_row_limit: int | None = None, data_context: Any = None
    ) -> list[ReadTask]:
        return [
            ReadTask(
                partial(read_dump, part, self.options),
                BlockMetadata(num_rows=None, size_bytes=None, exec_stats=None, input_files=(part.location,)),
                schema=RECORD,
                per_task_row_limit=per_task_row_limit,
            )
            for part in self.pieces
        ]


def cut(dump: Dump, piece: int) -> list[Dump]:
    """The pieces of a dump, which hold each of its lines once; raises DataError for a file of no bytes."""
    if not sources.size(dump.location):
        raise DataError(f"{dump.location}: is empty (0 bytes); fetch it again or leave it out")
    extension = suffix(dump.location)
    if extension in ZSTD:
        ranges = frames.pieces(dump.location, piece)
    elif extension == ".parquet":
        ranges = parquet.pieces(dump.location, piece)
    else:
        ranges = [(0, None)]
    return [Dump(dump.kind, dump.location, start, stop) for start, stop in ranges]
