"""Comments joined to their posts: one row of THREAD a post, after a shuffle by ``post_id``.

A partition holds every row of its posts, so the join is a look-up within one table. Here
fall the comments that only the post can judge: the poster's own, those whose post is in
no dump, and the surplus of very long threads, chosen by a hash of the comment's id so
that neither arrival nor score decides.

Posts are split by author: split by post, half of all test posts have an author who also
posted in the training split.
"""

from hashlib import blake2b

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from configs.corpus import CorpusSettings, SplitSettings
from pipelines.corpus.cleaning import is_kind
from pipelines.corpus.duplicates import repeated
from pipelines.corpus.notes import Notes
from pipelines.corpus.schema import COMMENT, POST, REPLY, SEEN, THREAD, THREAD_OR_NOTE
from pipelines.corpus.scrub import author_hash, scrub

_SPLIT_SALT = b"llumi-split-v1"


def thread(table: pa.Table, settings: CorpusSettings, key: bytes) -> pa.Table:
    """A partition by ``post_id`` of ROW as THREAD_OR_NOTE: its threads, and the fate of every row."""
    notes = Notes()
    alive = pc.is_null(table["dropped"])
    gone, live = table.filter(pc.invert(alive)), table.filter(alive)
    _note_gone(gone, notes)
    seen = live.filter(is_kind(live, SEEN))
    for kind, name, count in zip(*(seen[c].to_pylist() for c in ("id", "subreddit", "count")), strict=True):
        notes.add(f"seen:{kind}", name, count)
    posts = _once(live.filter(is_kind(live, POST)), POST, notes)
    comments = _once(live.filter(is_kind(live, COMMENT)), COMMENT, notes)
    comments, owners = join(posts, comments, gone.filter(is_kind(gone, POST))["post_id"], notes)
    comments, owners = cap(comments, owners, settings.max_comments_per_post, notes)
    threads = assemble(posts, comments, owners, settings.split, key)
    notes.add(POST, None, posts.num_rows)
    notes.add(COMMENT, None, comments.num_rows)
    _note_figures(threads, notes)
    return pa.concat_tables([threads, notes.table()], promote_options="default").select(THREAD_OR_NOTE.names)


def _note_gone(gone: pa.Table, notes: Notes) -> None:
    counts = gone.group_by(["kind", "dropped"]).aggregate([("count", "sum")])
    for row in counts.to_pylist():
        notes.add(row["kind"], row["dropped"], row["count_sum"])


def _once(rows: pa.Table, kind: str, notes: Notes) -> pa.Table:
    """Each id once: dumps overlap. Of several readings of a row that of the highest score stays."""
    rows = rows.sort_by([("id", "ascending"), ("score", "descending"), ("created_utc", "ascending")])
    again = repeated(rows["id"])
    notes.add(kind, "same_id", int(again.sum()))
    return rows.filter(pa.array(~again))


def join(posts: pa.Table, comments: pa.Table, gone: pa.ChunkedArray, notes: Notes) -> tuple[pa.Table, np.ndarray]:
    """Comments that have their post and are not the poster's, each with its post's position."""
    position = pc.index_in(comments["post_id"], value_set=posts["post_id"].combine_chunks())
    homeless = pc.is_null(position)
    dropped = pc.is_in(comments["post_id"], value_set=gone.combine_chunks())
    lost = pc.sum(pc.and_(homeless, dropped)).as_py() or 0
    notes.add(COMMENT, "post_dropped", lost)
    notes.add(COMMENT, "post_missing", (pc.sum(homeless).as_py() or 0) - lost)
    housed = pc.invert(homeless)
    comments, position = comments.filter(housed), position.filter(housed)
    own = pc.fill_null(pc.equal(comments["author"], pc.take(posts["author"], position)), False)
    notes.add(COMMENT, "own_reply", pc.sum(own).as_py() or 0)
    others = pc.invert(own)
    return comments.filter(others), position.filter(others).to_numpy().astype(np.int64)


def cap(comments: pa.Table, owners: np.ndarray, most: int, notes: Notes) -> tuple[pa.Table, np.ndarray]:
    """At most ``most`` comments a post."""
    sizes = np.bincount(owners) if len(owners) else np.zeros(0, int)
    if sizes.max(initial=0) <= most:
        return comments, owners
    ranks = np.array([_uniform(b"", value) for value in comments["id"].to_pylist()])
    order = np.lexsort((ranks, owners))
    starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    place = np.empty(len(owners), int)
    place[order] = np.arange(len(owners)) - starts[owners[order]]
    kept = place < most
    notes.add(COMMENT, "over_cap", int((~kept).sum()))
    return comments.filter(pa.array(kept)), owners[kept]


def assemble(posts: pa.Table, comments: pa.Table, owners: np.ndarray, split: SplitSettings, key: bytes) -> pa.Table:
    """Scrubbed threads, sorted by post id; comments by time, then id."""
    created = comments["created_utc"].to_numpy().astype(np.int64)
    order = np.lexsort((np.array(comments["id"].to_pylist(), dtype=str), created, owners))
    comments = comments.take(pa.array(order))
    replies = pa.StructArray.from_arrays(
        [
            comments["id"].combine_chunks(),
            pa.array([author_hash(name, key) for name in comments["author"].to_pylist()], pa.string()),
            pa.array([scrub(text) for text in comments["text"].to_pylist()], pa.string()),
            comments["created_utc"].combine_chunks(),
            comments["score"].combine_chunks(),
        ],
        fields=list(REPLY),
    )
    offsets = np.concatenate([[0], np.cumsum(np.bincount(owners, minlength=posts.num_rows))])
    authors, ids = posts["author"].to_pylist(), posts["post_id"].to_pylist()
    columns = {
        "post_id": posts["post_id"],
        "subreddit": posts["subreddit"],
        "author_hash": pa.array([author_hash(name, key) for name in authors], pa.string()),
        "title": pa.array([scrub(text) for text in posts["title"].to_pylist()], pa.string()),
        "text": pa.array([scrub(text) for text in posts["text"].to_pylist()], pa.string()),
        "created_utc": posts["created_utc"],
        "score": posts["score"],
        "split": pa.array(
            [split_of(name or post_id, split) for name, post_id in zip(authors, ids, strict=True)], pa.string()
        ),
        "comments": pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), replies),
    }
    return pa.table(columns, schema=THREAD)


def split_of(name: str, split: SplitSettings) -> str:
    """The split of everything ``name`` posted: an author, or the post's id where the account is gone."""
    place = _uniform(_SPLIT_SALT, name.lower())
    if place < split.train:
        return "train"
    return "validation" if place < split.train + split.validation else "test"


def _uniform(salt: bytes, text: str) -> float:
    """A number in [0, 1) that depends on nothing but the arguments."""
    return int.from_bytes(blake2b(text.encode(), salt=salt, digest_size=8).digest()) / 2**64


def _note_figures(threads: pa.Table, notes: Notes) -> None:
    """What the manifest tells about the threads, in numbers that add up over partitions."""
    sizes = pc.list_value_length(threads["comments"]).to_numpy().astype(np.int64)
    for column in ("split", "subreddit"):
        for name, count in zip(*(threads[column].value_counts().field(i).to_pylist() for i in (0, 1)), strict=True):
            notes.add(f"threads:{column}", name, count)
        totals: dict[str, int] = {}
        for name, count in zip(threads[column].to_pylist(), sizes.tolist(), strict=True):
            totals[name] = totals.get(name, 0) + count
        for name, count in totals.items():
            notes.add(f"comments:{column}", name, count)
    notes.add("threads", "with_comments", int((sizes > 0).sum()))
    replies = pc.list_flatten(threads["comments"])
    owners = pc.list_parent_indices(threads["comments"])
    times = pa.table({"owner": owners, "time": pc.struct_field(replies, "created_utc")})
    together = times.group_by(["owner", "time"]).aggregate([([], "count_all")])["count_all"].to_numpy()
    notes.add("times", "shared", int(together[together > 1].sum()))
    notes.add("times", "all", int(sizes[sizes > 1].sum()))
