"""Rows scattered to files by a key and gathered again."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.corpus.exchange import gather, grouped, partition_of, scatter, sizes_of

ROWS = pa.schema([("post_id", pa.string()), ("text", pa.string()), ("number", pa.int64())])


def table(ids: list[str]) -> pa.Table:
    return pa.table({"post_id": ids, "text": [f"of {i}" for i in ids], "number": range(len(ids))}, schema=ROWS)


@given(st.lists(st.text(max_size=12), max_size=60), st.integers(1, 40))
@settings(max_examples=60, deadline=None)
def test_every_row_comes_back_once_and_a_key_is_in_one_partition(
    tmp_path_factory: pytest.TempPathFactory, ids: list[str], partitions: int
) -> None:
    folder: Path = tmp_path_factory.mktemp("scattered")
    whole = table(ids)
    pieces = [scatter(part, "post_id", partitions, folder) for part in (whole.slice(0, 7), whole.slice(7))]
    files = [folder / name for name in pieces if name]
    parts = [gather(files, range(i, i + 1), ROWS) for i in range(partitions)]
    assert sorted(n for part in parts for n in part["number"].to_pylist()) == list(range(len(ids)))
    homes: dict[str, set[int]] = {}
    for number, part in enumerate(parts):
        for key in part["post_id"].to_pylist():
            homes.setdefault(key, set()).add(number)
    assert all(len(found) == 1 for found in homes.values())
    assert gather(files, range(partitions), ROWS).sort_by("number").equals(whole)


def test_files_tell_the_bytes_of_each_partition(tmp_path: Path) -> None:
    names = [scatter(table([f"p{i}" for i in range(300)]), "post_id", 8, tmp_path) for _ in range(2)]
    files = [tmp_path / name for name in names if name]
    sizes = sizes_of(files)
    assert sorted(sizes) == list(range(8))
    for partition, size in sizes.items():
        rows = gather(files, range(partition, partition + 1), ROWS)
        assert size == pytest.approx(rows.combine_chunks().nbytes, rel=0.05)


def test_nothing_is_written_for_no_rows(tmp_path: Path) -> None:
    assert scatter(table([]), "post_id", 8, tmp_path) is None
    assert not list(tmp_path.iterdir())
    assert gather([], range(8), ROWS).equals(ROWS.empty_table())


def test_partitions_are_even_and_do_not_depend_on_the_machine_or_on_how_the_column_is_cut() -> None:
    ids = pa.chunked_array([pa.array([f"3eip{i:x}" for i in range(20_000)])])
    found = partition_of(ids, 16)
    assert np.bincount(found).min() > 0.9 * 20_000 / 16
    assert partition_of(ids.slice(100, 50), 16).tolist() == found[100:150].tolist()
    assert partition_of(pa.array(["3eipdn", "1w1was", ""]), 4096).tolist() == [150, 1835, 596]
    numbers = pa.array([0, 1, 2**64 - 1], pa.uint64())
    assert partition_of(numbers, 4096).tolist() == [0, 2489, 1606]


def test_neighbouring_partitions_share_a_task_and_a_huge_one_is_alone() -> None:
    sizes = {0: 10, 1: 10, 2: 500, 3: 10, 5: 95, 6: 5, 7: 1}
    assert grouped(sizes, 9, 100) == [range(0, 2), range(2, 3), range(3, 5), range(5, 7), range(7, 9)]
    assert grouped({}, 4, 100) == [range(0, 4)]
    assert grouped(sizes, 3, 100, exact=True) == [range(0, 1), range(1, 2), range(2, 3)]
