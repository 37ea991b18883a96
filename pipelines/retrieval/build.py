"""From threads to the index of similar posts and the examples of every prompt, on Ray Data.

    threads -> posts -> embed (actors) -> index    LanceDB, written by this process as rows arrive
    threads -> look up (actors) -> examples        Parquet, where retrieval.examples asks for them

An index that is there already and was made by the same embedder lends its vectors to texts
that have not changed, so a rebuild embeds new posts only; everything else is made again,
so that posts, replies and settings that went away leave nothing behind.
"""

import logging
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import ray.data

from configs.errors import DataError
from configs.load import to_yaml
from configs.retrieval import EmbedderSettings, RetrievalSettings
from configs.settings import Settings
from pipelines import manifest, pools
from pipelines.card import card_of
from pipelines.corpus.failures import plain_errors
from pipelines.corpus.notes import Account, collect, record_rows
from pipelines.corpus.schema import NOTE
from pipelines.manifest import Draft, Input, Manifest, fingerprints, writing
from pipelines.retrieval import embed, examples, store
from pipelines.retrieval.lookup import INDEX, Description, described
from pipelines.retrieval.posts import posts
from pipelines.retrieval.schema import ENTRIES, QUERIES, entry, query
from pipelines.retrieval.search import build_approximate
from pipelines.retrieval.vectors import POSTS_AT_ONCE, Embedding, actors, gpus

STAGE = "retrieval"
UNRELATED = {"index", "embedder", "actors", "gpus_per_actor"}
"""Settings that the output does not depend on; the embedder counts by its fingerprint."""
log = logging.getLogger("llumi.retrieval")


def depends(settings: Settings) -> dict[str, Any]:
    """The settings that the index depends on, the embedder by what it computes and not by where it lies.

    Raises ModelNotFound where ``retrieval.embedder.model`` is no sentence-transformers model.
    """
    part = settings.retrieval
    return part.model_dump(mode="json", exclude=UNRELATED) | {"embedder": embed.fingerprint(part.embedder)}


def build(settings: Settings, inputs: Mapping[str, Input], output: Path) -> Manifest:
    """The index of the ``threads`` of ``inputs`` in ``index/``, and ``examples/*.parquet`` of EXAMPLES.

    Raises ModelNotFound for the embedder, DataError where no post of the training split has a
    well-received reply.
    """
    threads, part = Path(str(inputs["threads"])), settings.retrieval
    with writing(
        output,
        stage=STAGE,
        settings=depends(settings),
        inputs=fingerprints(inputs),
        resolved=to_yaml(settings),
        card=card_of(settings, inputs),
    ) as draft:
        folder = draft.path.resolve()
        with plain_errors():
            labels = pools.selector(settings, "training")
            account = write_index(threads, part, folder, lender(output, part.embedder), labels)
            search = describe(part, folder, account)
            if part.examples:
                account |= find_examples(threads, part, folder)
        for kind in ("entries", "replies", *(["prompts"] if part.examples else [])):
            record_rows(draft, kind, account[kind])
        record_figures(draft, account, search)
    assert draft.manifest is not None
    return draft.manifest


def lender(output: Path, settings: EmbedderSettings) -> Path | None:
    """The index whose vectors can be used again: complete and by the same embedder."""
    made = described(output)
    if made is None or manifest.read(output) is None or made.embedder != embed.fingerprint(settings):
        return None
    return output.resolve() / INDEX


def files_of(threads: Path) -> list[str]:
    """The files of threads."""
    return sorted(str(file) for file in threads.resolve().glob("*.parquet"))


def write_index(
    threads: Path,
    settings: RetrievalSettings,
    folder: Path,
    earlier: Path | None,
    labels: dict[str, str] | None = None,
) -> Account:
    """Write the tables of the index below ``folder``; accounts for every post, reply and vector.

    ``labels`` are those of the nodes that may have GPUs to embed with.
    """
    files = files_of(threads)
    rows = (
        ray.data.read_parquet(files, override_num_blocks=len(files), partitioning=None)
        .map_batches(partial(posts, settings=settings), batch_format="pyarrow", batch_size=None)
        .map_batches(
            Embedding,
            fn_constructor_args=(settings.embedder, earlier, gpus(settings, labels) > 0),
            batch_format="pyarrow",
            batch_size=POSTS_AT_ONCE,
            **actors(settings, labels),
        )
    )
    return stored(rows.iter_batches(batch_size=None, batch_format="pyarrow"), folder / INDEX)


def stored(batches: Iterable[pa.Table], index: Path) -> Account:
    """Write posts with vectors into the tables in ``index`` and add up the notes among them."""
    account: Account = defaultdict(Counter)
    writer = None
    for batch in batches:
        is_note = pc.is_valid(batch["kind"])
        for kind, name, count in zip(*(batch.filter(is_note)[c].to_pylist() for c in NOTE.names), strict=True):
            account[kind][name] += count
        if writer is None:
            dimensions = batch.schema.field("vector").type.list_size
            writer = store.Writer(index, {ENTRIES: entry(dimensions), QUERIES: query(dimensions)})
        made = batch.filter(pc.invert(is_note))
        found = pc.is_valid(made["post"])
        writer.add(ENTRIES, made.filter(found))
        writer.add(QUERIES, made.filter(pc.invert(found)))
    if writer is not None:
        writer.close()
    return account


def describe(settings: RetrievalSettings, folder: Path, account: Account) -> dict[str, Any]:
    """Make the approximate index where there are posts enough for one, and write what the index is."""
    entries = account["entries"][None]
    if not entries:
        raise DataError(
            f"no post of the training split has a reply with a score of {settings.min_score} and at most"
            f" {settings.max_reply_words} words; lower retrieval.min_score, raise retrieval.max_reply_words,"
            " or read more dumps"
        )
    search: dict[str, Any] = {"kind": "exact"}
    if entries > settings.exact_up_to:
        search = build_approximate(folder / INDEX, settings.min_recall)
    log.info("index of %d posts, search %s", entries, search["kind"])
    Description.of(folder, settings.embedder, search).write(folder)
    return search


def find_examples(threads: Path, settings: RetrievalSettings, folder: Path) -> Account:
    """Write the examples of every post below ``folder``; counts the posts with and without."""
    (folder / examples.FOLDER).mkdir()
    files = files_of(threads)
    return collect(
        ray.data.from_items([{"file": file} for file in files], override_num_blocks=len(files)).map_batches(
            examples.Finder,
            fn_constructor_args=(folder, settings),
            batch_format="pyarrow",
            batch_size=1,
            compute=ray.data.ActorPoolStrategy(size=min(settings.actors, len(files))),
            num_cpus=1,
        )
    )


def record_figures(draft: Draft, account: Account, search: Mapping[str, Any]) -> None:
    """What a reader of the manifest wants to know about the index."""
    vectors = account["vectors"]
    draft.figures |= {
        "search": dict(search),
        "vectors": {"lent": vectors["lent"], "embedded": vectors["embedded"]},
        "similarity_of_examples": {str(bin): n for bin, n in sorted(account["similarity"].items(), key=str)},
    }
    draft.notes.append(
        "Examples are found by the likeness of posts; their replies are well received, which votes show, and not"
        " judged to be good help."
    )
