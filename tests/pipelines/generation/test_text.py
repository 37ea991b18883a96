"""Text from tokens while they arrive."""

import random
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from pipelines.generation.text import Stops, TextStream, whole_text


@pytest.fixture(scope="module")
def tokenizer(tiny_model: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(tiny_model)


def pieces(tokenizer: Any, ids: list[int]) -> list[str]:
    stream = TextStream(tokenizer)
    return [*(stream.add([token]) for token in ids), stream.rest()]


def test_a_character_of_several_tokens_comes_whole(tokenizer: Any) -> None:
    ids = [token for byte in "Ġ𝄞é".encode() for token in tokenizer.convert_tokens_to_ids(byte_tokens(tokenizer, byte))]
    parts = pieces(tokenizer, ids)
    assert "".join(parts) == "Ġ𝄞é"
    assert all("\ufffd" not in part for part in parts)


def byte_tokens(tokenizer: Any, byte: int) -> list[str]:
    """The token of a single byte in a byte-level vocabulary."""
    from tokenizers import pre_tokenizers

    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [b for b in range(256) if b not in printable]
    token = chr(byte) if byte in printable else chr(256 + others.index(byte))
    assert token in pre_tokenizers.ByteLevel.alphabet()
    return [token]


def test_any_tokens_add_up_to_the_text_of_the_whole(tokenizer: Any) -> None:
    random.seed(1)
    for _ in range(300):
        ids = [random.randrange(len(tokenizer)) for _ in range(30)]
        assert "".join(pieces(tokenizer, ids)) == whole_text(tokenizer, ids)


def test_special_tokens_and_the_space_before_the_first_word_are_left_out(tokenizer: Any) -> None:
    ids = [1, *tokenizer(" What helped you?", add_special_tokens=False)["input_ids"], 2, 3]
    assert "".join(pieces(tokenizer, ids)) == "What helped you?"


def test_bytes_that_never_become_a_character_are_left_out(tokenizer: Any) -> None:
    ids = [*tokenizer("Hi", add_special_tokens=False)["input_ids"]]
    ids += tokenizer.convert_tokens_to_ids(byte_tokens(tokenizer, 0xF0))
    assert "".join(pieces(tokenizer, ids)) == "Hi"


def stopped(parts: list[str], stop: tuple[str, ...]) -> tuple[str, bool]:
    stops, given = Stops(stop), ""
    for part in parts:
        given += stops.add(part)
        if stops.met:
            return given, True
    return given + stops.rest(), False


def test_however_the_text_is_cut_it_ends_before_the_stop_text_that_is_complete_first() -> None:
    text, stop = "I hear you. It will pass.\n\nUser: again", ("\n\nUser", "will pass.\n", "zzz", "ill p")
    chance = random.Random(5)
    for _ in range(300):
        cuts = sorted({0, len(text), *(chance.randrange(len(text)) for _ in range(chance.randrange(12)))})
        parts = [text[a:b] for a, b in pairwise(cuts)]
        assert stopped(parts, stop) == ("I hear you. It w", True)


def test_of_stop_texts_complete_at_once_the_longest_counts() -> None:
    assert stopped(list("one two three"), ("two", "e two", " two")) == ("on", True)


def test_what_looks_like_a_stop_text_and_is_none_is_given_in_the_end() -> None:
    assert stopped(list("aab aab aa"), ("aaba", "aac")) == ("aab aab aa", False)
    assert stopped(["", "x", ""], ()) == ("x", False)


def test_text_is_held_back_no_longer_than_it_must() -> None:
    stops = Stops(("STOP",))
    assert [stops.add(part) for part in ("a S", "T", "E", "b")] == ["a ", "", "STE", "b"]
