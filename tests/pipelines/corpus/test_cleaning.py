"""Each rule drops what it names, and nothing goes without a reason."""

from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from configs.corpus import CleaningSettings
from pipelines.corpus import fields
from pipelines.corpus.cleaning import RULES, clean, is_foreign, text_key
from pipelines.corpus.reader import table_of, tallies_of
from pipelines.corpus.schema import RECORD, ROW
from tests.pipelines.corpus.dumps import comment, post

JULY_2023, DECEMBER_2023 = 1_689_000_000, 1_702_000_000
GERMAN = "Ich weiß genau, wie du dich fühlst, und es tut mir sehr leid, dass es dir so schlecht geht."


def outcome(row: dict[str, Any], **settings: Any) -> str | None:
    """The reason for which the row is dropped, None where it is kept."""
    convert = fields.post if "title" in row else fields.comment
    cleaned = clean(table_of([convert(row)]), CleaningSettings(**settings))
    assert pc.sum(cleaned["count"]).as_py() == 1
    return cleaned["dropped"].to_pylist()[0]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({}, None),
        ({"body": "[removed]"}, "deleted"),
        ({"body": "[deleted]"}, "deleted"),
        ({"author": "[deleted]"}, "deleted"),
        ({"distinguished": "moderator"}, "moderator"),
        ({"distinguished": None}, None),
        ({"stickied": True}, "moderator"),
        ({"author": "AutoModerator"}, "bot"),
        ({"author": "automoderator"}, "bot"),
        ({"author": "haiku-Bot"}, "bot"),
        ({"author": "Abbott"}, None),
        ({"parent_id": "t1_c0"}, "not_top_level"),
        ({"parent_id": None}, "not_top_level"),
        ({"score": None}, "score_missing"),
        ({"score_hidden": True}, "score_hidden"),
        ({"created_utc": JULY_2023}, "frozen_month"),
        ({"created_utc": str(JULY_2023)}, "frozen_month"),
        ({"created_utc": DECEMBER_2023}, None),
        ({"created_utc": DECEMBER_2023, "_meta": {"note": ""}}, "score_unsettled"),
        ({"created_utc": DECEMBER_2023, "_meta": {"retrieved_2nd_on": 1}}, None),
        ({"edited": 1_617_236_000}, None),
        ({"body": "same here, my friend"}, "too_short"),
        ({"body": "word " * 401}, "too_long"),
        ({"body": GERMAN}, "not_english"),
    ],
)
def test_a_comment_is_dropped_under_the_rule_that_names_it(changes: dict[str, Any], reason: str | None) -> None:
    assert outcome(comment("c", "p", **changes)) == reason


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({}, None),
        ({"author": "[deleted]"}, None),
        ({"selftext": "[removed]"}, "deleted"),
        ({"removed_by_category": "moderator"}, "deleted"),
        ({"stickied": True}, "moderator"),
        ({"over_18": True}, "over_18"),
        ({"over_18": None}, None),
        ({"is_self": False}, "link_post"),
        ({"contest_mode": True}, "score_hidden"),
        ({"score": None}, None),
        ({"title": "help", "selftext": "me"}, "too_short"),
        ({"title": "please help me", "selftext": ""}, None),
        ({"selftext": "word " * 1001}, "too_long"),
        ({"title": GERMAN, "selftext": GERMAN}, "not_english"),
    ],
)
def test_a_post_is_dropped_under_the_rule_that_names_it(changes: dict[str, Any], reason: str | None) -> None:
    assert outcome(post("p", **changes)) == reason


@pytest.mark.parametrize(
    ("changes", "settings", "reason"),
    [
        ({"edited": 1_617_236_000}, {"drop_edited": True}, "edited"),
        ({"edited": False}, {"drop_edited": True}, None),
        ({"parent_id": "t1_c0"}, {"top_level_only": False}, None),
        ({"body": GERMAN}, {"drop_non_english": False}, None),
        ({"created_utc": JULY_2023}, {"frozen_months": ()}, None),
        ({"author": "Helper9"}, {"bots": ("helper9",)}, "bot"),
        ({"body": "one two"}, {"min_comment_words": 2}, None),
        ({"body": "one two three"}, {"max_comment_words": 2, "min_comment_words": 0}, "too_long"),
    ],
)
def test_a_rule_follows_its_setting(changes: dict[str, Any], settings: dict[str, Any], reason: str | None) -> None:
    assert outcome(comment("c", "p", **changes), **settings) == reason


def test_adult_posts_stay_where_the_setting_says_so() -> None:
    assert outcome(post("p", over_18=True), drop_over_18=False) is None


def test_a_row_is_counted_under_the_first_rule_that_drops_it() -> None:
    names = [rule.reason for rule in RULES]
    assert names.index("deleted") < names.index("too_short") < names.index("not_english")
    assert outcome(comment("c", "p", author="[deleted]", body="no", stickied=True)) == "deleted"


@pytest.mark.parametrize("text", ["", "ok", "lol same :)", "♥ ♥ ♥", "!!! 12345 67890 ???", "Gracias"])
def test_texts_too_short_to_tell_are_not_called_foreign(text: str) -> None:
    assert not is_foreign(text)


def test_english_with_line_breaks_and_slang_is_kept() -> None:
    assert not is_foreign("im so sorry ur going thru this\n\nidk what to say but ur not alone in this ok")
    assert is_foreign(GERMAN.replace(" ", "\n"))


def test_counts_are_conserved_and_dropped_texts_do_not_travel_on() -> None:
    rows = [fields.comment(comment(f"c{i}", "p", stickied=i < 3)) for i in range(5)]
    rows += [fields.post(post(f"p{i}", over_18=i == 0)) for i in range(2)]
    tallies = [{"kind": "comment", "dropped": "malformed", "count": 7}, {"kind": "seen", "id": "post", "count": 2}]
    before = pa.concat_tables([table_of(rows), tallies_of(tallies)])
    after = clean(before, CleaningSettings())
    assert after.schema == ROW
    assert pc.sum(after["count"]).as_py() == pc.sum(before["count"]).as_py()
    gone = after.filter(pc.is_valid(after["dropped"]))
    assert gone["text"].null_count == gone.num_rows
    ends = {(row["kind"], row["dropped"]): (row["count"], row["post_id"]) for row in gone.to_pylist()}
    assert ends == {
        ("comment", "malformed"): (7, None),
        ("comment", "moderator"): (3, None),
        ("post", "over_18"): (1, "p0"),
    }


def test_an_empty_table_stays_empty() -> None:
    assert clean(RECORD.empty_table(), CleaningSettings()).num_rows == 0


def test_text_keys_are_blind_to_case_spacing_and_punctuation_only() -> None:
    assert text_key("comment", "You are NOT alone!!") == text_key("comment", "you  are not alone.")
    assert text_key("comment", "you are not alone") != text_key("comment", "you are not at all alone")
    assert text_key("comment", "you are not alone") != text_key("post", "you are not alone")
    assert text_key("comment", "!!!") != text_key("comment", "???")
