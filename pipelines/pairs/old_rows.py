"""Threads in, rows for GM and IM out, on Ray Data: what both row stages share.

A task turns the threads of one file into rows, a slice at a time, and writes them below
``{gm,im}/{train,validation,test}/`` itself; only its notes travel to the driver. The
files are named by the threads they come from, so that a repeated task overwrites its own.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from hashlib import blake2b
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import ray.data

from configs.errors import DataError
from configs.pairs import PairSettings
from configs.settings import Settings
from configs.training import MODELS
from pipelines import manifest
from pipelines.corpus.failures import plain_errors
from pipelines.corpus.notes import Account, Notes, collect
from pipelines.pairs.gm import Row, Thread
from pipelines.pairs.schema import SPLITS

Rows = Iterator[tuple[str, Row]]
Make = Callable[[Thread, Settings, Notes], Rows]
"""Rows of one thread, each with the model it is for."""
SLICE = 1000
"""Threads held as Python objects at once."""


def write_rows(threads: Path, make: Make, settings: Settings, schema: pa.Schema, folder: Path) -> Account:
    """Write the rows of all threads below ``folder``, every split with at least an empty file."""
    for model in MODELS:
        for split in SPLITS:
            (folder / model / split).mkdir(parents=True)
    files = sorted(str(file) for file in threads.resolve().glob("*.parquet"))
    dataset = ray.data.read_parquet(files, override_num_blocks=len(files), partitioning=None).map_batches(
        partial(write_batch, make=make, settings=settings, schema=schema, folder=folder.resolve()),
        batch_format="pyarrow",
        batch_size=None,
    )
    with plain_errors():
        account = collect(dataset)
    for model in MODELS:
        for split in SPLITS:
            if not any((folder / model / split).iterdir()):
                pq.write_table(schema.empty_table(), folder / model / split / "part-empty.parquet")
    return account


def write_batch(table: pa.Table, make: Make, settings: Settings, schema: pa.Schema, folder: Path) -> pa.Table:
    """Write the rows of a table of THREAD; returns the notes."""
    notes = Notes()
    ids = "\n".join(table["post_id"].to_pylist())
    name = f"part-{blake2b(ids.encode(), digest_size=6).hexdigest()}.parquet"
    writers: dict[tuple[str, str], pq.ParquetWriter] = {}
    with ExitStack() as stack:
        for start in range(0, table.num_rows, SLICE):
            rows: dict[tuple[str, str], list[Row]] = {}
            for thread in table.slice(start, SLICE).to_pylist():
                for model, row in make(thread, settings, notes):
                    rows.setdefault((model, row["split"]), []).append(row)
            for (model, split), made in rows.items():
                if (model, split) not in writers:
                    path = folder / model / split / name
                    writers[model, split] = stack.enter_context(pq.ParquetWriter(path, schema, compression="zstd"))
                writers[model, split].write_table(pa.Table.from_pylist(made, schema=schema))
    return notes.table()


def timing_notes(threads: Path, settings: PairSettings) -> list[str]:
    """What the manifest must say about the timing rule.

    Raises DataError where the rule is asked for and the threads' timestamps cannot bear it.
    """
    corpus = manifest.read(threads)
    usable = corpus is None or corpus.figures.get("usable_timestamps", True)
    if settings.rule != "shp":
        return [f"Rule {settings.rule}: whoever replied first has the advantage; use it only to compare."]
    if settings.timing and not usable:
        raise DataError(
            f"{threads}: its comments share their timestamps, so pairs.timing cannot be applied;"
            " set pairs.timing=false (configs/tiny_untimed.yaml does)"
        )
    if settings.timing:
        return []
    reason = "the order of the replies can be seen but was not asked for" if usable else "the dumps do not tell it"
    return [
        "The timing rule is off (pairs.timing=false): replies that came first collect more votes, and these pairs"
        f" are not freed of that; {reason}."
    ]


def shares(counts: Counter[str | None]) -> dict[str, Any]:
    """Pairs with the shares of those whose chosen reply came earlier and was longer."""
    pairs = counts["pairs"]
    share = {name: round(counts[name] / pairs, 4) if pairs else None for name in ("earlier", "longer")}
    return {"pairs": pairs, "chosen_earlier": share["earlier"], "chosen_longer": share["longer"]}


def note_pair(notes: Notes, kind: str, thread: Thread, pair: tuple[int, int]) -> None:
    """Count a pair for ``shares``."""
    chosen, rejected = (thread["comments"][i] for i in pair)
    notes.add(kind, "pairs")
    notes.add(kind, "earlier", int(chosen["created_utc"] < rejected["created_utc"]))
    notes.add(kind, "longer", int(len(chosen["text"]) > len(rejected["text"])))
