"""Rating files: what is accepted, and what a message says about what is not."""

from pathlib import Path
from typing import Any

import pytest

from configs.errors import DataError, MissingInput
from pipelines.feedback.ratings import DIMENSIONS, read_ratings
from tests.pipelines.feedback.making import GOOD_TEXT, POOR_TEXT, attention, line, rows, write_lines


def test_good_lines_are_read_in_order_and_blank_ones_skipped(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "r.jsonl", [line("i1"), b"", line("i2", rater="r2")])
    assert [(row.item_id, row.rater_id) for row in read_ratings([path])] == [("i1", "r1"), ("i2", "r2")]


@pytest.mark.parametrize(
    ("bad", "field"),
    [
        (line(ratings_a=dict.fromkeys(DIMENSIONS, 6)), "ratings_a.readability"),
        (line(ratings_b=dict.fromkeys(DIMENSIONS, 0)), "ratings_b.readability"),
        (line(ratings_a={"warmth": 3}), "ratings_a.warmth"),
        (line(model="xl"), "model"),
        (line(source="robot"), "source"),
        (line(rater_id=""), "rater_id"),
        (line(response_b={"text": "Hello."}), "response_b.id"),
        (line(note="hm"), "note"),
        (line(model="im", draft=None), "draft"),
        (line(is_attention=True), "is_attention"),
        ({key: value for key, value in line().items() if key != "post_id"}, "post_id"),
        (b'{"item_id": "i1", ', "not a JSON object"),
    ],
)
def test_a_line_of_another_form_is_named_by_file_line_and_field(
    tmp_path: Path, bad: dict[str, Any] | bytes, field: str
) -> None:
    path = write_lines(tmp_path / "r.jsonl", [line(), bad])
    with pytest.raises(DataError) as caught:
        read_ratings([path])
    assert f"{path}:2: " in str(caught.value)
    assert field in str(caught.value)


def test_a_message_never_repeats_what_was_written(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "r.jsonl", [line(model="xl", post="a secret"), line(note="another secret")])
    with pytest.raises(DataError) as caught:
        read_ratings([path])
    for words in ("secret", GOOD_TEXT, POOR_TEXT, "sunrise"):
        assert words not in str(caught.value)


def test_an_item_that_changes_between_its_lines_is_refused(tmp_path: Path) -> None:
    swapped = line(rater="r2", response_a=line()["response_b"], response_b=line()["response_a"])
    first = write_lines(tmp_path / "a.jsonl", [line()])
    second = write_lines(tmp_path / "b.jsonl", [swapped])
    with pytest.raises(DataError, match=r"b\.jsonl:1: response_a differs .*a\.jsonl:1"):
        read_ratings([first, second])


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(MissingInput, match="nowhere"):
        read_ratings([tmp_path / "nowhere.jsonl"])


def test_a_line_that_lacks_ratings_is_read_and_says_which() -> None:
    partial = dict.fromkeys(DIMENSIONS, 3) | {"empathy": None}
    absent = {dimension: 3 for dimension in DIMENSIONS if dimension != "safety"}
    whole, null, none = rows([line(), line(ratings_a=partial), line(ratings_b=absent)])
    assert (whole.missing(), null.missing(), none.missing()) == (None, "empathy", "safety")


def test_an_attention_item_is_passed_by_giving_what_its_text_asks_for() -> None:
    passed, failed = rows([attention("x", "r1", 1), attention("x", "r2", 2)])
    assert passed.passes_attention()
    assert not failed.passes_attention()
