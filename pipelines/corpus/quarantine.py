"""Where lines go that cannot be read: one file of JSON lines a dump, or piece of one, which a repeated task overwrites.

A line is named by the file, the stored offset of the frame at which decoding began (0 for
whole files), and its number and decoded offset from there:
``tail -c +FRAME+1 FILE | zstd -dc --long=31 | tail -c +OFFSET+1 | head -n 1``.
"""

import hashlib
from dataclasses import dataclass, field
from pathlib import Path

import orjson

HELD_LINES, HELD_BYTES = 10_000, 4 << 20
"""Lines, or bytes of them, after which they are written."""


@dataclass
class Quarantine:
    """The bad lines of a dump, or of the piece of it that begins at ``start``."""

    kind: str
    location: str
    start: int
    folder: Path | None
    """Where they are written; None only counts them."""
    frame: int = 0
    """Stored offset at which decoding began."""
    first: int = 0
    """Number of the first bad line, 0 while there is none."""
    _held: list[bytes] = field(default_factory=list)
    _size: int = 0
    _begun: bool = False

    def named(self, number: int) -> str:
        """A line's name in messages."""
        return f"line {number}" + (f" behind byte {self.frame:,}" if self.frame else "")

    def add(self, number: int, offset: int, line: bytes, reason: str, detail: str) -> None:
        """Take in one line; ``full`` tells when to write."""
        self.first = self.first or number
        entry = {"file": self.location, "frame": self.frame, "line": number, "offset": offset}
        entry |= {"reason": reason, "detail": detail, "text": line.decode("utf-8", "replace")}
        self._held.append(orjson.dumps(entry) + b"\n")
        self._size += len(line)

    @property
    def full(self) -> bool:
        """Whether so much is held that it should be written."""
        return len(self._held) >= HELD_LINES or self._size >= HELD_BYTES

    def write(self) -> None:
        """Write what is held."""
        if self._held and self.folder is not None:
            name = hashlib.blake2b(self.location.encode(), digest_size=8).hexdigest()
            piece = f"-{self.start}" if self.start else ""
            with (self.folder / f"{self.kind}s-{name}{piece}.jsonl").open("ab" if self._begun else "wb") as file:
                file.writelines(self._held)
            self._begun = True
        self._held, self._size = [], 0
