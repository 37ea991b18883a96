"""Fields as they drifted over twenty years."""

import json
from typing import Any

import pytest

from pipelines.corpus import fields
from tests.pipelines.corpus.dumps import APRIL_2021, comment, post


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (1_617_235_200, APRIL_2021),
        ("1617235200", APRIL_2021),
        (1_617_235_200.0, APRIL_2021),
        ("1617235200.0", APRIL_2021),
        (1_617_235_200_123, APRIL_2021),
        ("1617235200123", APRIL_2021),
        (None, None),
        ("", None),
        ("yesterday", None),
        (0, None),
        (-5, None),
        (True, None),
        (float("nan"), None),
        (float("inf"), None),
        ([], None),
    ],
)
def test_times_come_as_numbers_strings_and_milliseconds(value: Any, seconds: int | None) -> None:
    assert fields.seconds(value) == seconds


@pytest.mark.parametrize(("value", "score"), [(3, 3), ("3", 3), (-2.0, -2), (None, None), ("", None), ({}, None)])
def test_scores_come_as_numbers_strings_and_null(value: Any, score: int | None) -> None:
    assert fields.comment(comment("c", "p", score=value))["score"] == score


def test_old_dumps_that_only_have_ups_still_have_a_score() -> None:
    row = comment("c", "p", ups=4)
    del row["score"]
    assert fields.comment(row)["score"] == 4


@pytest.mark.parametrize(
    ("value", "edited"),
    [
        (False, False),
        (True, True),
        (1_617_235_900.0, True),
        (1_617_235_900, True),
        (0, False),
        ("false", False),
        (None, None),
    ],
)
def test_edited_is_a_bool_or_the_time_of_the_edit(value: Any, edited: bool | None) -> None:
    assert fields.edited(value) is edited


@pytest.mark.parametrize("value", ["[deleted]", "[removed]", "", None, " [Deleted] "])
def test_deleted_accounts_have_no_name(value: str | None) -> None:
    assert fields.author(value) is None


@pytest.mark.parametrize("link", ["t3_abc", "abc"])
def test_ids_lose_their_prefix(link: str) -> None:
    row = fields.comment(comment("t1_c1", "x", link_id=link, parent_id="t1_c0"))
    assert (row["id"], row["post_id"], row["parent_id"]) == ("c1", "abc", "t1_c0")


def test_entities_are_resolved_also_where_they_were_escaped_twice() -> None:
    assert fields.text("you &amp; me &gt; all &amp;amp; &#x200B;done &amp;nbsp;x") == "you & me > all & done \xa0x"


def test_lone_surrogates_are_replaced_and_pairs_joined() -> None:
    assert fields.text(json.loads(r'"so \ud83d sad \ud83d\ude42"')) == "so \ufffd sad \U0001f642"
    fields.text("\ud83d").encode()
    joined = "\ud83d" + "\ude42"
    assert fields.text(joined) == "\U0001f642"


def test_control_characters_leave_and_line_breaks_stay() -> None:
    assert fields.text("a\x00b\r\n\tc\u202e\ufeff") == "ab\n\tc"


@pytest.mark.parametrize("name", ["id", "subreddit", "title", "created_utc"])
def test_a_post_without_a_needed_field_is_incomplete(name: str) -> None:
    for row in (post("p", **{name: None}), {k: v for k, v in post("p").items() if k != name}):
        with pytest.raises(fields.Incomplete, match=name):
            fields.post(row)


@pytest.mark.parametrize("name", ["id", "link_id", "body", "subreddit", "created_utc"])
def test_a_comment_without_a_needed_field_is_incomplete(name: str) -> None:
    with pytest.raises(fields.Incomplete, match=name):
        fields.comment(comment("c", "p", **{name: None}))


@pytest.mark.parametrize("text", ["[removed]", "[deleted]", "[ Removed by Reddit ]", "[deleted by user]"])
def test_what_was_taken_back_is_marked_removed(text: str) -> None:
    assert fields.post(post("p", selftext=text))["removed"]
    assert fields.comment(comment("c", "p", body=text))["removed"]
    assert fields.post(post("p", removed_by_category="moderator"))["removed"]
    assert not fields.post(post("p", selftext=""))["removed"]


def test_a_second_reading_is_known_only_where_the_dump_says() -> None:
    assert fields.settled({"retrieved_2nd_on": 5}) is True
    assert fields.settled({"note": "x"}) is False
    assert fields.settled(None) is None
