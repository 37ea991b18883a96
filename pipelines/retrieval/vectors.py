"""Vectors for posts, in a pool of Ray Data's actors: lent by an earlier index where it knows the text, else made."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from configs.retrieval import LEXICAL, EmbedderSettings, RetrievalSettings
from pipelines import pools
from pipelines.corpus.notes import Notes
from pipelines.retrieval import embed, store
from pipelines.retrieval.embed import Vectors
from pipelines.retrieval.schema import ENTRIES, QUERIES, embedded
from pipelines.retrieval.search import matrix

POSTS_AT_ONCE = 1024
"""Posts an actor embeds at once: sorted by length among themselves, so that little is padded."""


class Embedding:
    """An embedder, and the tables of an index whose vectors may be used again."""

    def __init__(self, settings: EmbedderSettings, earlier: Path | None, gpu: bool):
        self.embedder = embed.load(settings, gpu=gpu)
        self.schema = embedded(self.embedder.dimensions)
        database = store.connect(earlier) if earlier else None
        self.tables = [database.open_table(name) for name in (ENTRIES, QUERIES)] if database else []

    def __call__(self, rows: pa.Table) -> pa.Table:
        """POST_OR_NOTE with vectors; the note ``vectors`` counts those lent and those embedded."""
        is_note = pc.is_valid(rows["kind"])
        made, notes = rows.filter(pc.invert(is_note)), Notes()
        vectors = self.vectors(made["text_key"].to_pylist(), made["text"].to_pylist(), notes)
        flat = pa.array(vectors.reshape(-1), pa.float32())
        column = pa.FixedSizeListArray.from_arrays(flat, self.embedder.dimensions)
        made = made.drop_columns(["text"]).append_column(self.schema.field("vector"), column)
        passed = rows.filter(is_note).drop_columns(["text"])
        whole = pa.concat_tables([made, passed, notes.table()], promote_options="default")
        return whole.select(self.schema.names).cast(self.schema)

    def vectors(self, keys: list[str], texts: list[str], notes: Notes) -> Vectors:
        """One vector a text, n x d; each different text is embedded once."""
        known = self.lent(keys)
        missing = {key: text for key, text in zip(keys, texts, strict=True) if key not in known}
        new = self.embedder.encode(list(missing.values()))
        notes.add("vectors", "lent", sum(key in known for key in keys))
        notes.add("vectors", "embedded", sum(key in missing for key in keys))
        known |= dict(zip(missing, new, strict=True))
        dimensions = self.embedder.dimensions
        return np.stack([known[key] for key in keys]) if keys else np.zeros((0, dimensions), np.float32)

    def lent(self, keys: list[str]) -> dict[str, Any]:
        """The vectors that the earlier index has, by text key."""
        found: dict[str, Any] = {}
        for table in self.tables:
            rows = store.look_up(table, "text_key", keys, ("text_key", "vector"))
            found |= dict(zip(rows["text_key"].to_pylist(), matrix(rows["vector"]), strict=True))
        return found


def actors(settings: RetrievalSettings, labels: dict[str, str] | None = None) -> dict[str, Any]:
    """How Ray Data is asked for the pool of actors; ``labels`` are those of nodes with GPUs."""
    import ray.data

    pool = ray.data.ActorPoolStrategy(size=settings.actors)
    share = gpus(settings, labels)
    return {"compute": pool, "num_cpus": 1, "num_gpus": share or None, "label_selector": labels if share else None}


def gpus(settings: RetrievalSettings, labels: dict[str, str] | None = None) -> float:
    """GPUs an embedding actor asks for, where nodes with these labels have some."""
    if settings.gpus_per_actor is not None:
        return settings.gpus_per_actor
    is_model = settings.embedder.model != LEXICAL
    return 1.0 if is_model and pools.gpus(labels) >= 1 else 0.0
