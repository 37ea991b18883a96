"""The examples of each post's prompts: found once in the retrieval stage, read wherever rows are made.

    for thread, retrieved in zip(rows, examples_for(threads, folder), strict=True):
        prompt = messages(template, post, draft, retrieved.examples)
        row = {..., "example_ids": retrieved.ids}

The stage has every post's vector at hand, so it looks all of them up while it has the
index open; the tasks that make SFT rows and pairs then need neither embedder nor index.
"""

from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from configs.retrieval import RetrievalSettings
from pipelines.corpus.notes import Notes
from pipelines.corpus.schema import NOTE
from pipelines.retrieval import store
from pipelines.retrieval.embed import Vectors
from pipelines.retrieval.lookup import INDEX, Lookup, Query
from pipelines.retrieval.posts import text_key, texts_of
from pipelines.retrieval.schema import ENTRIES, EXAMPLES, QUERIES
from pipelines.retrieval.search import matrix

FOLDER = "examples"
"""Below the stage's output: Parquet of EXAMPLES."""
AT_ONCE = 1024
"""Posts looked up together."""


class Retrieved(NamedTuple):
    """What goes into the prompts of one post."""

    examples: list[dict[str, str]]
    """Of keys ``post`` and ``reply``, as ``configs.prompts.messages`` takes them."""
    ids: list[str] | None
    """The comments they show, for the rows' ``example_ids``; None where retrieval is off."""


def examples_for(threads: pa.Table, folder: Path | None, file: Path | None = None) -> list[Retrieved]:
    """What was retrieved for each row of a table of THREAD (only ``post_id`` is read), in its order.

    ``folder`` is the output of the retrieval stage; None where ``retrieval.examples`` is 0. ``file`` is the
    file of threads that the rows come from: without it, every file of examples is searched for them.
    """
    ids = threads["post_id"].to_pylist()
    if folder is None:
        return [Retrieved([], None) for _ in ids]
    found = {row["post_id"]: row["examples"] for row in rows_of(ids, folder / FOLDER, file).to_pylist()}
    return [
        Retrieved(
            [{"post": example["post"], "reply": example["reply"]} for example in found.get(post_id, ())],
            [example["comment_id"] for example in found.get(post_id, ())],
        )
        for post_id in ids
    ]


def rows_of(ids: list[str], folder: Path, file: Path | None) -> pa.Table:
    """The rows of EXAMPLES of these posts."""
    own = [] if file is None else [folder / file.name]
    files = [path for path in own if path.is_file()] or sorted(folder.glob("*.parquet"))
    if not files:
        return EXAMPLES.empty_table()
    dataset = ds.dataset([str(path) for path in files], schema=EXAMPLES, format="parquet")
    return dataset.to_table(filter=ds.field("post_id").isin(ids))


class Finder:
    """Looks up the posts of files of threads in a pool's actor and writes what it found, under the file's name."""

    def __init__(self, folder: Path, settings: RetrievalSettings):
        self.folder = folder
        self.lookup = Lookup(folder, settings)
        database = store.connect(folder / INDEX)
        self.tables = [database.open_table(name) for name in (ENTRIES, QUERIES)]

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Write the rows of EXAMPLES for each ``file``; returns the notes ``prompts`` and ``similarity``."""
        notes = Notes()
        for file in map(Path, batch["file"].to_pylist()):
            with pq.ParquetWriter(self.folder / FOLDER / file.name, EXAMPLES, compression="zstd") as writer:
                for threads in pq.ParquetFile(file).iter_batches(batch_size=AT_ONCE):
                    rows = self.found(pa.Table.from_batches([threads]), notes)
                    writer.write_table(pa.Table.from_pylist(rows, schema=EXAMPLES))
        return notes.table().select(NOTE.names)

    def found(self, threads: pa.Table, notes: Notes) -> list[dict[str, Any]]:
        """The posts that have examples, with them."""
        texts = texts_of(threads)
        ids, authors = threads["post_id"].to_pylist(), threads["author_hash"].to_pylist()
        queries = [Query(*parts) for parts in zip(texts, ids, authors, strict=True)]
        rows = []
        for query, examples in zip(queries, self.lookup.similar(queries, self.vectors(texts)), strict=True):
            notes.add("prompts", None if examples else "nothing_similar")
            for example in examples:
                notes.add("similarity", f"{example.similarity:.1f}")
            if examples:
                found = [example.row() for example in examples]
                rows.append({"post_id": query.post_id, "author_hash": query.author_hash, "examples": found})
        return rows

    def vectors(self, texts: list[str]) -> Vectors:
        """The vectors that the stage gave to these texts."""
        keys = [text_key(text) for text in texts]
        known = pa.concat_tables(store.look_up(t, "text_key", keys, ("text_key", "vector")) for t in self.tables)
        place = {key: row for row, key in enumerate(known["text_key"].to_pylist())}
        return matrix(known["vector"])[[place[key] for key in keys]]
