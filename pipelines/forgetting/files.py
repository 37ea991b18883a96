"""One file of an output without what is forgotten: Parquet and JSON lines, each rewritten beside itself.

Files are hard links to those that still stand (see ``staging``): a file is never written
into, a new one takes its name. One that holds nothing forgotten is left as it is.
"""

import json
import os
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.forgetting.kept import Forgotten
from pipelines.forgetting.match import IDS, in_line, in_rating, in_rows

BATCH = 20_000
_FIELD = re.compile(r'"(id|name|link_id|parent_id|author)"\s*:\s*"(?:t[1-6]_)?([^"\\]+)"')
Goes = Callable[[pa.Table], np.ndarray]
"""For each row of a table whether it is to go."""


def rewrite_rows(path: Path, goes: Goes, *, by_words: bool = False) -> pa.Table:
    """Take rows out of a Parquet file; returns what identified them: columns of ``IDS``, ``split``, ``subreddit``.

    Unless ``goes`` asks for more than these columns, they alone are read of a file that keeps all rows.
    """
    source = pq.ParquetFile(path)
    columns = [name for name in (*IDS, "split", "subreddit") if name in source.schema_arrow.names]
    if not by_words:
        ids = source.read(columns)
        if not goes(ids).any():
            return ids.slice(0, 0)
    removed: list[pa.Table] = []
    partial = path.with_name(f"{path.name}.new")
    with pq.ParquetWriter(partial, source.schema_arrow, compression="zstd") as writer:
        for batch in source.iter_batches(batch_size=BATCH):
            table = pa.Table.from_batches([batch])
            chosen = goes(table)
            removed.append(table.filter(pa.array(chosen)).select(columns))
            writer.write_table(table.filter(pa.array(~chosen)))
    source.close()
    empty = source.schema_arrow.empty_table().select(columns)
    found = pa.concat_tables([empty, *removed])
    if found.num_rows:
        partial.replace(path)
    else:
        partial.unlink()
    return found


def rows_made_of(gone: Forgotten, words: frozenset[str] = frozenset()) -> Goes:
    """By ids; with ``words`` also rows in whose conversations one of these texts stands."""

    def goes(table: pa.Table) -> np.ndarray:
        found = in_rows(table, gone)
        if words:
            found |= spoken(table, words)
        return found

    return goes


def spoken(table: pa.Table, words: frozenset[str]) -> np.ndarray:
    """Rows with one of the texts in a conversation: what raters were shown has no id but that of the post."""
    found = np.zeros(table.num_rows, bool)
    for name in ("prompt", "chosen", "rejected", "completion"):
        if name not in table.schema.names:
            continue
        for index, turns in enumerate(table[name].to_pylist()):
            contents = [turn["content"] for turn in turns or ()]
            found[index] |= any(text in content for text in words for content in contents)
    return found


def rewrite_lines(path: Path, goes: Callable[[dict[str, Any]], bool]) -> tuple[int, int]:
    """Take lines out of a file of JSON lines, which keeps its time of change; returns lines read and taken out.

    Lines that are no JSON object are torn, and are left out with them.
    """
    stat = path.stat()
    kept, read = [], 0
    for line, row in parsed(path):
        read += 1
        if not goes(row):
            kept.append(line)
    if len(kept) < read:
        partial = path.with_name(f"{path.name}.new")
        partial.write_bytes(b"".join(kept))
        os.utime(partial, ns=(stat.st_atime_ns, stat.st_mtime_ns))
        partial.replace(path)
    return read, read - len(kept)


def lines(path: Path) -> Iterator[dict[str, Any]]:
    """The JSON objects in a file of lines."""
    return (row for _, row in parsed(path))


def parsed(path: Path) -> Iterator[tuple[bytes, dict[str, Any]]]:
    """Each line that is a JSON object, and the object; lone surrogates are read by json."""
    with path.open("rb") as file:
        for line in file:
            try:
                row = orjson.loads(line)
            except orjson.JSONDecodeError:
                try:
                    row = json.loads(line)
                except ValueError:
                    continue
            if isinstance(row, dict):
                yield line if line.endswith(b"\n") else line + b"\n", row


def ratings_of(gone: Forgotten) -> Callable[[dict[str, Any]], bool]:
    """Whether a line of a rating file goes."""
    return lambda row: in_rating(row, gone)


def lines_made_of(gone: Forgotten) -> Callable[[dict[str, Any]], bool]:
    """Whether a line that carries ids goes."""
    return lambda row: in_line(row, gone)


def quarantined(gone: Forgotten) -> Callable[[Mapping[str, Any]], bool]:
    """Whether a quarantined line names something forgotten.

    Such a line is damaged, so it is searched for fields and not parsed: its own id, the post
    it answers, its author. One that is too damaged to hold any of these is not found.
    """

    def goes(row: Mapping[str, Any]) -> bool:
        for name, value in _FIELD.findall(str(row.get("text", ""))):
            if name == "author":
                if gone.has("authors", value):
                    return True
            elif gone.has("posts", value) or gone.has("comments", value):
                return True
        return False

    return goes


def clean_quarantine(folder: Path, gone: Forgotten) -> int:
    """Take the lines of what is forgotten out of a quarantine folder; returns how many. Empty files go."""
    lost = 0
    for path in sorted(folder.glob("*.jsonl")) if gone and folder.is_dir() else ():
        read, taken = rewrite_lines(path, quarantined(gone))
        lost += taken
        if taken and read == taken:
            path.unlink()
    return lost
