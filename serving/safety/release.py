"""Lets a text out sentence by sentence, each after all that was written up to its end was looked at.

A sentence waits until the space behind it is there. What breaks a rule only together with what
follows is out by then; the stream then ends, and its client is told to drop what it shows.
"""

import re
from collections.abc import Callable

_END = re.compile(r"[.!?…]+[\"')\]*_”’]*(?=\s)|\n")  # noqa: RUF001


class Release:
    """One answer on its way out; ``broken`` says of a text whether it must not be shown."""

    def __init__(self, broken: Callable[[str], bool]):
        self.broken = broken
        self.released = ""
        """What was let out."""
        self.stopped = False
        """A rule was broken: nothing more is let out."""
        self._text = ""

    def add(self, text: str, *, last: bool = False) -> str:
        """What of the text up to here may be shown in addition, possibly nothing; ``last`` where no more follows."""
        self._text = (self._text + text) if self._text else text.lstrip()
        whole = self._text.rstrip() if last else self._text[: self._boundary()]
        if self.stopped or (len(whole) <= len(self.released) and not last):
            return ""
        if self.broken(whole):
            self.stopped = True
            return ""
        new = whole[len(self.released) :]
        self.released = whole
        return new

    def _boundary(self) -> int:
        """Where the last whole sentence ends."""
        end = 0
        for found in _END.finditer(self._text, max(0, len(self.released) - 1)):
            end = found.start() if found[0] == "\n" else found.end()
        return end
