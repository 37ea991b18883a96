"""Training rows streamed by Ray Data, for sets larger than a node's disk: ``training.ingest: stream``.

The order of rows is settled by ``sampling.py`` whichever way they come. Here Ray Data's tasks
read one window of that order after the other from the Parquet files and send each worker its
own rows in the very order in which its sampler asks for them; a worker that gets another row
than it asked for stops. So steps, restarts and weights are those of memory-mapped rows. Nothing
but ids and lengths lies on the nodes' disks; the price is that every worker's tasks read every
file once an epoch, and keep a window's rows in memory. The tasks ask Ray for no CPU, since
training may hold them all and would wait for its rows forever.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import ray.train
from torch.utils.data import Dataset

from configs.errors import TrainingError
from pipelines.training.plan import Plan
from pipelines.training.rows import ROW, other_rows
from pipelines.training.sampling import LengthGrouped, Shuffled
from pipelines.training.tokens import PAIR_KEYS, REFERENCE_COLUMNS

TRAIN = "train"
STEP = "step"
"""Column of the optimizer step that a row is for, counted over all epochs from 0."""
AHEAD = 2
"""Windows that are read at once, and batches that a worker holds ready."""
SENT = 64
"""Micro-batches that leave a task together."""


@dataclass(frozen=True)
class Piece:
    """A row group of a Parquet file."""

    path: str
    group: int
    first: int
    """Position of its first row among all rows of the split."""
    rows: int


def pieces_of(folder: Path) -> list[Piece]:
    """All row groups of a split, in the order in which rows are numbered."""
    found, first = [], 0
    for file in sorted(folder.glob("*.parquet")):
        metadata = pq.read_metadata(file)
        for group in range(metadata.num_row_groups):
            rows = metadata.row_group(group).num_rows
            found.append(Piece(str(file), group, first, rows))
            first += rows
    return found


def taken(pieces: Sequence[Piece], rows: np.ndarray, columns: list[str]) -> pa.Table:
    """The rows at these positions, in this order; each row group is read once."""
    order = np.argsort(rows, kind="stable")
    ascending = rows[order]
    parts = []
    for piece in pieces:
        begin, end = np.searchsorted(ascending, [piece.first, piece.first + piece.rows])
        if begin < end:
            table = pq.ParquetFile(piece.path).read_row_group(piece.group, columns)
            parts.append(table.take(pa.array(ascending[begin:end] - piece.first)))
    back = np.empty_like(order)
    back[order] = np.arange(len(order))
    return pa.concat_tables(parts).take(pa.array(back))


@dataclass(frozen=True)
class Feed:
    """What is sent to whom: the files, their order, and how a step is shared."""

    plan: Plan
    order: Shuffled
    tokens: tuple[Piece, ...]
    reference: tuple[Piece, ...]
    columns: tuple[str, ...]
    micro_batch: int
    last: int
    """Optimizer steps of the whole run."""

    @classmethod
    def of(cls, plan: Plan, **sizes: int) -> "Feed":
        """From a plan; ``sizes`` of windows and chunks are for tests."""
        pieces = pieces_of(Path(plan.tokens) / TRAIN)
        lengths = [pq.read_table(path, columns=["length"], partitioning=None)["length"] for path in paths(pieces)]
        step = plan.stage.micro_batch * plan.stage.accumulation * plan.training.most_workers
        kind = Shuffled if plan.training.batching == "random" else LengthGrouped
        order = kind(pa.chunked_array(lengths, pa.int32()).to_numpy(), step, plan.seed, **sizes)
        scored = pieces_of(Path(plan.reference) / TRAIN) if plan.reference else []
        columns = pq.read_schema(pieces[0].path).names
        epochs = plan.stage.epochs
        last = plan.stage.max_steps if plan.stage.max_steps > 0 else -int(-epochs * order.steps // 1)
        return cls(plan, order, tuple(pieces), tuple(scored), tuple(columns), plan.stage.micro_batch, last)

    def windows(self, first: int) -> Iterator[dict[str, int]]:
        """The windows, epoch by epoch, that hold a step from ``first`` on, to the last of the run."""
        for epoch in range(-(-self.last // self.order.steps)):
            before = epoch * self.order.steps
            starts = [before + rows // self.order.step for rows in self.order.starts(epoch)[:-1]]
            for at, (start, end) in enumerate(zip(starts, [*starts[1:], before + self.order.steps], strict=True)):
                if first < end and start < self.last:
                    yield {"epoch": epoch, "window": at, "start": start}

    def sent(self, window: dict[str, int], worker: int, workers: int) -> Iterator[pa.Table]:
        """One worker's rows of a window, as accelerate deals micro-batches: to one worker after the other."""
        batches = self.order.window(window["epoch"], window["window"]).reshape(-1, self.micro_batch)
        a_step = self.order.step // self.micro_batch
        steps = window["start"] + np.arange(len(batches)) // a_step
        mine = np.arange(len(batches)) % workers == worker
        rows = batches[mine].ravel()
        table = self.read(rows).append_column(ROW, pa.array(rows, pa.int32()))
        table = table.append_column(STEP, pa.array(np.repeat(steps[mine], self.micro_batch), pa.int32()))
        for at in range(0, len(rows), SENT * self.micro_batch):
            yield table.slice(at, SENT * self.micro_batch)

    def read(self, rows: np.ndarray) -> pa.Table:
        """The rows at these positions; for DPO beside their log-probabilities, which must be of these very rows."""
        table = taken(self.tokens, rows, list(self.columns))
        if not self.reference:
            return table
        scored = taken(self.reference, rows, [*PAIR_KEYS, *REFERENCE_COLUMNS])
        if any(not table[key].combine_chunks().equals(scored[key].combine_chunks()) for key in PAIR_KEYS):
            raise TrainingError(other_rows(self.plan, TRAIN))
        for name in REFERENCE_COLUMNS:
            table = table.append_column(name, scored[name])
        return table

    def dataset(self, worker: int, workers: int, first: int) -> "ray.data.Dataset":
        """One worker's rows from step ``first`` on, in order."""
        from ray.data import ExecutionOptions

        work = list(self.windows(first))
        rows = ray.data.from_items(work, override_num_blocks=max(1, len(work))).map_batches(
            partial(send, feed=self, worker=worker, workers=workers),
            batch_size=1,
            batch_format="pyarrow",
            num_cpus=0,
            concurrency=AHEAD,
        )
        rows.context.execution_options = ExecutionOptions(preserve_order=True)
        rows.context.enable_progress_bars = False
        return rows


def paths(pieces: Sequence[Piece]) -> list[str]:
    """The files of some pieces, each once."""
    return list(dict.fromkeys(piece.path for piece in pieces))


def send(batch: pa.Table, *, feed: Feed, worker: int, workers: int) -> Iterator[pa.Table]:
    """What a task of Ray Data does with one window."""
    for window in batch.to_pylist():
        yield from feed.sent(window, worker, workers)


class InOrder(ray.train.DataConfig):
    """Gives each worker its own rows from an early enough checkpoint on; workers drop those of steps they have taken.

    Called anew whenever workers start, whatever their number then is.
    """

    def __init__(self, plan: Plan):
        super().__init__(datasets_to_split=[])
        self.plan = plan

    def configure(self, datasets: dict[str, Any], world_size: int, *_: Any, **__: Any) -> list[dict[str, Any]]:
        """One iterator a worker, for the name ``TRAIN``."""
        from pipelines.training import checkpoint

        kept = sorted(found.marker.step for found in checkpoint.marked(Path(self.plan.storage)))
        feed, first = Feed.of(self.plan), min(kept[-self.plan.training.keep_checkpoints :], default=0)
        return [{TRAIN: feed.dataset(worker, world_size, first).iterator()} for worker in range(world_size)]


def words_of(plan: Plan) -> dict[str, Any]:
    """What Ray's trainer is given besides; the dataset only lends its name."""
    return {"datasets": {TRAIN: ray.data.range(1)}, "dataset_config": InOrder(plan)}


def shard(plan: Plan) -> Iterator[pa.Table]:
    """This worker's micro-batches."""
    iterator = ray.train.get_dataset_shard(TRAIN)
    return iter(
        iterator.iter_batches(batch_size=plan.stage.micro_batch, batch_format="pyarrow", prefetch_batches=AHEAD)
    )


class StreamedRows(Dataset[dict[str, Any]]):
    """Rows by position, of which only the next ones of the stream can be asked for."""

    def __init__(self, stream: Callable[[], Iterator[pa.Table]], rows: int, step: Callable[[], int]):
        self.open = stream
        self.stream: Iterator[pa.Table] | None = None
        self.rows = rows
        self.step = step
        """The optimizer step at which training stands when the first row is asked for."""

    def __len__(self) -> int:
        return self.rows

    def __getitems__(self, positions: Sequence[int]) -> list[dict[str, Any]]:
        """The rows of a micro-batch; raises TrainingError where the stream goes on with others."""
        batch = self.next()
        sent = batch[ROW].to_pylist() if batch is not None else []
        if batch is None or sent != list(positions):
            raise TrainingError(
                f"the stream of training rows goes on with {sent[:4]} and not with {list(positions)[:4]}: tokens "
                "changed under a run in progress, or training.ingest: stream cannot serve it; set memory_map"
            )
        return batch.drop_columns([STEP]).to_pylist()

    def next(self) -> pa.Table | None:
        """The next micro-batch of the stream, past those of steps that were taken before a restart."""
        if self.stream is None:
            self.stream, taken_steps = self.open(), self.step()
            for batch in self.stream:
                if batch[STEP][0].as_py() >= taken_steps:
                    return batch
        return next(self.stream, None)
