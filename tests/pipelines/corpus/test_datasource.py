"""Dumps as a Ray Data source, from this machine and from a store that speaks S3."""

from collections.abc import Iterator
from pathlib import Path

import boto3
import pyarrow.compute as pc
import pytest
import ray
from moto.server import ThreadedMotoServer

from configs.errors import DataError, MissingInput
from pipelines.corpus import sources
from pipelines.corpus.build import dumps_of
from pipelines.corpus.datasource import DumpDatasource, cut
from pipelines.corpus.reader import Dump, ReadOptions, read_dump
from tests.pipelines.corpus.dumps import comment, lines, zst, zst_of_frames

ROWS = [comment(f"c{i}", "p") for i in range(4000)]
ALL = ReadOptions(frozenset(), 0.0)


def ids(dump: Dump, piece: int) -> list[str]:
    """Comments of a dump, read piece by piece."""
    tables = [table for part in cut(dump, piece) for table in read_dump(part, ALL)]
    return [name for table in tables for name in table.filter(pc.is_valid(table["post_id"]))["id"].to_pylist()]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address (host:port) of a server that speaks S3, with dumps in the bucket ``dumps``."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    folder = tmp_path_factory.mktemp("dumps")
    s3 = boto3.client(
        "s3",
        endpoint_url=f"http://{host}:{port}",
        region_name="us-east-1",
        aws_access_key_id="test",
        aws_secret_access_key="test",
    )
    s3.create_bucket(Bucket="dumps")
    for name, start in (("RC_2021-04.zst", 0), ("RC_2021-05.zst", 2000)):
        path = zst_of_frames(folder / name, lines(ROWS[start : start + 2000]), 20_000)
        s3.upload_file(str(path), "dumps", f"reddit/{name}")
    s3.put_object(Bucket="dumps", Key="reddit/RC_empty.zst", Body=b"")
    s3.put_object(Bucket="dumps", Key="reddit/RC_cut.zst", Body=path.read_bytes()[:-30])
    yield f"{host}:{port}"
    server.stop()


@pytest.fixture
def credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the environment of a job would hold."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


@pytest.mark.parametrize("by_query", [True, False])
def test_dumps_in_a_bucket_are_listed_cut_and_read(
    store: str, credentials: None, monkeypatch: pytest.MonkeyPatch, by_query: bool
) -> None:
    query = f"?endpoint_override={store}&scheme=http" if by_query else ""
    if not by_query:
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{store}")
    found = sources.expand([f"s3://dumps/reddit/RC_2021-*.zst{query}", f"s3://dumps/reddit/RC_2021-04.zst{query}"])
    assert found == [f"s3://dumps/reddit/RC_2021-{month}.zst{query}" for month in ("04", "05")]
    assert len(cut(Dump("comment", found[0]), 2000)) > 3
    assert [name for file in found for name in ids(Dump("comment", file), 2000)] == [row["id"] for row in ROWS]


def test_what_is_wrong_in_a_bucket_is_named(store: str, credentials: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{store}")
    with pytest.raises(MissingInput, match=r"RC_9\*\.zst: the glob matches no file"):
        sources.expand(["s3://dumps/reddit/RC_9*.zst"])
    with pytest.raises(MissingInput, match=r"s3://dumps/reddit/RC_9\.zst: no such file"):
        sources.expand(["s3://dumps/reddit/RC_9.zst"])
    with pytest.raises(MissingInput, match=r"s3://dumps/reddit/RC_9\.zst: cannot be opened"):
        sources.open_file("s3://dumps/reddit/RC_9.zst")
    with pytest.raises(DataError, match=r"RC_empty\.zst: is empty \(0 bytes\)"):
        cut(Dump("comment", "s3://dumps/reddit/RC_empty.zst"), 2000)
    with pytest.raises(DataError, match=r"RC_cut\.zst: cut off at byte [\d,]+, inside the frame that begins at"):
        ids(Dump("comment", "s3://dumps/reddit/RC_cut.zst"), 10**9)


def test_ray_reads_the_pieces_of_all_dumps_once(tmp_path: Path, ray_cluster: None) -> None:
    zst_of_frames(tmp_path / "RC_1.zst", lines(ROWS[:3000]), 20_000)
    zst(tmp_path / "RC_2.zst", ROWS[3000:])
    dumps = [Dump("comment", str(tmp_path / f"RC_{number}.zst")) for number in (1, 2)]
    source = DumpDatasource(dumps, ALL, 5000)
    assert len(source.pieces) > 4
    rows = ray.data.read_datasource(source, override_num_blocks=len(source.pieces)).to_pandas()
    assert sorted(rows["id"][rows["post_id"].notna()]) == sorted(row["id"] for row in ROWS)


def test_a_file_of_one_frame_is_one_piece_and_small_frames_are_grouped(tmp_path: Path) -> None:
    one = zst(tmp_path / "one.zst", ROWS)
    assert cut(Dump("comment", str(one)), 1000) == [Dump("comment", str(one))]
    small = zst_of_frames(tmp_path / "small.zst", lines(ROWS), 300)
    parts = cut(Dump("comment", str(small)), small.stat().st_size // 5)
    assert len(parts) == 5
    assert ids(Dump("comment", str(small)), small.stat().st_size // 5) == [r["id"] for r in ROWS]


def test_an_empty_file_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "RC_0.zst").touch()
    with pytest.raises(DataError, match=r"RC_0\.zst: is empty \(0 bytes\); fetch it again or leave it out"):
        DumpDatasource([Dump("comment", str(tmp_path / "RC_0.zst"))], ALL, 1000)


def test_a_copy_under_another_name_is_found(tmp_path: Path) -> None:
    first = zst(tmp_path / "RC_1.zst", ROWS)
    copy = tmp_path / "RC_1 (1).zst"
    copy.write_bytes(first.read_bytes())
    other = tmp_path / "RC_2.zst"
    changed = bytearray(first.read_bytes())
    changed[-1] ^= 1
    other.write_bytes(changed)
    assert sources.repeated([str(first), str(other)]) is None
    assert sources.repeated(map(str, (first, other, copy))) == (str(first), str(copy))
    with pytest.raises(DataError, match=r"RC_1 \(1\)\.zst|RC_1\.zst: holds the same bytes as .*RC_1.*; leave one of"):
        dumps_of({"posts": [str(other)], "comments": [f"{tmp_path}/RC_1*.zst"]})
