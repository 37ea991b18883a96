"""From tokens to text while they arrive."""

from typing import Any


class TextStream:
    """Decodes one answer token by token; the pieces add up to the text of all its tokens.

    A character may be spread over several tokens and a token may be spelt differently at the
    start of a text, so nothing is decoded on its own: ``tokenizers``' stream holds text back
    until it is certain. Left out are special tokens, white space before the first word (chat
    templates write one there) and bytes at the end that never became a character.
    """

    def __init__(self, tokenizer: Any):
        from tokenizers.decoders import DecodeStream

        self._tokenizer = tokenizer
        self._stream = DecodeStream(skip_special_tokens=True)
        self._ids: list[int] = []
        self._emitted = ""

    def add(self, ids: list[int]) -> str:
        """The text that these further tokens complete, possibly none."""
        text = ""
        for token in ids:
            self._ids.append(token)
            text += self._stream.step(self._tokenizer.backend_tokenizer, token) or ""
        if not self._emitted:
            text = text.lstrip()
        self._emitted += text
        return text

    def rest(self) -> str:
        """What was held back until the end."""
        return whole_text(self._tokenizer, self._ids)[len(self._emitted) :]


def whole_text(tokenizer: Any, ids: list[int]) -> str:
    """The text of a finished answer."""
    text: str = tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    return text.lstrip().rstrip("\ufffd")


class Stops:
    """Ends an answer at the first of some texts; the pieces may be cut anywhere and the result is the same.

    What may be the beginning of a stop text is held back until it is certain that it is not. Of
    several, the one that is complete first counts; of those complete at once, the longest.
    """

    def __init__(self, stop: tuple[str, ...]):
        self._stop = stop
        self._longest = max(map(len, stop), default=0)
        self._held = ""
        self.met = False
        """A stop text was there: the answer is over."""

    def add(self, text: str) -> str:
        """What of the answer is certain after this further text."""
        self._held += text
        ends = [(at + len(stop), at) for stop in self._stop if (at := self._held.find(stop)) >= 0]
        if ends:
            self.met = True
            answer, self._held = self._held[: min(ends)[1]], ""
            return answer
        keep = self._unsure()
        cut = len(self._held) - keep
        answer, self._held = self._held[:cut], self._held[cut:]
        return answer

    def _unsure(self) -> int:
        """Characters at the end that a stop text may begin with."""
        for length in range(min(self._longest - 1, len(self._held)), 0, -1):
            if any(stop.startswith(self._held[-length:]) for stop in self._stop):
                return length
        return 0

    def rest(self) -> str:
        """What was held back until the end."""
        answer, self._held = self._held, ""
        return answer
