"""The replies of a table of threads as columns, and every two of them that stand under one post.

A position is an index into ``pyarrow.compute.list_flatten(threads["comments"])``, so that
whatever a rule chose is taken from the table by Arrow. Nothing here loops over threads:
the self-join is arithmetic on offsets, in blocks of bounded size.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipelines.pairs.exposure_model import Exposure, logged

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
BLOCK = 1_000_000
"""Couples of replies held at once: about 100 MB while the rules look at them."""


@dataclass(frozen=True)
class Replies:
    """The replies of a table of threads, column by column, in the table's order."""

    posts: Ints
    """Row of the thread in its table."""
    names: Ints
    """Place of the comment's id among all ids of the table, in the order of their bytes: breaks ties."""
    keys: NDArray[np.uint64]
    """Hash of the comment's id (``hashed``)."""
    scores: Ints
    """Net votes."""
    times: Ints
    """Time of posting in seconds since 1970 UTC."""
    lengths: Ints
    """Characters of the text."""
    ranks: Ints
    """Order of arrival among the thread's replies, from 1, by time and then id."""
    sizes: Ints
    """Replies of the thread."""
    post_scores: Ints
    """Net votes of the post; no score counts as 0."""
    adjusted: Floats
    """Log-score less what arrival explains (``Exposure``), in doublings; the log-score itself without a model."""
    lifts: Floats
    """``adjusted`` less its median in the thread (the mean of the two middle ones where they are even)."""
    order: Ints
    """Positions sorted by thread, then arrival."""
    rows: int
    """Threads of the table."""

    @classmethod
    def of(cls, threads: pa.Table, exposure: Exposure | None = None) -> Self:
        """From a table with the columns of THREAD ``score`` and ``comments``; the posts' words are not read."""
        comments = threads["comments"].combine_chunks()
        flat = pc.list_flatten(comments)
        posts = pc.list_parent_indices(comments).to_numpy().astype(np.int64)
        post_scores = pc.fill_null(threads["score"], 0).to_numpy().astype(np.int64)
        rows = pa.table(
            {
                "comment_id": pc.struct_field(flat, "comment_id"),
                "score": pc.struct_field(flat, "score"),
                "created_utc": pc.struct_field(flat, "created_utc"),
                "length": pc.utf8_length(pc.struct_field(flat, "text")),
            }
        )
        return cls.made(rows, posts, post_scores, exposure)

    @classmethod
    def made(cls, rows: pa.Table, posts: Ints, post_scores: Ints, exposure: Exposure | None) -> Self:
        """From a row a reply (comment_id, score, created_utc, length), its post's row and the posts' scores."""
        ids = rows["comment_id"]
        scores, times, lengths = (rows[name].to_numpy().astype(np.int64) for name in ("score", "created_utc", "length"))
        names = np.empty(len(rows), np.int64)
        names[pc.sort_indices(ids).to_numpy()] = np.arange(len(rows))
        order = np.lexsort((names, times, posts))
        counts = np.bincount(posts, minlength=len(post_scores))
        ranks = np.empty(len(rows), np.int64)
        ranks[order] = np.arange(len(rows)) - np.repeat(np.cumsum(counts) - counts, counts) + 1
        sizes = counts[posts]
        adjusted = logged(scores) - (exposure.expected(ranks, sizes) if exposure else 0.0)
        return cls(
            posts=posts,
            names=names,
            keys=hashed(ids),
            scores=scores,
            times=times,
            lengths=lengths,
            ranks=ranks,
            sizes=sizes,
            post_scores=post_scores[posts],
            adjusted=adjusted,
            lifts=adjusted - medians(adjusted, posts),
            order=order,
            rows=len(post_scores),
        )

    def under(self, exposure: Exposure) -> Self:
        """The same replies adjusted by another model."""
        adjusted = logged(self.scores) - exposure.expected(self.ranks, self.sizes)
        return replace(self, adjusted=adjusted, lifts=adjusted - medians(adjusted, self.posts))

    def __len__(self) -> int:
        return len(self.posts)

    def couples(self, least_post_score: int, most_apart: int | None) -> Iterator["Couples"]:
        """Every two replies of one post, once, batch by batch of whole threads.

        Posts below ``least_post_score`` are left out, and replies whose arrival ranks differ by
        more than ``most_apart``. A thread with more couples than BLOCK is a batch of its own.
        """
        order = self.order[self.post_scores[self.order] >= least_post_score]
        later = self.sizes[order] - self.ranks[order]
        partners = later if most_apart is None else np.minimum(later, most_apart)
        starts = np.flatnonzero(self.ranks[order] == 1)
        ends = np.append(starts[1:], len(order))
        through = np.append(0, np.cumsum(partners))
        batch = 0
        while batch < len(starts):
            stop = int(np.searchsorted(through[ends], through[starts[batch]] + BLOCK, side="right"))
            stop = max(stop, batch + 1)
            rows = slice(int(starts[batch]), int(ends[stop - 1]))
            yield Couples(order, rows, partners, through)
            batch = stop


@dataclass(frozen=True)
class Couples:
    """The couples of a batch of whole threads."""

    order: Ints
    rows: slice
    """Rows of ``order`` that make the batch."""
    partners: Ints
    """By row of ``order``: how many of the following rows it is joined to."""
    through: Ints
    """Couples before each row."""

    def blocks(self) -> Iterator[tuple[Ints, Ints]]:
        """(first, second) positions of at most BLOCK couples (or of one reply); the first arrived no later."""
        row = self.rows.start
        while row < self.rows.stop:
            stop = int(np.searchsorted(self.through, self.through[row] + BLOCK, side="right")) - 1
            stop = min(max(stop, row + 1), self.rows.stop)
            counts = self.partners[row:stop]
            first = np.repeat(np.arange(row, stop), counts)
            apart = np.arange(len(first)) - np.repeat(np.cumsum(counts) - counts, counts) + 1
            yield self.order[first], self.order[first + apart]
            row = stop


def medians(values: Floats, posts: Ints) -> Floats:
    """The median of the values of each reply's thread, reply by reply."""
    ordered = values[np.lexsort((values, posts))]
    counts = np.bincount(posts)
    starts = np.cumsum(counts) - counts
    low, high = (
        np.minimum(starts + np.maximum(middle, 0), len(ordered) - 1) for middle in ((counts - 1) // 2, counts // 2)
    )
    found: Floats = ((ordered[low] + ordered[high]) / 2)[posts] if len(ordered) else values
    return found


def hashed(ids: pa.Array | pa.ChunkedArray) -> NDArray[np.uint64]:
    """A 64-bit hash of each id (FNV-1a over its bytes, http://www.isthe.com/chongo/tech/comp/fnv), mixed by ``mixed``.

    It depends on nothing but the id, on any machine and in any version.
    """
    values = np.array(ids.cast(pa.binary()).to_pylist(), dtype=bytes)
    columns = values.view(np.uint8).reshape(len(values), -1) if len(values) else np.zeros((0, 1), np.uint8)
    found = np.full(len(values), 0xCBF29CE484222325, np.uint64)
    for column in columns.T:
        step = (found ^ column.astype(np.uint64)) * np.uint64(0x100000001B3)
        found = np.where(column > 0, step, found)
    return mixed(found)


def mixed(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The finaliser of splitmix64 (Steele, Lea and Flood 2014): every bit depends on every bit."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def drawn(chosen: NDArray[np.uint64], rejected: NDArray[np.uint64]) -> Floats:
    """A number in [0, 1) for each pair of hashes: mixed(mixed(chosen) + rejected) / 2^64, to 53 bits."""
    return (mixed(mixed(chosen) + rejected) >> np.uint64(11)).astype(np.float64) / 2**53
