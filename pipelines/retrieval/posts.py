"""Which posts may be found and with which replies: from THREAD to POST.

A post enters the index when it is of the training split and has a reply that was well
received, is short enough to be shown, and is not the poster's own. Posts outside the
training split never leave this step with words, so no later step can show them.
"""

import re
from hashlib import blake2b

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from configs.prompts import whole_post
from configs.retrieval import RetrievalSettings
from pipelines.corpus.notes import Notes
from pipelines.retrieval.schema import POST, POST_OR_NOTE, REPLY


def posts(threads: pa.Table, settings: RetrievalSettings) -> pa.Table:
    """A table of THREAD as POST_OR_NOTE.

    Posts that cannot be found are kept, without words, where ``settings.examples`` asks for
    examples for them; the notes ``entries`` and ``replies`` say what became of each.
    """
    notes = Notes()
    threads = threads.combine_chunks()
    best = well_received(threads, settings, notes)
    found = pc.greater(pc.list_value_length(best), 0)
    texts = texts_of(threads)
    note_posts(threads, found, notes)
    table = pa.table(
        {
            "post_id": threads["post_id"],
            "author_hash": threads["author_hash"],
            "text_key": pa.array([text_key(text) for text in texts], pa.string()),
            "text": pa.array(texts, pa.string()),
            "subreddit": threads["subreddit"],
            "post": pc.if_else(found, pa.array([shortened(t, settings.max_post_words) for t in texts]), None),
            "replies": pc.if_else(found, best, None),
        }
    ).cast(POST)
    if not settings.examples:
        table = table.filter(found)
    return pa.concat_tables([table, notes.table()], promote_options="default").select(POST_OR_NOTE.names)


def well_received(threads: pa.Table, settings: RetrievalSettings, notes: Notes) -> pa.ListArray:
    """The replies of each thread that examples may show, best score first; none outside the training split."""
    lists = threads["comments"].combine_chunks()
    owners = pc.list_parent_indices(lists).to_numpy()
    replies = pa.Table.from_struct_array(pc.list_flatten(lists)) if len(owners) else _no_replies(lists)
    training = np.asarray(pc.equal(threads["split"], "train"))[owners]
    score = pc.fill_null(replies["score"], np.iinfo(np.int64).min).to_numpy()
    words = pc.count_substring_regex(replies["text"], r"\S+").to_numpy()
    poster = pc.take(threads["author_hash"], pa.array(owners))
    own = pc.fill_null(pc.equal(replies["author_hash"], poster), False).to_numpy()
    reason = np.full(len(owners), "", dtype="U20")
    for name, falls in (
        ("too_long", words > settings.max_reply_words),
        ("score_too_low", score < settings.min_score),
        ("own_reply", own),
        ("not_training", ~training),
    ):
        reason[falls] = name
    liked = np.flatnonzero(reason == "")
    ids = np.array(replies["comment_id"].to_pylist(), dtype=str)[liked]
    liked = liked[np.lexsort((ids, -score[liked], owners[liked]))]
    place = np.arange(len(liked)) - np.searchsorted(owners[liked], owners[liked])
    kept = liked[place < settings.replies_per_post]
    reason[liked[place >= settings.replies_per_post]] = "over_post_cap"
    for name, count in zip(*np.unique(reason, return_counts=True), strict=True):
        notes.add("replies", str(name) or None, int(count))
    offsets = np.searchsorted(owners[kept], np.arange(threads.num_rows + 1))
    chosen = replies.take(pa.array(kept)).select([field.name for field in REPLY])
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), chosen.to_struct_array().combine_chunks())


def _no_replies(lists: pa.ListArray) -> pa.Table:
    return pa.Table.from_pylist([], schema=pa.schema(list(lists.type.value_type)))


def note_posts(threads: pa.Table, found: pa.ChunkedArray, notes: Notes) -> None:
    """Count the posts that may be found, and why the others may not."""
    training, any_reply = pc.equal(threads["split"], "train"), pc.greater(pc.list_value_length(threads["comments"]), 0)
    ends = (
        (None, found),
        ("not_training", pc.invert(training)),
        ("no_reply", pc.and_(training, pc.invert(any_reply))),
        ("no_well_received_reply", pc.and_(pc.and_(training, any_reply), pc.invert(found))),
    )
    for name, mask in ends:
        notes.add("entries", name, pc.sum(mask).as_py() or 0)


def texts_of(threads: pa.Table) -> list[str]:
    """What is embedded: title and text of each post, as prompts show it."""
    titles, texts = threads["title"].to_pylist(), threads["text"].to_pylist()
    return [whole_post(title or "", text or "") for title, text in zip(titles, texts, strict=True)]


def text_key(text: str) -> str:
    """Equal for texts that get equal vectors: 128-bit blake2b (hex)."""
    return blake2b(text.encode(), digest_size=16).hexdigest()


def shortened(text: str, words: int) -> str:
    """The first ``words`` words of the text, with an ellipsis where more followed."""
    start = re.match(rf"\s*(?:\S+\s+){{0,{words - 1}}}\S+", text)
    if start is None or not text[start.end() :].strip():
        return text
    return f"{start.group()} …"
