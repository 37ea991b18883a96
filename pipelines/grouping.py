"""Grouping tables by Arrow, in the calling thread.

Arrow's own threads fail now and then inside a Ray worker (pyarrow 25: "ArrowIndexError:
thread index 10 is out of range [0, 10)"), and a partition's groups are too few to gain by
them. One thread also keeps the groups in the order of their first rows.
"""

from collections.abc import Sequence

import pyarrow as pa


def grouped(table: pa.Table, keys: str | Sequence[str]) -> pa.TableGroupBy:
    """``table.group_by(keys)``, to be aggregated in this thread."""
    return table.group_by(keys if isinstance(keys, str) else list(keys), use_threads=False)
