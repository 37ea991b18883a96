"""A dump, or a piece of one, as Arrow tables of RECORD.

Where only some communities are wanted, each block of lines is searched for their names
before anything is parsed. A line that does not name one of them, begins with ``{`` and
ends with ``}`` is counted as ``other_subreddit`` unparsed: damage in its middle stays
unseen. All other lines are parsed, and so are the first ones of each piece: they show
that the file holds JSON of the expected kind, and which communities are in it.

Every line read leaves as a row or in a tally row; what cannot be parsed is also written
to quarantine.
"""

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import compress
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow as pa

from configs.errors import DataError
from pipelines.corpus import fields
from pipelines.corpus.columns import READ, convert, table_of, tallies_of
from pipelines.corpus.decoding import Block, blocks, suffix
from pipelines.corpus.quarantine import Quarantine
from pipelines.corpus.schema import COMMENT, POST, SEEN
from pipelines.corpus.search import LineEnds, Lines, Search

__all__ = ["Dump", "ReadOptions", "read_dump", "table_of", "tallies_of"]

PROBE = 200
"""Lines at a piece's start that are parsed whatever they name."""
BATCH_ROWS, BATCH_BYTES = 500, 4 << 20
"""Parsed lines converted at once."""
TABLE_ROWS, TABLE_BYTES = 50_000, 16 << 20
"""Rows, or bytes of their lines, handed on at once."""
HOPELESS = 10_000
"""Bad lines from which on a file may be refused before its end."""


@dataclass(frozen=True)
class Dump:
    """One file of posts or of comments, or the piece of it that begins within ``[start, stop)``.

    The range is in stored bytes for .zst files and in row groups for Parquet files.
    """

    kind: str
    location: str
    start: int = 0
    stop: int | None = None


@dataclass(frozen=True)
class ReadOptions:
    """What a read task needs to know beside its file."""

    subreddits: frozenset[str]
    """Lower-case names; empty keeps all."""
    max_malformed_share: float
    quarantine: Path | None = None
    """Folder for lines that cannot be parsed."""


def read_dump(dump: Dump, options: ReadOptions) -> Iterator[pa.Table]:
    """The dump's rows as tables of RECORD; the last one holds the tallies.

    Raises DataError naming the file where it is damaged, of the other kind, or no JSON.
    """
    reading = Reading(dump, options)
    for _ in reading.parquet() if suffix(dump.location) == ".parquet" else reading.lines_of_blocks():
        if reading.rows >= TABLE_ROWS or reading.row_bytes >= TABLE_BYTES:
            yield reading.table()
    yield reading.table()
    yield reading.finish()


@dataclass
class Parsed:
    """Parsed lines that wait for conversion."""

    records: list[tuple[Any, ...]] = field(default_factory=list)
    """Values of the fields in READ."""
    lines: list[tuple[int, int, bytes]] = field(default_factory=list)
    """Number, decoded offset and bytes of each."""
    size: int = 0


@dataclass
class Reading:
    """A dump while it is read: rows not yet handed on, and the fate of all others."""

    dump: Dump
    options: ReadOptions
    waiting: Parsed = field(default_factory=Parsed)
    tables: list[pa.Table] = field(default_factory=list)
    rows: int = 0
    row_bytes: int = 0
    read: int = 0
    """Lines, or rows, read."""
    asked: int = 0
    """Lines that were parsed for what they name or for where they stand."""
    asked_bad: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    seen: Counter[str] = field(default_factory=Counter)
    quarantine: Quarantine = field(init=False)

    def __post_init__(self) -> None:
        dump = self.dump
        self.quarantine = Quarantine(dump.kind, dump.location, dump.start, self.options.quarantine)
        self._fields = READ[dump.kind]

    def lines_of_blocks(self) -> Iterator[None]:
        """Take in block after block."""
        search = Search(self.options.subreddits) if self.options.subreddits else None
        line_ends = LineEnds()
        for block in blocks(self.dump.location, self.dump.start, self.dump.stop):
            self.quarantine.frame = block.origin
            self._take_block(block, line_ends(block.buffer, block.size), search)
            yield

    def parquet(self) -> Iterator[None]:
        """Take in batch after batch of rows."""
        from pipelines.corpus import parquet  # 10 MB that other dumps need not hold

        for batch in parquet.batches(self.dump.location, self.options.subreddits, self.dump.start, self.dump.stop):
            self.dropped["other_subreddit"] += batch.others
            self.read = batch.last
            for number, record in batch.rows:
                self.asked += 1
                self._wait(number, 0, b"", record)
            self._convert()
            self.row_bytes += batch.size
            yield

    def _take_block(self, block: Block, ends: Lines, search: Search | None) -> None:
        """Parse the block's lines that may be wanted or may be damaged; count all others."""
        data = np.frombuffer(block.buffer, np.uint8, block.size)
        begins = np.concatenate(([0], ends[:-1] + 1))
        filled = begins < ends
        self.dropped["blank"] += len(ends) - int(np.count_nonzero(filled))
        if search:
            odd = _odd(data, begins, ends) & filled
            asked = np.zeros(len(ends), bool)
            asked[search.lines(block.buffer, block.size, ends)] = True
            asked[: max(0, PROBE - self.read)] = True
            asked &= filled
            chosen = np.flatnonzero(odd | asked)
            self.dropped["other_subreddit"] += int(np.count_nonzero(filled)) - len(chosen)
            because = asked[chosen].tolist()
        else:
            chosen = np.flatnonzero(filled)
            because = [True] * len(chosen)
        self.asked += sum(because)
        first = self.read + 1 + (block.origin > 0)  # behind a cut line, which another piece reads
        self.read += len(ends)
        for number, begin, end, asked_for in zip(
            (chosen + first).tolist(), begins[chosen].tolist(), ends[chosen].tolist(), because, strict=True
        ):
            self._take(number, block.offset + begin, bytes(block.buffer[begin:end]), asked_for)

    def _take(self, number: int, offset: int, line: bytes, asked: bool) -> None:
        """Parse one line, or say why not."""
        try:
            record = parse(line)
        except ValueError:
            if line.strip():
                self.asked_bad += asked
                self._bad(number, offset, line, "malformed", "not a JSON object")
            else:
                self.asked -= asked
                self.dropped["blank"] += 1
            return
        self._wait(number, offset, line, record)

    def _wait(self, number: int, offset: int, line: bytes, record: dict[str, Any]) -> None:
        """Keep what is needed of a record: holding whole ones costs more than parsing them."""
        waiting = self.waiting
        waiting.records.append(tuple(map(record.get, self._fields)))
        waiting.lines.append((number, offset, line))
        waiting.size += len(line)
        if len(waiting.records) >= BATCH_ROWS or waiting.size >= BATCH_BYTES:
            self._convert()

    def _convert(self) -> None:
        """Rows of what waits: of the wanted communities, the incomplete ones to quarantine."""
        waiting, self.waiting = self.waiting, Parsed()
        if not waiting.records:
            return
        given = _by_field(self.dump.kind, waiting.records)
        self._check_kind(given, waiting)
        self.seen.update(_names(given["subreddit"]))
        if wanted := self.options.subreddits:
            # Lines without a name pass here and are found incomplete.
            kept = [name is None or str(name).lower() in wanted for name in given["subreddit"]]
            self.dropped["other_subreddit"] += len(kept) - sum(kept)
            waiting.records, waiting.lines = list(compress(waiting.records, kept)), list(compress(waiting.lines, kept))
            given = _by_field(self.dump.kind, waiting.records)
        if not waiting.records:
            return
        table, missing = convert(self.dump.kind, given)
        for place, name in missing.items():
            number, offset, line = waiting.lines[place]
            self.asked_bad += 1
            self._bad(number, offset, line or _shown(self.dump.kind, waiting.records[place]), "incomplete", name)
        self.tables.append(table)
        self.rows += table.num_rows
        self.row_bytes += sum(len(line) for _, _, line in waiting.lines)

    def table(self) -> pa.Table:
        """The rows held, as a table; forgets them."""
        self._convert()
        table = pa.concat_tables(self.tables) if self.tables else table_of([])
        self.tables, self.rows, self.row_bytes = [], 0, 0
        return table

    def finish(self) -> pa.Table:
        """Check the file as a whole, write its quarantine and give its tallies."""
        self._check_share()
        tallies = [{"kind": self.dump.kind, "dropped": reason, "count": n} for reason, n in self.dropped.items() if n]
        seen = [{"kind": SEEN, "id": self.dump.kind, "subreddit": name, "count": n} for name, n in self.seen.items()]
        self.quarantine.write()
        return tallies_of(tallies + seen)

    def _check_kind(self, given: dict[str, tuple[Any, ...]], waiting: Parsed) -> None:
        """A dump given as the other kind is refused at its first row."""
        titles, bodies, links = given["title"], given["body"], given["link_id"]
        if self.dump.kind == COMMENT and None not in bodies and None not in links:
            return
        if self.dump.kind == POST and bodies.count(None) == len(bodies):
            return
        for (number, _, _), title, body, link in zip(waiting.lines, titles, bodies, links, strict=True):
            replies = body is not None and link is not None
            looks_like = COMMENT if replies else POST if title is not None else self.dump.kind
            if looks_like != self.dump.kind:
                line = self.quarantine.named(number)
                raise DataError(
                    f"{self.dump.location}: {line} is a {looks_like}, but the file was given under"
                    f" corpus.{self.dump.kind}s; give it under corpus.{looks_like}s"
                )

    def _check_share(self) -> None:
        bad = self.dropped["malformed"] + self.dropped["incomplete"]
        share, total = self.options.max_malformed_share, self.read - self.dropped["blank"]
        if bad > share * total or self.asked_bad > share * self.asked:
            some = (bad, total) if bad > share * total else (self.asked_bad, self.asked)
            raise DataError(
                f"{self.dump.location}: {some[0]:,} of {some[1]:,} lines are no JSON or lack a field, more than"
                f" corpus.max_malformed_share={share:g}; the first is {self.quarantine.named(self.quarantine.first)}"
            )

    def _bad(self, number: int, offset: int, line: bytes, reason: str, detail: str) -> None:
        self.dropped[reason] += 1
        self.quarantine.add(number, offset, line, reason, detail)
        if self.quarantine.full:
            if self.dropped["malformed"] + self.dropped["incomplete"] >= HOPELESS:
                self._check_share()
            self.quarantine.write()


def parse(line: bytes) -> dict[str, Any]:
    """The line's object by orjson, else by json (lone surrogates); raises ValueError."""
    try:
        record = orjson.loads(line)
    except orjson.JSONDecodeError:
        try:
            record = json.loads(line)
        except RecursionError:
            raise ValueError("nested too deeply") from None
    if not isinstance(record, dict):
        raise ValueError("not an object")
    return record


def _odd(data: np.ndarray, begins: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """Lines that do not begin with ``{`` and end with ``}``."""
    last = data[ends - 1]
    returns = np.flatnonzero(last == 13)
    last[returns] = data[ends[returns] - 2]
    odd: np.ndarray = (data[begins] != ord("{")) | (last != ord("}"))
    return odd


def _by_field(kind: str, records: list[tuple[Any, ...]]) -> dict[str, tuple[Any, ...]]:
    names = READ[kind]
    return dict(zip(names, zip(*records, strict=True) if records else ((),) * len(names), strict=True))


def _shown(kind: str, record: tuple[Any, ...]) -> bytes:
    """A record that was no line, for quarantine."""
    return orjson.dumps(dict(zip(READ[kind], record, strict=True)), default=str)


def _names(values: tuple[Any, ...]) -> Iterator[str]:
    """Communities' names, those of rows without one left out."""
    return (
        value if type(value) is str and value.isascii() else str(fields.name_of(value)) for value in values if value
    )
