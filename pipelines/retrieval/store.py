"""The index on disk: two LanceDB tables in one folder, written by one process, read by any.

Why LanceDB: rows, replies and vectors lie in one place on disk, are looked up by key, and an
approximate index needs no memory for the vectors. Measured on 200,000 vectors of 384: its
IVF index is built in 3 CPU seconds and answers in 3 ms; faiss' HNSW answers quicker
(0.2 ms) from memory alone, after a build of 70 s. LanceDB's own exact search takes over ten
times as long as one matrix product (benchmarks/retrieval.py), so ``search`` does that itself.
Tables are rewritten whole where something is removed: a deleted row stays in LanceDB's files
until its part of the table happens to be compacted.
"""

import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa

BUFFER_BYTES = 64 << 20
"""Bytes of rows gathered before they are written as one file of a table."""
KEYS = ("post_id", "text_key")
"""Columns that rows are looked up by."""
AT_ONCE = 2000
"""Ids asked for in one look-up."""
Table = Any
"""A table of LanceDB, which has no types of its own."""


def connect(folder: Path) -> Any:
    """The database in ``folder``."""
    import lancedb  # here, for it starts threads, and stages that only read examples start Ray after their imports

    return lancedb.connect(str(folder))


class Writer:
    """Rows into new tables of one database, gathered into files of a useful size."""

    def __init__(self, folder: Path, schemas: Mapping[str, pa.Schema]):
        self.schemas = schemas
        database = connect(folder)
        self.tables = {name: database.create_table(name, schema=schema) for name, schema in schemas.items()}
        self.rows: dict[str, list[pa.Table]] = {name: [] for name in schemas}

    def add(self, name: str, rows: pa.Table) -> None:
        """Rows for the table ``name``, by column name."""
        gathered = self.rows[name]
        gathered.append(rows.select(self.schemas[name].names).cast(self.schemas[name]))
        if sum(table.nbytes for table in gathered) >= BUFFER_BYTES:
            self.flush(name)

    def flush(self, name: str) -> None:
        """Write what was gathered."""
        rows = pa.concat_tables(self.rows[name] or [self.schemas[name].empty_table()])
        if rows.num_rows:
            self.tables[name].add(rows)
        self.rows[name] = []

    def close(self) -> None:
        """Write the rest and make the tables ready to be looked up."""
        for name, table in self.tables.items():
            self.flush(name)
            settle(table)


def settle(table: Table) -> None:
    """Index the keys, merge small files, and leave nothing of earlier versions on disk."""
    from lancedb.index import BTree

    if table.count_rows():
        for key in KEYS:
            table.create_index(key, config=BTree(), replace=True)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*cleanup_older_than=0.*")
        table.optimize(cleanup_older_than=timedelta(0), delete_unverified=True)


def rewrite(database: Any, name: str, keep: Iterable[pa.RecordBatch]) -> Table:
    """The table with the rows of ``keep`` only, in new files; the old files are gone afterwards."""
    schema = database.open_table(name).schema
    table = database.create_table(name, data=pa.RecordBatchReader.from_batches(schema, keep), mode="overwrite")
    settle(table)
    return table


def batches(table: Table, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
    """All rows, some thousand at a time."""
    if rows := table.count_rows():
        yield from table.search().select(list(columns)).limit(rows).to_batches(8192)


def look_up(table: Table, key: str, values: Sequence[str], columns: Sequence[str]) -> pa.Table:
    """The rows whose ``key`` is one of ``values``, in no order."""
    wanted = sorted(set(values))
    found = [table.schema.empty_table().select(columns)]
    for start in range(0, len(wanted), AT_ONCE):
        quoted = ", ".join(f"'{value.replace(chr(39), chr(39) * 2)}'" for value in wanted[start : start + AT_ONCE])
        rows = table.search().where(f"{key} IN ({quoted})").select(list(columns)).limit(table.count_rows())
        found.append(rows.to_arrow().select(columns))
    return pa.concat_tables(found)
