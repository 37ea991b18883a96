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
