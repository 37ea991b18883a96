"""Every compression, several frames, and files that are cut off or damaged."""

import bz2
import gzip
import lzma
import subprocess
import sys
from pathlib import Path

import pytest
import zstandard

from configs.errors import DataError
from pipelines.corpus import frames as frame_layout
from pipelines.corpus.decoding import blocks, window
from tests.pipelines.corpus.dumps import comment, lines, zst


def decoded(path: Path, size: int = 0) -> list[bytes]:
    """The file's blocks, as bytes of their own."""
    return [bytes(block.buffer[: block.size]) for block in blocks(str(path), size=size)]


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
    assert b"".join(decoded(path, 10_000)) == TEXT


@pytest.mark.parametrize("frames", [1, 2, 7])
def test_all_frames_of_a_zst_are_read_and_blocks_end_with_a_line(tmp_path: Path, frames: int) -> None:
    path = zst(tmp_path / "RC.zst", ROWS, frames=frames)
    got = decoded(path, 30_000)
    assert b"".join(got) == TEXT
    assert len(got) >= 5
    assert all(block.endswith(b"\n") for block in got)


def test_skippable_frames_are_skipped(tmp_path: Path) -> None:
    skippable = b"\x50\x2a\x4d\x18" + (4).to_bytes(4, "little") + b"seek"
    path = tmp_path / "RC.zst"
    path.write_bytes(zst(tmp_path / "one.zst", ROWS).read_bytes() + skippable)
    assert b"".join(decoded(path)) == TEXT


def test_a_window_beyond_what_decoders_allow_by_default_is_read(tmp_path: Path) -> None:
    path = zst(tmp_path / "RC.zst", ROWS, window_log=28)
    assert window(str(path)) == 2**28
    assert b"".join(decoded(path)) == TEXT


def test_a_last_line_without_line_break_is_not_lost(tmp_path: Path) -> None:
    path = tmp_path / "RC.ndjson"
    path.write_bytes(TEXT[:-1])
    assert b"".join(decoded(path, 10_000)) == TEXT


@pytest.mark.parametrize("frames", [1, 3])
@pytest.mark.parametrize("cut", [1, 4, 100, 600])
def test_a_zst_cut_inside_a_frame_names_file_frame_and_offset(tmp_path: Path, frames: int, cut: int) -> None:
    path = zst(tmp_path / "RC_cut.zst", ROWS, frames=frames)
    whole = path.read_bytes()
    begins = whole.rindex(frame_layout.MAGIC)
    path.write_bytes(whole[: len(whole) - cut])
    cut_off = rf"RC_cut\.zst: cut off at byte {len(whole) - cut:,}, inside the frame that begins at byte {begins:,};"
    with pytest.raises(DataError, match=cut_off):
        decoded(path)


@pytest.mark.parametrize("number", [0, 2, 4])
def test_a_damaged_frame_is_named_by_the_offset_it_begins_at(tmp_path: Path, number: int) -> None:
    frames = [zstandard.ZstdCompressor(write_checksum=True).compress(lines(ROWS[i::5])) for i in range(5)]
    begins = sum(map(len, frames[:number]))
    frames[number] = frames[number][:-1] + bytes([frames[number][-1] ^ 1])
    path = tmp_path / "RC_hurt.zst"
    path.write_bytes(b"".join(frames))
    with pytest.raises(DataError, match=rf"RC_hurt\.zst: damaged in the frame that begins at byte {begins:,} "):
        decoded(path)


def test_what_stands_between_frames_and_is_none_is_named_by_its_offset(tmp_path: Path) -> None:
    path = zst(tmp_path / "RC.zst", ROWS)
    size = path.stat().st_size
    path.write_bytes(path.read_bytes() + b"<html>the rest could not be fetched</html>")
    with pytest.raises(DataError, match=rf"RC\.zst: damaged at byte {size:,}, where a frame should begin"):
        decoded(path)


@pytest.mark.parametrize(
    ("name", "data"), [("RC.gz", gzip.compress), ("RC.bz2", bz2.compress), ("RC.xz", lzma.compress)]
)
def test_other_compressions_cut_off_are_refused_as_well(tmp_path: Path, name: str, data) -> None:
    path = tmp_path / name
    path.write_bytes(data(TEXT)[:-20])
    with pytest.raises(DataError, match=rf"{name}: (cut off|damaged)"):
        decoded(path)


@pytest.mark.parametrize("name", ["RC.zst", "RC.gz", "RC.bz2", "RC.xz"])
def test_a_file_that_is_not_what_its_extension_says_is_refused(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(b"<html>no such month</html>" * 50)
    with pytest.raises(DataError, match=rf"{name}: (damaged before byte|is no \.zst file)"):
        decoded(path)


def test_an_unknown_extension_names_the_known_ones(tmp_path: Path) -> None:
    path = tmp_path / "RC.zip"
    path.write_bytes(b"PK")
    with pytest.raises(DataError, match=r"extension \.zip is not one of \.zst, \.gz"):
        decoded(path)


def test_a_file_without_line_breaks_is_refused_before_it_fills_the_memory(tmp_path: Path) -> None:
    path = tmp_path / "RC.ndjson"
    path.write_bytes(b" " * (70 << 20))
    with pytest.raises(DataError, match="no line break in"):
        decoded(path)


def test_a_line_of_ten_megabytes_is_read_among_others(tmp_path: Path) -> None:
    long = comment("long", "p", body="word " * 2_000_000)
    path = zst(tmp_path / "RC.zst", [*ROWS, long, *ROWS])
    assert b"".join(decoded(path)) == lines([*ROWS, long, *ROWS])


@pytest.mark.parametrize("content", [b"\n", b"x"])
def test_a_decompression_bomb_stays_in_bounded_memory(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "RC_bomb.zst"
    with path.open("wb") as file, zstandard.ZstdCompressor().stream_writer(file) as out:
        for _ in range(400):
            out.write(content * (1 << 20))
    assert path.stat().st_size < 100_000
    script = (
        "import sys\n"
        "from configs.errors import DataError\n"
        "from pipelines.corpus.reader import Dump, ReadOptions, read_dump\n"
        "try:\n"
        "    for _ in read_dump(Dump('comment', sys.argv[1]), ReadOptions(frozenset({'quiet'}), 0.01)): pass\n"
        "    print('read')\n"
        "except DataError as error:\n"
        "    print('no line break' if 'no line break' in str(error) else error)\n"
        "print(*[line.split()[1] for line in open('/proc/self/status') if line.startswith('VmHWM')])\n"
    )
    told = subprocess.run([sys.executable, "-c", script, path], capture_output=True, text=True, check=True).stdout
    outcome, peak = told.splitlines()
    assert outcome == ("read" if content == b"\n" else "no line break")
    assert int(peak) < 350_000  # kB
