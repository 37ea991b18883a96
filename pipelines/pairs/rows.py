"""Threads in, tables of rows for GM and IM out, on Ray Data: what the row stages share.

A task reads the threads of one file, a slice at a time, and writes the rows made of them
below ``{gm,im}/{train,validation,test}/`` itself; only its notes travel to the driver. The
files are named by the threads they come from, so that a repeated task overwrites its own.
Rows are put together by Arrow ``take``: no text of a reply becomes a Python object.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import ray.data

from configs.training import MODELS
from pipelines.corpus.failures import plain_errors
from pipelines.corpus.notes import Account, Notes, collect
from pipelines.corpus.schema import NOTE
from pipelines.pairs.schema import MESSAGES, SPLITS

Made = Iterator[tuple[str, pa.Table]]
Make = Callable[[pa.Table, Path, Notes], Made]
"""Rows of a slice of THREAD, of the file at the path: tables with the model they are for."""
Gather = Callable[[pa.Table, Notes], pa.Table]
"""What a slice of THREAD has to hand to the driver."""
SLICE = 4000
"""Threads held at once: about 20 MB of text."""
FOLDED = pa.schema([*((f"note_{field.name}", field.type) for field in NOTE)])


def thread_files(threads: Path) -> list[Path]:
    """The Parquet files of threads, in order of name."""
    return sorted(threads.resolve().glob("*.parquet"))


def slices(file: Path) -> Iterator[pa.Table]:
    """A file of threads, slice by slice."""
    for batch in pq.ParquetFile(file).iter_batches(batch_size=SLICE):
        yield pa.Table.from_batches([batch])


def write_tables(threads: Path, make: Make, schema: pa.Schema, folder: Path) -> Account:
    """Write the rows of all threads below ``folder``, every split with at least an empty file; returns the notes."""
    for model in MODELS:
        for split in SPLITS:
            (folder / model / split).mkdir(parents=True)
    write = partial(write_file, make=make, schema=schema, folder=folder.resolve())
    with plain_errors():
        account = collect(each(thread_files(threads), write))
    for model in MODELS:
        for split in SPLITS:
            if not any((folder / model / split).iterdir()):
                pq.write_table(schema.empty_table(), folder / model / split / "part-empty.parquet")
    return account


def each(files: Sequence[Path], work: Callable[[Path], pa.Table]) -> "ray.data.Dataset":
    """What ``work`` returns for each file, one task a file."""
    dataset = ray.data.from_items([{"file": str(file)} for file in files], override_num_blocks=max(1, len(files)))
    return dataset.map_batches(partial(_worked, work=work), batch_format="pyarrow", batch_size=1)


def _worked(batch: pa.Table, work: Callable[[Path], pa.Table]) -> pa.Table:
    return work(Path(batch["file"][0].as_py()))


def write_file(file: Path, make: Make, schema: pa.Schema, folder: Path) -> pa.Table:
    """Write the rows of one file of threads, under its name; returns the notes."""
    notes = Notes()
    writers: dict[tuple[str, str], pq.ParquetWriter] = {}
    with ExitStack() as stack:
        for threads in slices(file):
            for model, rows in make(threads, file, notes):
                for split in SPLITS:
                    part = rows.filter(pc.equal(rows["split"], split))
                    if not part.num_rows:
                        continue
                    if (model, split) not in writers:
                        path = folder / model / split / file.name
                        writers[model, split] = stack.enter_context(pq.ParquetWriter(path, schema, compression="zstd"))
                    writers[model, split].write_table(part.select(schema.names).cast(schema))
    return notes.table()


def tables_of(files: Sequence[Path], gather: Gather, schema: pa.Schema) -> tuple[list[pa.Table], Account]:
    """What ``gather`` hands to the driver of every file, as tables of ``schema``, and the notes."""
    found: list[pa.Table] = []
    account: Account = defaultdict(Counter)
    with plain_errors():
        for batch in each(files, partial(gather_file, gather=gather)).iter_batches(
            batch_size=None, batch_format="pyarrow"
        ):
            is_note = pc.is_valid(batch["note_kind"])
            for kind, name, count in zip(
                *(batch.filter(is_note)[column].to_pylist() for column in FOLDED.names), strict=True
            ):
                account[kind][name] += count
            found.append(batch.filter(pc.invert(is_note)).select(schema.names).cast(schema))
    return found, account


def gather_file(file: Path, gather: Gather) -> pa.Table:
    """Rows of one file, and the notes in columns of their own."""
    notes = Notes()
    rows = [gather(threads, notes) for threads in slices(file)]
    return pa.concat_tables([*rows, notes.table().rename_columns(FOLDED.names)], promote_options="default")


def turns(texts: pa.Array | pa.ChunkedArray, role: str = "assistant") -> pa.Array:
    """Each text as a conversation of one turn (MESSAGES)."""
    if isinstance(texts, pa.ChunkedArray):
        texts = texts.combine_chunks()
    roles = pa.DictionaryArray.from_arrays(np.zeros(len(texts), np.int32), pa.array([role])).dictionary_decode()
    messages = pa.StructArray.from_arrays([roles, texts], fields=list(MESSAGES.value_type))
    return pa.ListArray.from_arrays(pa.array(np.arange(len(texts) + 1), pa.int32()), messages).cast(MESSAGES)
