"""A dump file as blocks of whole lines, in bounded memory, whatever it is compressed with.

Real dumps are zstandard with a window of 2^31 bytes, often of several frames; only a
decompressor told so reads them, and it grows to 2.1 GB once that much was decoded. A file
that ends inside a frame raises: what is missing can be much, and nothing may be lost
without a word.
"""

import bz2
import gzip
import lzma
import zlib
from collections.abc import Callable, Iterator
from pathlib import PurePosixPath
from typing import IO, Any

import zstandard

from configs.errors import DataError
from pipelines.corpus import sources

BLOCK = 8 << 20
"""Bytes decoded before lines are searched: large enough to search fast, small enough to stay in cache."""
LONGEST_LINE = 64 << 20
"""Bytes without a line break after which a file is refused as no dump."""
MAX_WINDOW = 2**31
INPUT = 64 << 10
"""Stored bytes decoded at once; real dumps are 5 to 20 times as long decoded."""
PLAIN = frozenset({".ndjson", ".jsonl", ".json", ""})
OPENERS: dict[str, Callable[[Any], Any]] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}


def blocks(location: str, size: int = BLOCK) -> Iterator[bytes]:
    """Blocks of about ``size`` bytes that end with a line break (the last one perhaps not).

    Raises DataError naming the file and the byte offset where it is damaged or cut off.
    """
    pending: list[bytes] = []
    held = 0
    for chunk in decoded(location):
        pending.append(chunk)
        held += len(chunk)
        if held < size:
            continue
        whole, newline, rest = b"".join(pending).rpartition(b"\n")
        if newline:
            yield whole + newline
        elif held > LONGEST_LINE:
            raise DataError(f"{location}: no line break in {held:,} bytes; a dump holds one JSON object a line")
        pending, held = [rest], len(rest)
    if held:
        yield b"".join(pending)


def decoded(location: str) -> Iterator[bytes]:
    """The file's decompressed bytes in chunks, by its extension."""
    suffix = PurePosixPath(location).suffix.lower()
    with sources.open_file(location) as raw:
        try:
            if suffix in {".zst", ".zstd"}:
                yield from _zstandard(raw)
            elif suffix in OPENERS:
                yield from _chunks(OPENERS[suffix](raw))
            elif suffix in PLAIN:
                yield from _chunks(raw)
            else:
                known = ", ".join([".zst", *OPENERS, *sorted(PLAIN - {""})])
                raise DataError(f"{location}: the extension {suffix} is not one of {known}")
        except EOFError:
            raise DataError(
                f"{location}: cut off at byte {raw.offset:,}, inside a compressed frame; fetch the file again"
            ) from None
        except (OSError, zlib.error, lzma.LZMAError, zstandard.ZstdError) as error:
            raise DataError(f"{location}: damaged before byte {raw.offset:,} ({type(error).__name__})") from None


def window(location: str) -> int:
    """Bytes that decoding the file's first zstandard frame must hold; 0 for other files."""
    if PurePosixPath(location).suffix.lower() not in {".zst", ".zstd"}:
        return 0
    with sources.open_file(location) as raw:
        head = raw.read(18)
    try:
        return int(zstandard.get_frame_parameters(head).window_size)
    except zstandard.ZstdError:
        return 0


def _chunks(stream: IO[bytes] | sources.Stream) -> Iterator[bytes]:
    while chunk := stream.read(1 << 20):
        yield chunk


def _zstandard(raw: sources.Stream) -> Iterator[bytes]:
    """Frame after frame; raises EOFError where the file ends inside one."""
    decompressor = zstandard.ZstdDecompressor(max_window_size=MAX_WINDOW)
    frame, began = decompressor.decompressobj(), False
    while data := raw.read(INPUT):
        while data:
            began = True
            if chunk := frame.decompress(data):
                yield chunk
            data = b""
            if frame.eof:
                data = frame.unused_data
                frame, began = decompressor.decompressobj(), False
    if began:
        raise EOFError
