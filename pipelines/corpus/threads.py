"""Comments joined to their posts: one row of THREAD a post, from a partition by ``post_id``.

A partition holds every row of its posts, so the join is a look-up within one table. Here
fall the rows that repeat others (their verdicts lie in the same partition), the comments
that only the post can judge (the poster's own, those whose post is in no dump) and the
surplus of very long threads.

Of a thread with more comments than ``max_comments_per_post`` those stay whose ids have
the smallest hash. An id says nothing of arrival or votes to a hash, so what stays is a
sample of the thread as it is, early and late, liked and disliked; the first or the best n
would bring in the very confounding that the pair rules are there to take out. It is also
the same sample whatever the order of rows.

Posts are split by author: split by post, half of all test posts have an author who also
posted in the training split.
"""

from collections.abc import Callable
from functools import partial
from hashlib import blake2b

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from configs.corpus import CorpusSettings, SplitSettings
from pipelines.corpus.authors import author_hashes
from pipelines.corpus.cleaning import is_kind
from pipelines.corpus.duplicates import carry_out, repeated
from pipelines.corpus.notes import Notes
from pipelines.corpus.schema import COMMENT, POST, REPLY, THREAD
from pipelines.corpus.scrub import scrub_column
from pipelines.forgetting.kept import NOTHING, REASON, Forgotten
from pipelines.forgetting.match import from_threads
from pipelines.grouping import grouped

Scrub = Callable[[pa.Array], pa.Array]
"""Texts in, as many texts out, in the same order."""
_SPLIT_SALT = b"llumi-split-v1"


def thread(
    table: pa.Table, settings: CorpusSettings, key: bytes, scrub: Scrub | None = None, forgotten: Forgotten = NOTHING
) -> tuple[pa.Table, Notes]:
    """A partition by ``post_id`` of ROW, its verdicts included, as THREAD, and the fate of every row.

    What is forgotten is left out last: it still repeats and is repeated, so that no copy of
    it that was dropped comes back, and threads are those that forgetting leaves in place.
    """
    scrub = scrub or partial(scrub_column, settings=settings.scrub)
    notes = Notes()
    table = carry_out(table)
    alive = pc.is_null(table["dropped"])
    gone, live = table.filter(pc.invert(alive)), table.filter(alive)
    notes.add_gone(gone)
    posts = _once(live.filter(is_kind(live, POST)), POST, notes)
    comments = _once(live.filter(is_kind(live, COMMENT)), COMMENT, notes)
    comments, owners = join(posts, comments, gone.filter(is_kind(gone, POST))["post_id"], notes)
    if settings.cleaning.drop_own_reply:
        comments, owners = others(posts, comments, owners, notes)
    comments, owners = cap(comments, owners, settings.max_comments_per_post, notes)
    left = from_threads(assemble(posts, comments, owners, settings.split, key, scrub), forgotten)
    for kind, rows, taken in ((POST, posts, left.posts), (COMMENT, comments, left.comments)):
        notes.add(kind, REASON, taken)
        notes.add(kind, None, rows.num_rows - taken)
    _note_figures(left.kept, notes)
    return left.kept, notes


def _once(rows: pa.Table, kind: str, notes: Notes) -> pa.Table:
    """Each id once: dumps overlap. Of several readings of a row that of the highest score stays."""
    if pc.count_distinct(rows["id"]).as_py() == rows.num_rows:
        return rows
    ties = [(name, "ascending") for name in ("created_utc", "text", "title", "author", "subreddit", "parent_id")]
    rows = rows.sort_by([("id", "ascending"), ("score", "descending"), *ties])
    again = repeated(rows["id"])
    notes.add(kind, "same_id", int(again.sum()))
    return rows.filter(pa.array(~again))


def join(posts: pa.Table, comments: pa.Table, gone: pa.ChunkedArray, notes: Notes) -> tuple[pa.Table, np.ndarray]:
    """Comments that have their post, each with its post's position."""
    position = pc.index_in(comments["post_id"], value_set=posts["post_id"].combine_chunks())
    homeless = pc.is_null(position)
    dropped = pc.is_in(comments["post_id"].filter(homeless), value_set=gone.combine_chunks())
    lost = pc.sum(dropped).as_py() or 0
    notes.add(COMMENT, "post_dropped", lost)
    notes.add(COMMENT, "post_missing", len(dropped) - lost)
    housed = pc.invert(homeless)
    return comments.filter(housed), position.filter(housed).to_numpy().astype(np.int64)


def others(posts: pa.Table, comments: pa.Table, owners: np.ndarray, notes: Notes) -> tuple[pa.Table, np.ndarray]:
    """Comments that are not the poster's own."""
    own = pc.fill_null(pc.equal(comments["author"], posts["author"].take(pa.array(owners))), False)
    notes.add(COMMENT, "own_reply", pc.sum(own).as_py() or 0)
    kept = pc.invert(own)
    return comments.filter(kept), owners[kept.to_numpy()]


def cap(comments: pa.Table, owners: np.ndarray, most: int, notes: Notes) -> tuple[pa.Table, np.ndarray]:
    """At most ``most`` comments a post: those whose ids have the smallest hash."""
    sizes = np.bincount(owners) if len(owners) else np.zeros(0, int)
    if sizes.max(initial=0) <= most:
        return comments, owners
    over = np.flatnonzero((sizes > most)[owners])
    ranks = np.array([_uniform(b"", value) for value in comments["id"].take(pa.array(over)).to_pylist()])
    crowded = owners[over]
    order = np.lexsort((ranks, crowded))
    first = np.flatnonzero(np.diff(crowded[order], prepend=-1))
    place = np.arange(len(order)) - np.repeat(first, np.diff(first, append=len(order)))
    kept = np.ones(len(owners), bool)
    kept[over[order[place >= most]]] = False
    notes.add(COMMENT, "over_cap", int((~kept).sum()))
    return comments.filter(pa.array(kept)), owners[kept]


def assemble(
    posts: pa.Table, comments: pa.Table, owners: np.ndarray, split: SplitSettings, key: bytes, scrub: Scrub
) -> pa.Table:
    """Scrubbed threads, sorted by post id; comments by time, then id."""
    rank = pc.sort_indices(posts["post_id"]).to_numpy()
    place = np.empty(len(rank), np.int64)
    place[rank] = np.arange(len(rank))
    posts, owners = _whole(posts.take(pa.array(rank))), place[owners]
    order = arrival(comments, owners)
    comments = _whole(comments.take(pa.array(order)))
    replies = pa.StructArray.from_arrays(
        [
            comments["id"],
            author_hashes(comments["author"], key),
            scrub(comments["text"]),
            comments["created_utc"],
            comments["score"],
        ],
        fields=list(REPLY),
    )
    offsets = np.concatenate([[0], np.cumsum(np.bincount(owners, minlength=len(rank)))])
    columns = {
        "post_id": posts["post_id"],
        "subreddit": posts["subreddit"],
        "author_hash": author_hashes(posts["author"], key),
        "title": scrub(posts["title"]),
        "text": scrub(posts["text"]),
        "created_utc": posts["created_utc"],
        "score": posts["score"],
        "split": splits(pc.coalesce(posts["author"], posts["post_id"]), split),
        "comments": pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), replies),
    }
    return pa.table([columns[name] for name in THREAD.names], schema=THREAD)


def arrival(comments: pa.Table, owners: np.ndarray) -> np.ndarray:
    """Positions of the comments by post, then time, then id (n,). Ids are only looked at where times are equal."""
    created = comments["created_utc"].to_numpy()
    order = np.lexsort((created, owners))
    same = (np.diff(owners[order]) == 0) & (np.diff(created[order]) == 0)
    tied = np.flatnonzero(np.concatenate([same, [False]]) | np.concatenate([[False], same]))
    if len(tied):
        among = order[tied]
        ties = pa.table({"owner": owners[among], "time": created[among], "id": comments["id"].take(pa.array(among))})
        by = [("owner", "ascending"), ("time", "ascending"), ("id", "ascending")]
        order[tied] = among[pc.sort_indices(ties, sort_keys=by).to_numpy()]
    return order


def splits(names: pa.Array, split: SplitSettings) -> pa.Array:
    """The split of everything each name posted, worked out once a name."""
    known = names.dictionary_encode()
    return pa.array([split_of(name, split) for name in known.dictionary.to_pylist()], pa.string()).take(known.indices)


def split_of(name: str, split: SplitSettings) -> str:
    """The split of everything ``name`` posted: an author, or the post's id where the account is gone."""
    place = _uniform(_SPLIT_SALT, name.lower())
    if place < split.train:
        return "train"
    return "validation" if place < split.train + split.validation else "test"


def _uniform(salt: bytes, text: str) -> float:
    """A number in [0, 1) that depends on nothing but the arguments."""
    return int.from_bytes(blake2b(text.encode(), salt=salt, digest_size=8).digest()) / 2**64


def _whole(table: pa.Table) -> dict[str, pa.Array]:
    """The columns, each in one piece."""
    return {name: table[name].combine_chunks() for name in table.column_names}


def _note_figures(threads: pa.Table, notes: Notes) -> None:
    """What the manifest tells about the threads, in numbers that add up over partitions."""
    sizes = pc.list_value_length(threads["comments"])
    for column in ("split", "subreddit"):
        counted = grouped(pa.table({"name": threads[column], "comments": sizes}), "name")
        for row in counted.aggregate([("comments", "count"), ("comments", "sum")]).to_pylist():
            notes.add(f"threads:{column}", row["name"], row["comments_count"])
            notes.add(f"comments:{column}", row["name"], row["comments_sum"])
    counts = sizes.to_numpy()
    notes.add("threads", "with_comments", int((counts > 0).sum()))
    times = pc.struct_field(pc.list_flatten(threads["comments"]), "created_utc").to_numpy()
    owners = np.repeat(np.arange(len(counts)), counts)
    same = (np.diff(owners) == 0) & (np.diff(times) == 0)  # comments lie in order of time
    notes.add("times", "shared", int((np.concatenate([same, [False]]) | np.concatenate([[False], same])).sum()))
    notes.add("times", "all", int(counts[counts > 1].sum()))
