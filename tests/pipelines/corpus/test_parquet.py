"""Parquet dumps give the rows that the same dump as lines gives."""

from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from configs.errors import DataError
from pipelines.corpus.datasource import cut
from pipelines.corpus.reader import Dump, ReadOptions, read_dump
from tests.pipelines.corpus.dumps import comment, post, zst

ROWS = [comment(f"c{i}", "p", subreddit=("Quiet", "Loud")[i % 2], score=i if i % 7 else None) for i in range(3000)]


def read(dumps: list[Dump], wanted: tuple[str, ...] = (), **options: Any) -> list[dict[str, Any]]:
    """All rows and tallies of the dumps."""
    chosen = ReadOptions(frozenset(wanted), **({"max_malformed_share": 0.0} | options))
    return [row for dump in dumps for table in read_dump(dump, chosen) for row in table.to_pylist()]


def parquet_of(path: Path, rows: list[dict[str, Any]], group: int = 700) -> Path:
    """The rows as a Parquet file of row groups of ``group`` rows."""
    pq.write_table(pa.Table.from_pylist(rows), path, row_group_size=group)
    return path


@pytest.mark.parametrize("wanted", [(), ("quiet",)])
@pytest.mark.parametrize("group", [100, 700, 5000])
def test_every_row_comes_out_once_however_the_file_is_cut(tmp_path: Path, wanted: tuple[str, ...], group: int) -> None:
    parts = cut(Dump("comment", str(parquet_of(tmp_path / "RC.parquet", ROWS, group))), 4000)
    assert len(parts) > 1 or group == 5000
    got = read(parts, wanted)
    lines = read([Dump("comment", str(zst(tmp_path / "RC.zst", ROWS)))], wanted)
    live = [[row for row in rows if row["kind"] == "comment" and not row["dropped"]] for rows in (got, lines)]
    assert live[0] == live[1]
    others = [sum(row["count"] for row in rows if row["dropped"] == "other_subreddit") for rows in (got, lines)]
    assert others == [1500 if wanted else 0] * 2


def test_times_and_names_of_other_types_are_read(tmp_path: Path) -> None:
    table = pa.table(
        {
            "id": ["a"],
            "title": ["A title"],
            "selftext": pa.array(["Words"], pa.large_string()),
            "subreddit": pa.array(["Quiet"]).dictionary_encode(),
            "author": [None],
            "created_utc": pa.array([datetime(2021, 4, 1, tzinfo=UTC)], pa.timestamp("us", "UTC")),
            "score": pa.array([3], pa.int32()),
            "_meta": [{"retrieved_2nd_on": 5}],
            "thumbnail": [b"not looked at"],
        }
    )
    pq.write_table(table, tmp_path / "RS.parquet")
    (row, *_) = read([Dump("post", str(tmp_path / "RS.parquet"))], ("quiet",))
    assert (row["created_utc"], row["score"], row["subreddit"], row["settled"]) == (1_617_235_200, 3, "Quiet", True)


def test_incomplete_rows_go_to_quarantine_with_their_number_in_the_file(tmp_path: Path) -> None:
    rows = [comment(f"c{i}", "p") for i in range(200)]
    rows[150]["created_utc"] = None
    path = parquet_of(tmp_path / "RC.parquet", rows, 60)
    got = read(cut(Dump("comment", str(path)), 1), max_malformed_share=0.5, quarantine=tmp_path)
    assert Counter(row["dropped"] for row in got if row["kind"] == "comment") == {None: 199, "incomplete": 1}
    (file,) = tmp_path.glob("*.jsonl")
    entry = orjson.loads(file.read_bytes())
    assert (entry["line"], entry["reason"], entry["detail"]) == (151, "incomplete", "created_utc")


def test_posts_given_as_comments_and_files_that_are_no_parquet_are_refused_by_name(tmp_path: Path) -> None:
    path = parquet_of(tmp_path / "RS.parquet", [post("a")])
    with pytest.raises(DataError, match=r"RS\.parquet: line 1 is a post"):
        read([Dump("comment", str(path))])
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(DataError, match=r"RS\.parquet: is no Parquet file or damaged"):
        cut(Dump("post", str(path)), 1)
