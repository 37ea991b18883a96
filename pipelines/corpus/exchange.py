"""Rows brought together by a key, through files: the shuffle of the corpus stage.

    scatter(table, "post_id", partitions, folder) -> name      on every block, as it is cleaned
    gather(files, wanted, schema) -> table                     for a group of partitions

A block's rows are sorted by partition and written as one Arrow file with a record batch
a partition; who gathers a partition reads its batch of every file and nothing else. Rows
have to be held anyway until the whole corpus has said which texts repeat others, so the
files that hold them are the shuffle. Against Ray Data's own (``Dataset.repartition`` with
keys) this needs no aggregating actors (2 s of CPU for the first one), keeps nothing in the object
store, and a killed worker costs its task only: pieces carry names of their own, and what
counts is the list of names that came back with the tasks that ended well.

The price: the folder must be reached by every node, as the output must anyhow; and there
are as many reads as blocks times groups of partitions.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from uuid import uuid4

import numpy as np
import pyarrow as pa

_PRIME, _MIX = np.uint64(0x100000001B3), np.uint64(0x9E3779B97F4A7C15)
_SIZES = b"sizes"
"""In a file's metadata: the partitions that it has a batch of, in order, with their bytes in memory."""


def scatter(table: pa.Table, column: str, partitions: int, folder: Path) -> str | None:
    """Write the table's rows, by partition of ``column`` (string or unsigned integer).

    Returns the name of the file below ``folder``, None where the table is empty.
    """
    if not table.num_rows:
        return None
    table = table.combine_chunks()
    owner = partition_of(table[column], partitions)
    order = np.argsort(owner, kind="stable")
    ends = np.cumsum(np.bincount(owner, minlength=partitions))
    present = np.flatnonzero(np.diff(ends, prepend=0))
    table = table.take(pa.array(order)).combine_chunks()
    bounds = zip(present.tolist(), [0, *ends[present].tolist()], ends[present].tolist(), strict=False)
    batches = {partition: table.slice(start, stop - start).to_batches()[0] for partition, start, stop in bounds}
    sizes = json.dumps([(partition, batch.nbytes) for partition, batch in batches.items()])
    name, schema = f"{uuid4().hex}.arrow", table.schema.with_metadata({_SIZES: sizes.encode()})
    options = pa.ipc.IpcWriteOptions(compression="lz4", use_threads=False)
    with pa.OSFile(str(folder / name), "wb") as file, pa.ipc.new_file(file, schema, options=options) as writer:
        for batch in batches.values():
            writer.write_batch(batch)
    return name


def sizes_of(files: Iterable[Path]) -> dict[int, int]:
    """Bytes in memory of each partition that has rows in the files."""
    found: dict[int, int] = {}
    for path in files:
        with pa.OSFile(str(path), "rb") as file:
            for partition, size in json.loads(pa.ipc.open_file(file).schema.metadata[_SIZES]):
                found[partition] = found.get(partition, 0) + size
    return found


def gather(files: Iterable[Path], wanted: range, schema: pa.Schema) -> pa.Table:
    """The rows of the ``wanted`` partitions from every file, in the files' order."""
    options = pa.ipc.IpcReadOptions(use_threads=False)
    batches = []
    for path in files:
        with pa.OSFile(str(path), "rb") as file:
            reader = pa.ipc.open_file(file, options=options)
            present = json.loads(reader.schema.metadata[_SIZES])
            batches += [reader.get_batch(i) for i, (partition, _) in enumerate(present) if partition in wanted]
    return pa.Table.from_batches([batch.replace_schema_metadata(None) for batch in batches], schema)


def partition_of(column: pa.ChunkedArray, partitions: int) -> np.ndarray:
    """Each value's partition (n,), the same on every machine: FNV-1a over the bytes, or over the number.

    Python's and polars' hashes are quicker and promise nothing between two processors.
    """
    values = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    if pa.types.is_unsigned_integer(values.type):
        code = values.to_numpy(zero_copy_only=False).astype(np.uint64) * _MIX
        return ((code >> np.uint64(32)) % np.uint64(partitions)).astype(np.uint16)
    offsets = np.frombuffer(values.buffers()[1], np.int32)[values.offset : values.offset + len(values) + 1]
    letters = np.frombuffer(values.buffers()[2] or b"", np.uint8)
    sizes, code = np.diff(offsets), np.full(len(values), 0xCBF29CE484222325, np.uint64)
    for place in range(int(sizes.max(initial=0))):
        inside = sizes > place
        if inside.all():
            code = (code ^ letters[offsets[:-1] + place]) * _PRIME
        else:
            code[inside] = (code[inside] ^ letters[offsets[:-1][inside] + place]) * _PRIME
    code = (code ^ (code >> np.uint64(32))) * _MIX
    return ((code >> np.uint64(32)) % np.uint64(partitions)).astype(np.uint16)


def grouped(sizes: Mapping[int, int], partitions: int, most: int, exact: bool = False) -> list[range]:
    """Neighbouring partitions in groups of at most ``most`` bytes each, where one does not exceed that alone.

    A task takes a group: partitions are made before anybody knows how many rows the filters
    leave, and of two partitions with one huge thread among them no task takes both. With
    ``exact`` each partition is a group.
    """
    if exact:
        return [range(i, i + 1) for i in range(partitions)]
    groups: list[range] = []
    start, held = 0, 0
    for partition in range(partitions):
        size = sizes.get(partition, 0)
        if held and held + size > most:
            groups.append(range(start, partition))
            start, held = partition, 0
        held += size
    return [*groups, range(start, partitions)]


def paths(folder: Path, names: Sequence[str]) -> list[Path]:
    """The files of pieces, in an order that depends on nothing but their names."""
    return [folder / name for name in sorted(names)]
