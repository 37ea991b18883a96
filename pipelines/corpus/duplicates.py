"""Exact duplicates over the whole corpus, after a shuffle by ``text_key``.

Equal texts lie in different files and threads, so they only meet once rows are
partitioned by the text itself: one more shuffle than threading alone needs, and exact
however large the corpus is. The earliest row stays. Near-duplicates are not looked for.
"""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.corpus.cleaning import discard
from pipelines.corpus.schema import ROW


def drop_duplicates(table: pa.Table) -> pa.Table:
    """A partition by ``text_key`` with all but the earliest living row of each key dropped.

    Rows of equal key and time are told apart by id, so that the choice does not depend on
    the order of arrival.
    """
    alive = pc.is_null(table["dropped"])
    passed, live = table.filter(pc.invert(alive)), table.filter(alive)
    keyed = live.filter(pc.is_valid(live["text_key"]))
    others = live.filter(pc.is_null(live["text_key"]))
    keyed = keyed.sort_by([("text_key", "ascending"), ("created_utc", "ascending"), ("id", "ascending")])
    again = repeated(keyed["text_key"])
    parts = [passed, others, keyed.filter(pa.array(~again)), discard(keyed.filter(pa.array(again)), "duplicate")]
    return pa.concat_tables([part.cast(ROW) for part in parts])


def repeated(column: pa.ChunkedArray) -> np.ndarray:
    """True where a sorted column's value equals the one before it."""
    if len(column) == 0:
        return np.zeros(0, dtype=bool)
    values = column.combine_chunks()
    same = pc.equal(values.slice(1), values.slice(0, len(values) - 1))
    return np.concatenate([[False], pc.fill_null(same, False).to_numpy(zero_copy_only=False)])
