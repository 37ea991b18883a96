"""The frames of a .zst file: where they begin and end, found without decoding.

A frame is decoded alone, so a file of many frames can be read by many tasks. A task owns
the frames that begin within its range of stored bytes. It finds its first one by looking
for the magic number and following the block headers behind it: no table of all frames has
to be made before the work starts, and a remote file is not read twice. That twenty headers
fit by chance has a probability below 2^-80, and JSON text cannot hold the magic number,
which is no UTF-8.

The format is RFC 8878, section 3.
"""

from collections.abc import Callable, Iterator

from configs.errors import DataError
from pipelines.corpus import sources

MAGIC = b"\x28\xb5\x2f\xfd"
SKIPPABLE = b"\x2a\x4d\x18"
"""Bytes 2 to 4 of a skippable frame's magic number; the first is 0x50 to 0x5f."""
LONGEST_HEADER = 18
LONGEST_BLOCK = 128 << 10
PROOF = 20
"""Block headers that must follow a magic number before it is taken for a frame's."""
PEEK, PEEK_REMOTE = 1 << 30, 64 << 20
"""Stored bytes; a first frame that is longer makes its file the work of one task."""

At = Callable[[int, int], bytes]
"""Bytes of a file by offset and number; fewer where it ends."""


class CutOff(EOFError):
    """The file ends inside a frame."""


class Broken(ValueError):
    """What stands at an offset is no header; the argument is the offset."""


def block_ends(at: At, offset: int) -> Iterator[int]:
    """Stored offset behind each block of the frame at ``offset``, the last one's with the frame's checksum.

    Raises Broken or CutOff.
    """
    head = at(offset, LONGEST_HEADER)
    if len(head) < 6 and MAGIC.startswith(head[:4]):
        raise CutOff
    if not head.startswith(MAGIC) or head[4] & 0b1000:
        raise Broken(offset)
    flags = head[4]
    single, checksum = flags >> 5 & 1, 4 * (flags >> 2 & 1)
    offset += 5 + (1 - single) + (0, 1, 2, 4)[flags & 3] + (single, 2, 4, 8)[flags >> 6]
    last = False
    while not last:
        data = at(offset, 3)
        if len(data) < 3:
            raise CutOff
        value = int.from_bytes(data, "little")
        last, kind, length = bool(value & 1), value >> 1 & 3, value >> 3
        if kind == 3 or length > LONGEST_BLOCK:
            raise Broken(offset)
        offset += 3 + (1 if kind == 1 else length) + (checksum if last else 0)
        yield offset


def skippable(head: bytes) -> int:
    """Stored bytes of the skippable frame that begins with ``head``, 0 if it is none. Raises CutOff."""
    if head[1:4] != SKIPPABLE or head[0] >> 4 != 5:
        return 0
    if len(head) < 8:
        raise CutOff
    return 8 + int.from_bytes(head[4:8], "little")


class Frames:
    """The stored bytes of frames, one after the other, as a file object for a decompressor.

    A read never crosses a frame's end, so that ``frame`` is the frame in which a decompressor
    failed. Skippable frames are left out. Reading ends at the first frame that begins at
    ``stop`` or behind it, and goes on from there once ``stop`` is None.
    """

    def __init__(self, raw: sources.Stream, location: str, stop: int | None = None):
        self.stop = stop
        self.frame = raw.offset
        """Stored offset of the current frame."""
        self.ended = False
        """Whether the file ended."""
        self._raw, self._location, self._chunk = raw, location, sources.chunk_size(location)
        self._buffer, self._begins = b"", raw.offset
        self._offset = self._known = raw.offset
        """Stored offsets of the next byte to hand out, and up to which the layout is known."""
        self._ends: Iterator[int] | None = None

    def read(self, size: int) -> bytes:
        """At most ``size`` bytes of the current or next frame; none at the end of the range.

        Raises CutOff, or DataError naming file and offset where no header stands in its place.
        """
        try:
            if self._ends is None and self._offset == self._known and not self._begin():
                return b""
            while self._ends is not None and self._known < self._offset + size:
                end = next(self._ends, None)
                if end is None:
                    self._ends = None
                else:
                    self._known = end
        except Broken as error:
            raise DataError(f"{self._location}: {self._damage(error.args[0])}; fetch the file again") from None
        count = min(size, self._known - self._offset)
        data = self._at(self._offset, count)
        if len(data) < count:
            raise CutOff
        self._offset += count
        return data

    def _begin(self) -> bool:
        """Stand at the next frame; False where there is none in the range."""
        while head := self._at(self._offset, LONGEST_HEADER):
            if length := skippable(head):
                self._skip(length)
                continue
            if self.stop is not None and self._offset >= self.stop:
                return False
            self.frame = self._offset
            self._ends = block_ends(self._at, self._offset)
            return True
        self.ended = True
        return False

    def _skip(self, length: int) -> None:
        self.frame = self._offset
        end = self._offset + length
        while self._offset < end:
            step = min(self._chunk, end - self._offset)
            if len(self._at(self._offset, step)) < step:
                raise CutOff
            self._offset += step
        self._known = end

    def _at(self, offset: int, count: int) -> bytes:
        """Bytes from an offset not before the next one to hand out, read from the store as needed."""
        while self._begins + len(self._buffer) < offset + count:
            data = self._raw.read(self._chunk)
            if not data:
                break
            self._buffer = self._buffer[self._offset - self._begins :] + data
            self._begins = self._offset
        start = offset - self._begins
        return self._buffer[start : start + count]

    def _damage(self, offset: int) -> str:
        if offset > self.frame:
            return f"damaged at byte {offset:,}, in the frame that begins at byte {self.frame:,}"
        if offset == 0:
            return "is no .zst file (wrong magic number at byte 0)"
        return f"damaged at byte {offset:,}, where a frame should begin"


def pieces(location: str, piece: int) -> list[tuple[int, int | None]]:
    """Ranges of stored bytes of about ``piece`` each: one open range where the file is short or of one frame."""
    size = sources.size(location)
    count = round(size / piece)
    peek = PEEK_REMOTE if sources.is_remote(location) else PEEK
    if count <= 1 or not _first_ends_before(location, min(peek, size)):
        return [(0, None)]
    borders = [size * number // count for number in range(count)]
    return list(zip(borders, [*borders[1:], None], strict=True))


def first_frame(location: str, start: int, stop: int | None) -> int | None:
    """Stored offset of the first frame that begins within ``[start, stop)``, None if there is none."""
    chunk = sources.chunk_size(location)
    with sources.open_file(location, start) as raw:
        held, begins = b"", start
        while data := raw.read(chunk):
            held += data
            place = held.find(MAGIC)
            while place >= 0:
                if stop is not None and begins + place >= stop:
                    return None
                if _is_frame(location, begins + place):
                    return begins + place
                place = held.find(MAGIC, place + 1)
            kept = min(len(held), len(MAGIC) - 1)
            begins, held = begins + len(held) - kept, held[len(held) - kept :]
            if stop is not None and begins >= stop:
                return None
    return None


def _is_frame(location: str, offset: int) -> bool:
    """Whether headers follow each other from ``offset`` on, to the frame's end or for ``PROOF`` blocks."""
    with _Window(location) as window:
        try:
            for number, _ in enumerate(block_ends(window.at, offset), 1):
                if number == PROOF:
                    break
        except (Broken, CutOff):
            return False
    return True


def _first_ends_before(location: str, limit: int) -> bool:
    """Whether the first frame ends before ``limit``; False too where it is damaged, which its reader will say."""
    with _Window(location) as window:
        try:
            offset = 0
            while length := skippable(window.at(offset, LONGEST_HEADER)):
                offset += length
            for end in block_ends(window.at, offset):
                offset = end
                if end >= limit:
                    return False
        except (Broken, CutOff):
            return False
    return offset < limit


class _Window:
    """Bytes of a file at growing offsets: small reads here, long ones from a store."""

    def __init__(self, location: str):
        self._location = location
        self._chunk = 4096 if not sources.is_remote(location) else sources.chunk_size(location)
        self._file = sources.open_random(location)
        self._size = self._file.size()
        self._data, self._begins = b"", 0

    def at(self, offset: int, count: int) -> bytes:
        """``count`` bytes from ``offset`` on; fewer where the file ends."""
        start = offset - self._begins
        if start < 0 or start + count > len(self._data):
            if offset >= self._size:
                return b""
            self._file.seek(offset)
            self._data, self._begins, start = self._file.read(max(self._chunk, count)), offset, 0
        return self._data[start : start + count]

    def __enter__(self) -> "_Window":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
