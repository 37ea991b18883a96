"""The file of requests: what is read, and that a slip removes nothing."""

from pathlib import Path

import pytest

from configs.errors import MissingInput, UsageError
from pipelines.forgetting.requests import FORMS, Requests, read, shown


def write(folder: Path, text: str | bytes) -> Path:
    path = folder / "ids.txt"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_posts_comments_and_accounts_are_read_with_remarks_and_blank_lines_left_out(tmp_path: Path) -> None:
    text = "\ufeff# who asked\r\nt3_1abC2d\r\n\r\n  t1_k3x9f0   # by mail\n"
    text += "u/Some_Account-9\n/u/another\nu/SOME_account-9\n"
    assert read(write(tmp_path, text)) == Requests(
        frozenset({"1abC2d"}), frozenset({"k3x9f0"}), frozenset({"some_account-9", "another"})
    )


def test_answers_of_the_service_and_posts_by_their_callers_id_are_read(tmp_path: Path) -> None:
    text = "request:5f0c/a#1 # asked by mail\npost:ticket-12\n"
    found = read(write(tmp_path, text))
    assert found == Requests(frozenset({"post:ticket-12"}), frozenset({"served:5f0c/a#1"}), frozenset())
    assert [shown("posts", name) for name in found.posts] == ["post:ticket-12"]
    assert [shown("comments", name) for name in found.comments] == ["request:5f0c/a#1"]


@pytest.mark.parametrize(
    "line",
    [
        "request:",
        "request:a b",
        "post:",
        "1abc2d",
        "t3_",
        "t5_abc",
        "t3_abc t1_def",
        "someone",
        "u/",
        "t3_abc,",
        "u/a b",
        "r/sub",
    ],
)
def test_anything_else_is_refused_by_its_line_and_is_not_repeated(tmp_path: Path, line: str) -> None:
    with pytest.raises(UsageError, match=r"ids\.txt:3: expected one of t3_<post>.*nothing was removed") as caught:
        read(write(tmp_path, f"t3_fine\n\n{line}\nt1_fine\n"))
    assert line not in str(caught.value).replace(FORMS, "")


@pytest.mark.parametrize("text", ["", "# only a remark\n\n", b"t3_abc\n\xff\xfe\n"])
def test_a_file_that_names_nothing_or_is_no_text_is_refused(tmp_path: Path, text: str | bytes) -> None:
    with pytest.raises(UsageError, match=r"names nothing|cannot be read as text"):
        read(write(tmp_path, text))


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(MissingInput, match=r"nowhere\.txt: no such file"):
        read(tmp_path / "nowhere.txt")
