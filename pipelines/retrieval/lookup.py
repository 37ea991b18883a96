"""Looking up similar posts with well-received replies, for a prompt.

    lookup = open_lookup(layout.retrieval, settings.retrieval)
    examples = lookup.similar([Query(whole_post(title, text))])[0]
    prompt = messages(template, post, draft, [example.slot() for example in examples])

Never found are the post itself, other posts of its author, a reply that its author wrote,
and posts that say nearly the same; and nothing outside the training split, since the
index holds nothing else. The service bounds examples in tokens by giving ``size`` and
``room``; training prompts are bounded in words by ``retrieval.max_words``.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

from configs.errors import DataError
from configs.retrieval import LEXICAL, EmbedderSettings, RetrievalSettings
from pipelines import manifest
from pipelines.retrieval import embed, store
from pipelines.retrieval.embed import Embedder, Vectors
from pipelines.retrieval.posts import text_key
from pipelines.retrieval.schema import ENTRIES
from pipelines.retrieval.search import open_search

INDEX, DESCRIPTION = "index", "index.json"
"""The folder of the tables and the file that says what they are, below the stage's output."""
COMMAND = "llumi index CONFIG"
SPARE = 12
"""Hits asked for beyond three an example, for those that may not be shown."""
COLUMNS = ("post_id", "author_hash", "text_key", "post", "replies")


class Query(NamedTuple):
    """A post that asks for examples; the service knows neither id nor author."""

    text: str
    """Title and text, as ``whole_post`` puts them together."""
    post_id: str | None = None
    author_hash: str | None = None


@dataclass(frozen=True)
class Example:
    """A similar post with a well-received reply, and whose words they are."""

    post_id: str
    post_author_hash: str | None
    comment_id: str
    reply_author_hash: str | None
    post: str
    reply: str
    score: int
    similarity: float

    def slot(self) -> dict[str, str]:
        """What the prompt's example slot takes."""
        return {"post": self.post, "reply": self.reply}

    def row(self) -> dict[str, Any]:
        """As a value of schema.EXAMPLE."""
        return asdict(self)


@dataclass(frozen=True)
class Description:
    """What an index was made with."""

    embedder: str
    """Fingerprint of the embedder."""
    model: str
    """``lexical`` or the name of the model's folder, to be read by people."""
    dimensions: int
    search: Mapping[str, Any]
    """``kind`` exact, or ivf_flat with its cells, probes and measured recall."""

    @classmethod
    def of(cls, folder: Path, settings: EmbedderSettings, search: Mapping[str, Any]) -> "Description":
        """Of the index in ``folder``, made by this embedder."""
        model = settings.model if settings.model == LEXICAL else Path(settings.model).name
        column = store.connect(folder / INDEX).open_table(ENTRIES).schema.field("vector")
        return cls(embed.fingerprint(settings), model, column.type.list_size, search)

    def write(self, folder: Path) -> None:
        """Write it beside the index."""
        (folder / DESCRIPTION).write_text(json.dumps(asdict(self), indent=1), encoding="utf-8")


def described(folder: Path) -> Description | None:
    """The description of the index in ``folder``, None where there is none that this version reads."""
    try:
        return Description(**json.loads((folder / DESCRIPTION).read_bytes()))
    except (OSError, ValueError, TypeError):
        return None


def open_lookup(folder: Path, settings: RetrievalSettings, *, gpu: bool = False) -> "Lookup":
    """The finished index in ``folder`` with its embedder, ready for queries.

    Raises StageOrderError where there is no complete index, DataError where it was made with another
    embedder than the settings name, ModelNotFound where that is not there.
    """
    manifest.require(folder, COMMAND)
    made, wanted = described(folder), embed.fingerprint(settings.embedder)
    if made is None or made.embedder != wanted:
        what = "cannot be read" if made is None else f"was made with another embedder ({made.model})"
        raise DataError(
            f"{folder} {what}; run `{COMMAND}` again, or set retrieval.embedder back to what it was made with"
        )
    return Lookup(folder, settings, embed.load(settings.embedder, gpu=gpu))


class Lookup:
    """Examples for posts, from the index in ``folder``."""

    def __init__(self, folder: Path, settings: RetrievalSettings, embedder: Embedder | None = None):
        made = described(folder)
        if made is None:
            raise DataError(f"{folder} holds no index of this version; run `{COMMAND}`")
        self.settings = settings
        self.embedder = embedder
        self.entries = store.connect(folder / INDEX).open_table(ENTRIES)
        self.size = self.entries.count_rows()
        self.search = open_search(folder / INDEX, made.search.get("probes"))

    def similar(
        self,
        queries: Sequence[Query],
        vectors: Vectors | None = None,
        *,
        most: int | None = None,
        size: "Callable[[str], int]" = lambda text: len(text.split()),
        room: int | None = None,
    ) -> list[list[Example]]:
        """At most ``most`` (default: ``retrieval.examples``) examples for each query, most similar first.

        ``vectors`` are the queries' own, n x d, where they are known already. All examples of a query
        together have at most ``room`` (default: ``retrieval.max_words``) by ``size``, default words.
        """
        most = self.settings.examples if most is None else most
        room = self.settings.max_words if room is None else room
        if vectors is None:
            if self.embedder is None:
                raise ValueError("without an embedder the queries' vectors have to be given")
            vectors = self.embedder.encode([query.text for query in queries])
        found = self._allowed(queries, vectors, most)
        return [within(examples, most, size, room) for examples in found]

    def _allowed(self, queries: Sequence[Query], vectors: Vectors, most: int) -> list[list[Example]]:
        """The examples that may be shown; where too many nearest posts may not, more are asked for."""
        found: list[list[Example]] = [[] for _ in queries]
        left = list(range(len(queries))) if most and self.size else []
        k = 3 * most + SPARE
        while left:
            hits = self.search.nearest(vectors[left], k)
            hits = [[hit for hit in some if hit[1] >= self.settings.min_similarity] for some in hits]
            rows = self._rows({post_id for some in hits for post_id, _ in some})
            again = []
            for at, some in zip(left, hits, strict=True):
                found[at] = self._of(queries[at], some, rows)
                if len(found[at]) < most and len(some) == k < self.size:
                    again.append(at)
            left, k = again, 4 * k
        return found

    def _rows(self, ids: set[str]) -> dict[str, dict[str, Any]]:
        rows = store.look_up(self.entries, "post_id", list(ids), COLUMNS) if ids else None
        return {row["post_id"]: row for row in rows.to_pylist()} if rows else {}

    def _of(self, query: Query, hits: Sequence[tuple[str, float]], rows: Mapping[str, Any]) -> list[Example]:
        same = text_key(query.text)
        examples = []
        for post_id, similarity in hits:
            row = rows[post_id]
            itself = post_id == query.post_id or row["text_key"] == same or similarity > self.settings.max_similarity
            if itself or by(query.author_hash, row["author_hash"]):
                continue
            reply = next((r for r in row["replies"] if not by(query.author_hash, r["author_hash"])), None)
            if reply is not None:
                examples.append(
                    Example(
                        post_id=post_id,
                        post_author_hash=row["author_hash"],
                        comment_id=reply["comment_id"],
                        reply_author_hash=reply["author_hash"],
                        post=row["post"],
                        reply=reply["text"],
                        score=reply["score"],
                        similarity=similarity,
                    )
                )
        return examples


def by(author: str | None, other: str | None) -> bool:
    """Whether both are known and the same."""
    return author is not None and author == other


def within(examples: Sequence[Example], most: int, size: Callable[[str], int], room: int) -> list[Example]:
    """The first ``most`` examples that fit into ``room`` together; one that does not fit makes place for the next."""
    taken: list[Example] = []
    for example in examples:
        if len(taken) == most:
            break
        needed = size(example.post) + size(example.reply)
        if needed <= room:
            taken.append(example)
            room -= needed
    return taken
