"""A dump file, or a piece of one, as blocks of whole lines, in bounded memory, whatever it is compressed with.

Real dumps are zstandard with a window of 2^31 bytes, often of several frames; only a
decompressor told so reads them, and it grows to 2.1 GB once that much was decoded. All
formats decode into one buffer that is used again for each block: a fresh buffer a block
costs as much in page faults as the decompression itself. A file that ends inside a frame
raises: what is missing can be much, and nothing may be lost without a word.

A line belongs to the piece that holds the byte before its first one: a piece drops the
rest of a line at its beginning and reads on behind its end to the next line break. So
every line is read once, wherever frames cut it.
"""

import bz2
import gzip
import lzma
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import IO, Any, Protocol, cast

import zstandard

from configs.errors import DataError
from pipelines.corpus import frames, sources

BLOCK = 1 << 20
"""Bytes decoded before lines are searched: large enough to search fast, small enough to stay in cache."""
SLACK = 16
"""Bytes that may be read behind a block's end."""
LONGEST_LINE = 64 << 20
"""Bytes without a line break after which a file is refused as no dump."""
MAX_WINDOW = 2**31
BEYOND = 64 << 10
"""Bytes decoded at once behind a piece's end, to find the end of its last line."""
PLAIN = frozenset({".ndjson", ".jsonl", ".json", ""})
ZSTD = frozenset({".zst", ".zstd"})
OPENERS: dict[str, Callable[[Any], Any]] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
DAMAGE = (OSError, zlib.error, lzma.LZMAError, zstandard.ZstdError)


@dataclass(frozen=True, slots=True)
class Block:
    """The first ``size`` bytes of ``buffer``: whole lines, the last one with its line break. Valid until the next."""

    buffer: bytearray
    size: int
    offset: int
    """Decoded bytes before it, from ``origin`` on."""
    origin: int
    """Stored offset at which decoding began: of a frame, 0 for whole files."""


class Decoder(Protocol):
    """Decoded bytes."""

    def readinto(self, view: memoryview, /) -> int:
        """Fill the view's beginning; 0 at the end."""
        ...


def blocks(location: str, start: int = 0, stop: int | None = None, size: int = 0) -> Iterator[Block]:
    """Blocks of about ``size`` bytes (0: ``BLOCK``) of a piece's lines: of the frames that begin in ``[start, stop)``.

    Raises DataError naming the file and the byte offset where it is damaged or cut off.
    """
    origin = frames.first_frame(location, start, stop) if start else 0
    if origin is None:
        return
    size = size or BLOCK
    with sources.open_file(location, origin) as raw:
        if suffix(location) in ZSTD:
            stored = frames.Frames(raw, location, stop)
            with naming(location, raw, stored):
                yield from _lines(location, _Pieces(stored), origin, cut=start > 0, size=size)
        else:
            with naming(location, raw):
                yield from _lines(location, decoder(location, raw), origin, cut=False, size=size)


def suffix(location: str) -> str:
    """The extension, in lower case, of a path or of a URI (without its query)."""
    return PurePosixPath(sources.split_query(location)[0]).suffix.lower()


def decoder(location: str, raw: sources.Stream) -> Decoder:
    """The decoder of a file that is no .zst, by its extension."""
    extension = suffix(location)
    if extension in PLAIN:
        return raw
    if extension not in OPENERS:
        known = ", ".join([".zst", *OPENERS, *sorted(PLAIN - {""}), ".parquet"])
        raise DataError(f"{location}: the extension {extension} is not one of {known}")
    opened: Decoder = OPENERS[extension](raw)
    return opened


def window(location: str) -> int:
    """Bytes that decoding the file's first zstandard frame must hold; 0 for other files."""
    if suffix(location) not in ZSTD:
        return 0
    with sources.open_file(location) as raw:
        head = raw.read(frames.LONGEST_HEADER)
    try:
        return int(zstandard.get_frame_parameters(head).window_size)
    except zstandard.ZstdError:
        return 0


@contextmanager
def naming(location: str, raw: sources.Stream, stored: frames.Frames | None = None) -> Iterator[None]:
    """Errors of the decoders as DataError that names the file, the place and the way out."""
    try:
        yield
    except EOFError:
        where = f"the frame that begins at byte {stored.frame:,}" if stored else "its compressed data"
        raise DataError(f"{location}: cut off at byte {raw.offset:,}, inside {where}; fetch the file again") from None
    except DAMAGE as error:
        where = f"in the frame that begins at byte {stored.frame:,}" if stored else f"before byte {raw.offset:,}"
        raise DataError(f"{location}: damaged {where} ({type(error).__name__}); fetch the file again") from None


class _Pieces:
    """The decoded bytes of a piece's frames, and then those up to the next line break."""

    def __init__(self, stored: frames.Frames):
        self._stored = stored
        self._zstd = zstandard.ZstdDecompressor(max_window_size=MAX_WINDOW)
        self._reader = self._decode()
        self._beyond = self._done = False

    def readinto(self, view: memoryview, /) -> int:
        if not self._beyond:
            if count := self._reader.readinto(view):
                return count
            self._beyond = True
            self._done = self._stored.ended
            self._stored.stop = None
            self._reader = self._decode()
        if self._done:
            return 0
        count = self._reader.readinto(view[:BEYOND])
        end = bytes(view[:count]).find(b"\n")
        self._done = end >= 0
        return end + 1 if self._done else count

    def _decode(self) -> zstandard.ZstdDecompressionReader:
        return self._zstd.stream_reader(cast(IO[bytes], self._stored), read_across_frames=True)


def _lines(location: str, decoded: Decoder, origin: int, cut: bool, size: int) -> Iterator[Block]:
    """Blocks of whole lines; without what precedes the first line break where ``cut``."""
    buffer = bytearray(size + SLACK)
    filled = offset = 0
    more = True
    while more:
        if filled == len(buffer) - SLACK:
            if filled >= LONGEST_LINE:
                raise DataError(f"{location}: no line break in {filled:,} bytes; a dump holds one JSON object a line")
            buffer = buffer[:filled] + bytes(min(filled, LONGEST_LINE - filled) + SLACK)
        target = len(buffer) - SLACK
        with memoryview(buffer) as view:
            while more and filled < target:
                count = decoded.readinto(view[filled:target])
                filled, more = filled + count, count > 0
        if cut and filled:
            first = buffer.find(b"\n", 0, filled) + 1
            dropped = first or filled
            buffer[: filled - dropped] = buffer[dropped:filled]
            filled, offset, cut = filled - dropped, offset + dropped, not first
        if not more and filled and buffer[filled - 1] != 10:
            buffer[filled] = 10
            filled += 1
        whole = buffer.rfind(b"\n", 0, filled) + 1
        if whole:
            yield Block(buffer, whole, offset, origin)
            buffer[: filled - whole] = buffer[whole:filled]
            filled, offset = filled - whole, offset + whole
