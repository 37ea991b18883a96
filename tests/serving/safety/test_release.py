"""Nothing of a stream is let out before the guard saw the text up to its end."""

import pytest

from serving.safety.release import Release

TEXT = "That is hard. I went through it too!\nWhat helped? Small things... and time."


def pieces(text: str, size: int) -> list[str]:
    return [text[i : i + size] for i in range(0, len(text), size)]


def released(text: str, size: int, bad: str | None = None) -> tuple[list[str], list[str], Release]:
    looked: list[str] = []

    def broken(so_far: str) -> bool:
        looked.append(so_far)
        return bad is not None and bad in so_far

    release = Release(broken)
    parts = pieces(text, size)
    out = [release.add(part, last=place == len(parts) - 1) for place, part in enumerate(parts)]
    return [part for part in out if part], looked, release


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
def test_the_pieces_add_up_to_the_text_whatever_their_size(size: int) -> None:
    out, _, _ = released(f"  {TEXT}  ", size)
    assert "".join(out) == TEXT


@pytest.mark.parametrize("size", [1, 3])
def test_each_piece_was_looked_at_with_all_that_is_before_it(size: int) -> None:
    out, looked, _ = released(TEXT, size)
    so_far = ""
    for part in out:
        so_far += part
        assert so_far in looked


def test_whole_sentences_are_let_out() -> None:
    out, _, _ = released("One. Two! Three?", 1)
    assert out == ["One.", " Two!", " Three?"]


@pytest.mark.parametrize("size", [1, 4, 1000])
def test_nothing_is_let_out_from_the_sentence_on_that_breaks_a_rule(size: int) -> None:
    out, _, release = released("Good one. Bad apple here. Fine again.", size, bad="apple")
    assert "".join(out) == ("" if size == 1000 else "Good one.")
    assert release.stopped


def test_a_rule_broken_over_two_sentences_stops_the_second() -> None:
    looked: list[str] = []

    def broken(so_far: str) -> bool:
        looked.append(so_far)
        return "one" in so_far and "two" in so_far

    release = Release(broken)
    assert release.add("Here is one. ") == "Here is one."
    assert release.add("Here is two. And") == ""
    assert release.add(" more.", last=True) == ""
    assert release.stopped


def test_an_empty_answer_is_looked_at_too() -> None:
    release = Release(lambda text: not text.strip())
    assert release.add("", last=True) == ""
    assert release.stopped
