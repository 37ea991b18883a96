"""Repeated texts over the whole corpus, exact and near, decided on small rows of keys.

    rows -> keys -> [shuffle by key] -> verdicts -> [with the rows, shuffle by post] -> carry_out

Equal texts lie in different files and threads, so they meet only where rows come together
by their text. Texts are long and most are unique, so not they are shuffled but KEY rows:
one hash of the normalised text a row, and for texts long enough one hash a band of their
MinHash signature (Broder 1997; banding as in Leskovec, Rajaraman & Ullman, Mining of
Massive Datasets, 3.4). Whoever shares a key is a candidate only; the signature that
travels along decides, so that a shared band alone drops nothing.

The earliest row of a key stays. Which rows share a key depends on their texts alone, so
the verdicts are the same under any partitioning and any order of rows. What this does not
do: follow chains (a copy of a copy that is no copy of the first stays), and compare more
than ``LEADERS`` distinct texts of one key, so that no key costs the square of its size.
"""

from collections.abc import Callable

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from configs.corpus import CleaningSettings
from pipelines.corpus.cleaning import discard, is_kind, none, whole_text
from pipelines.corpus.minhash import GOLDEN, band_keys, compact, sign, similarity
from pipelines.corpus.schema import COMMENT, KEY, POST, ROW
from pipelines.grouping import grouped

LEADERS = 32
"""Distinct texts of one key that the others are compared with."""


def keys(rows: pa.Table, settings: CleaningSettings) -> pa.Table:
    """KEY rows of the living rows of ROW: one of the exact text, ``near_duplicate_bands`` more for long texts."""
    alive = pc.and_(pc.is_null(rows["dropped"]), pc.or_(is_kind(rows, POST), is_kind(rows, COMMENT)))
    live = rows.filter(alive)
    texts = normalised(live)
    parts = [KEY.empty_table()]
    if settings.drop_duplicate:
        key, check = (texts.hash(seed).to_numpy() ^ _salt(live["kind"]) for seed in (1, 2))
        every = np.arange(len(key))
        parts.append(_key_rows(live, every, key, check.view(np.uint8).reshape(-1, 8), near=False))
    if settings.drop_near_duplicate:
        words = texts.str.split(" ")
        long = np.flatnonzero(words.list.len().to_numpy() >= settings.near_duplicate_min_words)
        slots = sign(words.gather(long))
        bands = band_keys(slots, settings.near_duplicate_bands) ^ _salt(live["kind"].take(pa.array(long)))[:, None]
        again = np.repeat(long, settings.near_duplicate_bands)
        signatures = np.repeat(compact(slots), settings.near_duplicate_bands, axis=0)
        parts.append(_key_rows(live, again, bands.ravel(), signatures, near=True))
    return pa.concat_tables(parts)


def verdicts(table: pa.Table, settings: CleaningSettings) -> pa.Table:
    """What a partition of KEY by ``key`` says of its rows: a row of ROW with ``count`` 0 for each that repeats another.

    ``dropped`` is ``duplicate`` or ``near_duplicate``; a row may be named by several
    partitions, and under both reasons. Verdicts tell of rows and are none, hence the 0.
    """
    found = []
    for reason, near, agree in (
        ("duplicate", False, equal),
        ("near_duplicate", True, _at_least(settings.near_duplicate_similarity)),
    ):
        candidates = sharing(table.filter(pc.equal(table["near"], near)))
        again = candidates.filter(pa.array(repeats(candidates, agree)))
        named = grouped(again, ["kind", "id", "post_id"]).aggregate([])
        columns = {name: pa.nulls(named.num_rows, ROW.field(name).type) for name in ROW.names}
        columns |= {name: named[name] for name in named.column_names}
        columns["dropped"] = pa.repeat(pa.scalar(reason, pa.string()), named.num_rows)
        columns["count"] = pa.repeat(pa.scalar(0, pa.int64()), named.num_rows)
        found.append(pa.table(columns, schema=ROW))
    return pa.concat_tables(found)


def is_verdict(table: pa.Table) -> pa.ChunkedArray:
    """Rows of ROW that came from ``verdicts``."""
    return pc.and_(pc.equal(table["count"], 0), pc.is_valid(table["dropped"]))


def carry_out(table: pa.Table) -> pa.Table:
    """A table of ROW with its verdicts carried out and gone: the living rows they name are dropped.

    Wants rows and verdicts of one post in one table. An exact repetition is called so even
    where it is found to be a near one, too.
    """
    judged = is_verdict(table)
    named, rows = table.filter(judged), table.filter(pc.invert(judged))
    alive = pc.is_null(rows["dropped"])
    parts, live = [rows.filter(pc.invert(alive))], rows.filter(alive)
    for reason in ("duplicate", "near_duplicate"):
        hit = none(live)
        for kind in (POST, COMMENT):
            ids = named.filter(pc.and_(pc.equal(named["dropped"], reason), is_kind(named, kind)))["id"]
            hit = pc.or_(hit, pc.and_(is_kind(live, kind), pc.is_in(live["id"], value_set=ids.combine_chunks())))
        parts.append(discard(live.filter(hit), reason))
        live = live.filter(pc.invert(hit))
    return pa.concat_tables([*parts, live])


def normalised(rows: pa.Table) -> pl.Series:
    """Texts in lower case, one space between words, no punctuation; texts without a word stay as they are."""
    text = pl.Series(whole_text(rows))
    words = text.str.to_lowercase().str.replace_all(r"[\W_]+", " ").str.strip_chars(" ")
    return words.zip_with(words != "", text)


def equal(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Whether the rows of two arrays are equal (n,)."""
    return (one == other).all(axis=1)


def sharing(table: pa.Table) -> pa.Table:
    """The rows of KEY whose key another row has, too, by key, then time, then id."""
    key = table["key"].to_numpy()
    order = np.argsort(key, kind="stable")
    same = key[order][1:] == key[order][:-1]
    shared = np.concatenate([same, [False]]) | np.concatenate([[False], same]) if len(key) else same
    by = [("key", "ascending"), ("created_utc", "ascending"), ("id", "ascending")]
    return table.take(pa.array(order[shared], pa.int64())).sort_by(by)


def repeats(table: pa.Table, agree: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> np.ndarray:
    """True for each row of a sorted table of KEY that agrees with an earlier distinct one of its key (n,).

    In each round the first row of every key that is still in question is compared with
    the others of its key, all keys at once; a row read twice does not repeat itself.
    """
    again = np.zeros(table.num_rows, bool)
    if not table.num_rows:
        return again
    key, identity = table["key"].to_numpy(), _codes(table)
    signatures = np.frombuffer(b"".join(table["signature"].to_pylist()), np.uint8).reshape(table.num_rows, -1)
    open_ = np.arange(table.num_rows)
    for _ in range(LEADERS):
        first = np.concatenate([[True], key[open_][1:] != key[open_][:-1]])
        leader = open_[np.flatnonzero(first)[np.cumsum(first) - 1]]
        alike = agree(signatures[open_], signatures[leader])
        itself = identity[open_] == identity[leader]
        again[open_[alike & ~itself]] = True
        open_ = open_[~(alike | itself)]
        if not len(open_):
            break
    return again


def _at_least(least: float) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    return lambda one, other: similarity(one, other) >= least


def _codes(table: pa.Table) -> np.ndarray:
    names = pc.binary_join_element_wise(table["kind"], table["id"], "/")
    return names.combine_chunks().dictionary_encode().indices.to_numpy()


def _key_rows(live: pa.Table, which: np.ndarray, key: np.ndarray, signature: np.ndarray, near: bool) -> pa.Table:
    """KEY rows of the rows at ``which``, with a key and the bytes of a signature each."""
    rows = live.select(["kind", "id", "post_id", "created_utc"]).take(pa.array(which, pa.int64()))
    size = signature.shape[1]
    ends = pa.py_buffer(np.arange(0, (len(which) + 1) * size, size, dtype=np.int32))
    data = pa.py_buffer(np.ascontiguousarray(signature))
    columns = {name: rows[name] for name in rows.column_names} | {
        "key": pa.array(key, pa.uint64()),
        "near": pa.repeat(pa.scalar(near), len(which)),
        "signature": pa.Array.from_buffers(pa.binary(), len(which), [None, ends, data]),
    }
    return pa.table([columns[name] for name in KEY.names], schema=KEY)


def _salt(kinds: pa.ChunkedArray) -> np.ndarray:
    """A number of each row's kind (uint64): posts repeat posts, comments comments."""
    return pc.equal(kinds, POST).to_numpy().astype(np.uint64) * GOLDEN


def repeated(column: pa.ChunkedArray) -> np.ndarray:
    """True where a sorted column's value equals the one before it."""
    if len(column) == 0:
        return np.zeros(0, dtype=bool)
    values = column.combine_chunks()
    same = pc.equal(values.slice(1), values.slice(0, len(values) - 1))
    return np.concatenate([[False], pc.fill_null(same, False).to_numpy(zero_copy_only=False)])
