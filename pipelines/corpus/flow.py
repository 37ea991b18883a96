"""The three passes from dumps to threads, on Ray Data.

    hold    read -> clean -> rows to files by post, keys of their texts to files by key
    judge   keys of a partition together -> which rows repeat an earlier one, to files by post
    weave   rows and verdicts of a partition together -> threads, as Parquet

Texts are moved once, by post. What repeats what is decided on keys alone (``duplicates``),
and with that rule switched off the second pass does not take place. Each step maps a table
to a table and keeps the sum of ``count`` (see ``schema``); only notes and names of files
travel to the driver, as rows of the tasks' own output, so that what a killed task left
behind is not counted and not read.

Memory: a task of the first pass holds a block as read, one of the others a group of
partitions of about ``GROUP_BYTES``, so that it grows with the number of tasks at work and
not with the corpus. A single post whose comments exceed that is a group of its own.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from uuid import uuid4

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import ray.data

from configs.corpus import CorpusSettings
from pipelines import pools
from pipelines.corpus import duplicates, sources
from pipelines.corpus.cleaning import clean, is_kind
from pipelines.corpus.exchange import gather, grouped, paths, scatter, sizes_of
from pipelines.corpus.failures import plain_errors
from pipelines.corpus.notes import Account, Notes, collect
from pipelines.corpus.reader import Dump
from pipelines.corpus.schema import KEY, POST, ROW, SEEN
from pipelines.corpus.threads import Scrub, thread
from pipelines.forgetting.kept import NOTHING, Forgotten

PARTITION_BYTES, FEWEST, MOST = 2 << 20, 16, 4096
"""Stored bytes of dumps a partition, where ``corpus.partitions`` does not say, and the limits of their number."""
GROUP_BYTES = 64 << 20
"""Bytes of rows in memory that a task of the later passes takes on."""
TIMES_HELD = 6
"""How often a task holds its group's bytes at its peak: as read, sorted, scrubbed and written."""
MUCH = 1 << 30
"""Bytes from which on a task asks Ray for logical memory."""
WROTE = "wrote:"
"""Notes of this kind name files of scattered rows."""
_WHOLE = {"batch_format": "pyarrow", "batch_size": None}


@dataclass
class Scratch:
    """A folder for scattered rows, and what has been scattered there."""

    folder: Path
    partitions: int
    exact: bool
    """Whether each partition is a task, as ``corpus.partitions`` asks."""
    files: dict[str, list[str]] = field(default_factory=dict)

    def take_in(self, account: Account) -> None:
        """Learn from the notes of a pass which pieces it wrote; forgets those notes."""
        for kind in [kind for kind in account if kind.startswith(WROTE)]:
            self.files.setdefault(kind.removeprefix(WROTE), []).extend(str(name) for name in account.pop(kind))

    def groups(self, what: str) -> tuple[list[range], int]:
        """Partitions by task, and the bytes in memory of the largest task."""
        sizes = sizes_of(self.pieces(what))
        groups = grouped(sizes, self.partitions, GROUP_BYTES, self.exact)
        return groups, max(sum(sizes.get(partition, 0) for partition in group) for group in groups)

    def pieces(self, *kinds: str) -> list[Path]:
        """The files that hold rows of these kinds."""
        return paths(self.folder, [name for kind in kinds for name in self.files.get(kind, ())])


def run(
    rows: "ray.data.Dataset",
    settings: CorpusSettings,
    partitions: int,
    folder: Path,
    key: bytes,
    scrub: Scrub | None = None,
    gone: Forgotten = NOTHING,
) -> Account:
    """Write the threads of ``rows`` (tables of RECORD) below ``folder`` and account for every row.

    ``scrub`` takes the place of the patterns; a benchmark hands in one that does nothing.
    ``gone`` is what was forgotten.
    """
    scratch = Scratch(folder / "scratch", partitions, exact=settings.partitions > 0)
    scratch.folder.mkdir()
    with plain_errors():
        step = partial(hold, settings=settings, partitions=partitions, folder=scratch.folder)
        account = collect(rows.map_batches(step, **_WHOLE))
        scratch.take_in(account)
        if scratch.pieces("keys"):
            step = partial(judge, pieces=scratch.pieces("keys"), settings=settings, partitions=partitions)
            scratch.take_in(collect(each(*scratch.groups("keys"), step)))
        pieces = scratch.pieces("rows", "verdicts")
        step = partial(weave, pieces=pieces, settings=settings, folder=folder, key=key, scrub=scrub, gone=gone)
        for kind, ends in collect(each(*scratch.groups("rows"), step)).items():
            account[kind].update(ends)
    return account


def each(groups: Sequence[range], largest: int, step: Callable[[range], pa.Table]) -> "ray.data.Dataset":
    """The step on each group of partitions, a task each; ``largest`` is the bytes of the largest."""
    needed = largest * TIMES_HELD
    bounds = pa.table({"start": [group.start for group in groups], "stop": [group.stop for group in groups]})
    blocks = [bounds.slice(i, 1) for i in range(len(groups))]
    memory = {"memory": within_a_node(needed)} if needed > MUCH else {}

    def on_group(bounds: pa.Table) -> pa.Table:
        ((start, stop),) = zip(*(bounds[name].to_pylist() for name in ("start", "stop")), strict=True)
        return step(range(start, stop))

    return ray.data.from_arrow(blocks).map_batches(on_group, **_WHOLE, **memory)


def within_a_node(wanted: float) -> float:
    """So many bytes of logical memory, and no more than the largest node can give."""
    nodes = [node["Resources"].get("memory", 0) for node in pools.data_nodes()]
    return min(wanted, 0.8 * max(nodes, default=math.inf))


def hold(table: pa.Table, settings: CorpusSettings, partitions: int, folder: Path) -> pa.Table:
    """Clean a table of RECORD; its rows and keys to files. Returns NOTE: fates, and what was written."""
    notes = Notes()
    rows = kept(clean(table, settings.cleaning), notes)
    _put("rows", rows, "post_id", partitions, folder, notes)
    if settings.cleaning.drop_duplicate or settings.cleaning.drop_near_duplicate:
        _put("keys", duplicates.keys(rows, settings.cleaning), "key", partitions, folder, notes)
    return notes.table()


def kept(rows: pa.Table, notes: Notes) -> pa.Table:
    """What a table of ROW hands on to threading: rows that live, and of dropped posts that they were there.

    Everything else is told by the notes.
    """
    seen = is_kind(rows, SEEN)
    communities = rows.filter(seen).select(["id", "subreddit", "count"])
    for row in communities.to_pylist():
        notes.add(f"seen:{row['id']}", row["subreddit"], row["count"])
    gone = pc.and_(pc.is_valid(rows["dropped"]), pc.invert(seen))
    named = pc.and_(pc.and_(gone, is_kind(rows, POST)), pc.is_valid(rows["post_id"]))
    notes.add_gone(rows.filter(pc.and_(gone, pc.invert(named))))
    living = pc.and_(pc.is_null(rows["dropped"]), pc.invert(seen))
    return rows.filter(pc.or_(living, named))


def judge(wanted: range, pieces: Sequence[Path], settings: CorpusSettings, partitions: int) -> pa.Table:
    """The verdicts on a group of partitions of KEY, to files by post. Returns NOTE: what was written."""
    notes = Notes()
    verdicts = duplicates.verdicts(gather(pieces, wanted, KEY), settings.cleaning)
    _put("verdicts", verdicts, "post_id", partitions, pieces[0].parent, notes)
    return notes.table()


def weave(
    wanted: range,
    pieces: Sequence[Path],
    settings: CorpusSettings,
    folder: Path,
    key: bytes,
    scrub: Scrub | None,
    gone: Forgotten = NOTHING,
) -> pa.Table:
    """The threads of a group of partitions as Parquet of THREAD; returns NOTE."""
    rows = gather(pieces, wanted, ROW)
    threads, notes = thread(rows, settings, key, scrub, gone)
    for number, start in enumerate(range(0, threads.num_rows, settings.rows_per_file)):
        name = f"part-{wanted.start:05}-{number:03}.parquet"
        draft = folder / "scratch" / f"{uuid4().hex}.parquet"
        pq.write_table(threads.slice(start, settings.rows_per_file), draft, compression="zstd")
        draft.replace(folder / name)  # a repeated task's file takes the place of the first one's, whole
    return notes.table()


def _put(what: str, table: pa.Table, column: str, partitions: int, folder: Path, notes: Notes) -> None:
    name = scatter(table, column, partitions, folder)
    if name is not None:
        notes.add(f"{WROTE}{what}", name)


def partitions_for(settings: CorpusSettings, dumps: Sequence[Dump]) -> int:
    """Partitions that rows are scattered to: those asked for, else by the dumps' size."""
    size = sum(sources.size(dump.location) for dump in dumps)
    return settings.partitions or min(MOST, max(FEWEST, math.ceil(size / PARTITION_BYTES)))
