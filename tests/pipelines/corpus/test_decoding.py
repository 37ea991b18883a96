"""Every compression, several frames, and files that are cut off or damaged."""

import bz2
import gzip
import lzma
from pathlib import Path

import pytest

from configs.errors import DataError
from pipelines.corpus import decoding
from pipelines.corpus.decoding import blocks, window
from tests.pipelines.corpus.dumps import comment, lines, zst

ROWS = [comment(f"c{i}", "p") for i in range(3000)]
TEXT = lines(ROWS)


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("RC.ndjson", TEXT),
        ("RC.jsonl", TEXT),
        ("RC.json", TEXT),
        ("RC.gz", gzip.compress(TEXT)),
        ("RC.bz2", bz2.compress(TEXT)),
        ("RC.xz", lzma.compress(TEXT)),
    ],
)
def test_every_compression_gives_the_same_bytes(tmp_path: Path, name: str, data: bytes) -> None:
    path = tmp_path / name
    path.write_bytes(data)
    assert b"".join(blocks(str(path), size=10_000)) == TEXT


@pytest.mark.parametrize("frames", [1, 2, 7])
def test_all_frames_of_a_zst_are_read_and_blocks_end_with_a_line(
    tmp_path: Path, frames: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decoding, "INPUT", 100)
    path = zst(tmp_path / "RC.zst", ROWS, frames=frames)
    got = list(blocks(str(path), size=30_000))
    assert b"".join(got) == TEXT
    assert len(got) >= 5
    assert all(block.endswith(b"\n") for block in got)


def test_skippable_frames_are_skipped(tmp_path: Path) -> None:
    skippable = b"\x50\x2a\x4d\x18" + (4).to_bytes(4, "little") + b"seek"
    path = tmp_path / "RC.zst"
    path.write_bytes(zst(tmp_path / "one.zst", ROWS).read_bytes() + skippable)
    assert b"".join(blocks(str(path))) == TEXT


def test_a_window_beyond_what_decoders_allow_by_default_is_read(tmp_path: Path) -> None:
    path = zst(tmp_path / "RC.zst", ROWS, window_log=28)
    assert window(str(path)) == 2**28
    assert b"".join(blocks(str(path))) == TEXT


def test_a_last_line_without_line_break_is_not_lost(tmp_path: Path) -> None:
    path = tmp_path / "RC.ndjson"
    path.write_bytes(TEXT[:-1])
    assert b"".join(blocks(str(path), size=10_000)) == TEXT[:-1]


@pytest.mark.parametrize("frames", [1, 3])
@pytest.mark.parametrize("cut", [1, 4, 100, 600])
def test_a_zst_cut_inside_a_frame_names_file_and_offset(tmp_path: Path, frames: int, cut: int) -> None:
    path = zst(tmp_path / "RC_cut.zst", ROWS, frames=frames)
    left = path.stat().st_size - cut
    path.write_bytes(path.read_bytes()[:left])
    with pytest.raises(DataError, match=rf"RC_cut\.zst: cut off at byte {left:,}"):
        list(blocks(str(path)))


@pytest.mark.parametrize(
    ("name", "data"), [("RC.gz", gzip.compress), ("RC.bz2", bz2.compress), ("RC.xz", lzma.compress)]
)
def test_other_compressions_cut_off_are_refused_as_well(tmp_path: Path, name: str, data) -> None:
    path = tmp_path / name
    path.write_bytes(data(TEXT)[:-20])
    with pytest.raises(DataError, match=rf"{name}: (cut off|damaged)"):
        list(blocks(str(path)))


@pytest.mark.parametrize("name", ["RC.zst", "RC.gz", "RC.bz2", "RC.xz"])
def test_a_file_that_is_not_what_its_extension_says_is_refused(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(b"<html>no such month</html>" * 50)
    with pytest.raises(DataError, match=rf"{name}: damaged before byte"):
        list(blocks(str(path)))


def test_an_unknown_extension_names_the_known_ones(tmp_path: Path) -> None:
    path = tmp_path / "RC.zip"
    path.write_bytes(b"PK")
    with pytest.raises(DataError, match=r"extension \.zip is not one of \.zst, \.gz"):
        list(blocks(str(path)))


def test_a_file_without_line_breaks_is_refused_before_it_fills_the_memory(tmp_path: Path) -> None:
    path = tmp_path / "RC.ndjson"
    path.write_bytes(b" " * (70 << 20))
    with pytest.raises(DataError, match="no line break in"):
        list(blocks(str(path)))
