"""Each rule drops what it names, and nothing goes without a reason."""

from pathlib import Path
from typing import Any

import hypothesis
import hypothesis.strategies as st
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from benchmarks.texts import texts_of
from configs.corpus import CleaningSettings
from pipelines.corpus import fields
from pipelines.corpus.cleaning import RULES, clean, month_span
from pipelines.corpus.language import foreign, is_foreign
from pipelines.corpus.reader import table_of, tallies_of
from pipelines.corpus.schema import RECORD, ROW
from tests.pipelines.corpus.dumps import APRIL_2021, comment, post

JULY_2023, AUGUST_2023, NOVEMBER_2023, DECEMBER_2023 = 1_689_000_000, 1_690_848_000, 1_698_796_800, 1_702_000_000
GERMAN = "Ich weiß genau, wie du dich fühlst, und es tut mir sehr leid, dass es dir so schlecht geht."


def outcome(row: dict[str, Any], **settings: Any) -> str | None:
    """The reason for which the row is dropped, None where it is kept."""
    convert = fields.post if "title" in row else fields.comment
    cleaned = clean(table_of([convert(row)]), CleaningSettings(**settings))
    assert pc.sum(cleaned["count"]).as_py() == 1
    return cleaned["dropped"].to_pylist()[0]


COMMENTS = [
    ({}, None),
    ({"body": "[removed]"}, "deleted"),
    ({"body": "[deleted]"}, "deleted"),
    ({"author": "[deleted]"}, "deleted"),
    ({"distinguished": "moderator"}, "moderator"),
    ({"distinguished": None}, None),
    ({"stickied": True}, "moderator"),
    ({"author": "AutoModerator"}, "bot"),
    ({"author": "automoderator"}, "bot"),
    ({"author": "TotesMessenger"}, "bot"),
    ({"author": "haiku-Bot"}, "bot"),
    ({"author": "convert_bot_2"}, "bot"),
    ({"author": "FixItBot3000"}, "bot"),
    ({"author": "remindmebot"}, "bot"),
    ({"author": "Abbott"}, None),
    ({"author": "OldTalbot"}, None),
    ({"author": "mr_robot"}, None),
    ({"author": "bottle_of_tea"}, None),
    ({"body": "Here is a reminder. *I am a bot, and this action was performed automatically.*"}, "bot"),
    ({"body": "Your wish is noted here ^^I ^^am ^^a ^^bot ^^| ^^info"}, "bot"),
    ({"body": "Your post was short. This message was posted automatically by our filter."}, "bot"),
    ({"body": "beep boop! here is a haiku for you all, says the bot"}, "bot"),
    ({"body": "some days I feel like I am a bot that only works and sleeps"}, None),
    ({"parent_id": "t1_c0"}, "not_top_level"),
    ({"parent_id": None}, "not_top_level"),
    ({"score": None}, "score_missing"),
    ({"score_hidden": True}, "score_hidden"),
    ({"created_utc": JULY_2023}, "frozen_month"),
    ({"created_utc": str(JULY_2023)}, "frozen_month"),
    ({"created_utc": AUGUST_2023 - 1}, "frozen_month"),
    ({"created_utc": NOVEMBER_2023, "_meta": {"retrieved_2nd_on": 1}}, None),
    ({"created_utc": NOVEMBER_2023 - 1, "_meta": {"retrieved_2nd_on": 1}}, "frozen_month"),
    ({"created_utc": DECEMBER_2023}, "score_unsettled"),
    ({"created_utc": DECEMBER_2023, "_meta": {"note": ""}}, "score_unsettled"),
    ({"created_utc": DECEMBER_2023, "_meta": {"retrieved_2nd_on": 1}}, None),
    ({"edited": 1_617_236_000}, None),
    ({"body": "https://example.org/a-very-long-way/to-help"}, "link_only"),
    ({"body": "[how to sleep when nothing else helps](https://example.org/a)"}, "link_only"),
    ({"body": "This helped me: www.example.org"}, "link_only"),
    ({"body": "I read https://example.org/a every evening before I sleep"}, None),
    ({"body": "same here, my friend"}, "too_short"),
    ({"body": "word " * 401}, "too_long"),
    ({"body": GERMAN}, "not_english"),
]
POSTS = [
    ({}, None),
    ({"author": "[deleted]"}, None),
    ({"selftext": "[removed]"}, "deleted"),
    ({"removed_by_category": "moderator"}, "deleted"),
    ({"stickied": True}, "moderator"),
    ({"author": "AutoModerator"}, "bot"),
    ({"over_18": True}, "over_18"),
    ({"over_18": None}, None),
    ({"is_self": False}, "link_post"),
    ({"is_self": None}, None),
    ({"selftext": "https://example.org/a"}, "link_only"),
    ({"crosspost_parent": "t3_p0"}, "crosspost"),
    ({"crosspost_parent_list": [{"id": "p0"}]}, "crosspost"),
    ({"crosspost_parent": None, "crosspost_parent_list": []}, None),
    ({"contest_mode": True}, "contest_mode"),
    ({"created_utc": JULY_2023}, "frozen_month"),
    ({"score": None}, None),
    ({"title": "help", "selftext": "me"}, "too_short"),
    ({"title": "please help me", "selftext": ""}, None),
    ({"selftext": "word " * 1001}, "too_long"),
    ({"title": GERMAN, "selftext": GERMAN}, "not_english"),
]


@pytest.mark.parametrize(("changes", "reason"), COMMENTS)
def test_a_comment_is_dropped_under_the_rule_that_names_it(changes: dict[str, Any], reason: str | None) -> None:
    assert outcome(comment("c", "p", **changes)) == reason


@pytest.mark.parametrize(("changes", "reason"), POSTS)
def test_a_post_is_dropped_under_the_rule_that_names_it(changes: dict[str, Any], reason: str | None) -> None:
    assert outcome(post("p", **changes)) == reason


@pytest.mark.parametrize("changes", [changes for changes, reason in COMMENTS if reason])
def test_switched_off_the_rule_keeps_the_comment_it_dropped(changes: dict[str, Any]) -> None:
    reason = outcome(comment("c", "p", **changes))
    assert outcome(comment("c", "p", **changes), **{f"drop_{reason}": False}) != reason


@pytest.mark.parametrize("changes", [changes for changes, reason in POSTS if reason])
def test_switched_off_the_rule_keeps_the_post_it_dropped(changes: dict[str, Any]) -> None:
    reason = outcome(post("p", **changes))
    assert outcome(post("p", **changes), **{f"drop_{reason}": False}) != reason


def test_every_rule_but_those_beyond_one_row_drops_some_row_of_these_tests() -> None:
    shown = {reason for _, reason in COMMENTS + POSTS}
    assert shown >= {rule.reason for rule in RULES} - {"edited"}


def test_each_rule_has_a_switch_of_its_reasons_name_and_each_switch_a_rule() -> None:
    switches = {name.removeprefix("drop_") for name in CleaningSettings.model_fields if name.startswith("drop_")}
    elsewhere = {"own_reply", "duplicate", "near_duplicate"}
    assert switches == {rule.reason for rule in RULES} | elsewhere


def test_with_every_switch_off_nothing_is_dropped() -> None:
    off = {name: False for name in CleaningSettings.model_fields if name.startswith("drop_")}
    rows = [fields.comment(comment("c", "p", **changes)) for changes, _ in COMMENTS]
    rows += [fields.post(post("p", **changes)) for changes, _ in POSTS]
    assert clean(table_of(rows), CleaningSettings(**off))["dropped"].null_count == len(rows)


@pytest.mark.parametrize(
    ("changes", "settings", "reason"),
    [
        ({"edited": 1_617_236_000}, {"drop_edited": True}, "edited"),
        ({"edited": False}, {"drop_edited": True}, None),
        ({"created_utc": JULY_2023}, {"frozen_months": ()}, None),
        ({"created_utc": APRIL_2021}, {"frozen_months": ("2021-04",)}, "frozen_month"),
        ({"created_utc": DECEMBER_2023}, {"settled_from": "2024-01"}, None),
        ({"author": "Helper9"}, {"bots": ("helper9",)}, "bot"),
        ({"author": "Helper9"}, {"bot_names": ("^Helper[0-9]$",)}, "bot"),
        ({"author": "Helper9"}, {"bot_names": ("^Helper[0-9]$",), "bot_names_except": ("9$",)}, None),
        ({"author": "SomeBot"}, {"bot_names": ()}, None),
        ({"body": "sent by our team of volunteers, always"}, {"bot_texts": ("our team of volunteers",)}, "bot"),
        ({"body": "this is what I read www.example.org"}, {"link_only_words": 5}, "link_only"),
        ({"body": "one two"}, {"min_comment_words": 2}, None),
        ({"body": "one two three"}, {"max_comment_words": 2, "min_comment_words": 0}, "too_long"),
        ({"body": GERMAN}, {"not_english_probability": 1.0}, None),
        ({"body": GERMAN}, {"not_english_min_letters": 500}, None),
    ],
)
def test_a_rule_follows_its_settings(changes: dict[str, Any], settings: dict[str, Any], reason: str | None) -> None:
    assert outcome(comment("c", "p", **changes), **settings) == reason


def test_a_pattern_that_is_none_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match=r"bot_texts[\s\S]*'\(open' is no pattern"):
        CleaningSettings(bot_texts=("(open",))


def test_months_end_where_the_next_begins_also_in_december() -> None:
    assert month_span("2023-12") == (1_701_388_800, 1_704_067_200)
    assert month_span("2024-01")[0] == 1_704_067_200


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


ENGLISH_FOR_SURE = [
    "I know how you feel, and it is not your fault that they would not listen to you when you asked.",
    "This is what my doctor told me about it, and I think you should know that it can get better.",
]


@pytest.mark.parametrize(
    "text",
    [
        GERMAN,
        "Ik weet precies hoe je je voelt, en het spijt me heel erg dat het niet goed met je gaat vandaag.",
        "Sé exactamente cómo te sientes y lamento mucho que estés pasando por todo esto ahora mismo.",
        "Je sais exactement ce que tu ressens et je suis vraiment désolé que tu ailles aussi mal aujourd'hui.",
        "Jag vet precis hur du mår och jag är verkligen ledsen att du har det så svårt just nu, min vän.",
        "Eu sei exatamente como você se sente e lamento muito que esteja passando por tudo isso agora.",
        "So esattamente come ti senti e mi dispiace davvero tanto che tu stia passando tutto questo adesso.",
        "Я точно знаю, что ты чувствуешь, и мне очень жаль, что тебе сейчас так тяжело, держись.",
    ],
)
def test_no_other_language_passes_for_english_without_the_detector(text: str) -> None:
    assert foreign(pa.chunked_array([[text]]), 0.6, 24).to_pylist() == [True]


def test_the_column_and_the_detector_agree_and_plain_english_does_not_need_it(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [*ENGLISH_FOR_SURE, GERMAN, "", "ok", None]
    decided = foreign(pa.chunked_array([texts[:2], texts[2:]]), 0.6, 24).to_pylist()
    assert decided == [text is not None and is_foreign(text) for text in texts] == [False, False, True] + [False] * 3
    monkeypatch.setattr("pipelines.corpus.language._detector", lambda: pytest.fail("the detector was asked"))
    assert foreign(pa.chunked_array([ENGLISH_FOR_SURE]), 0.6, 24).to_pylist() == [False, False]


def test_on_real_comments_the_quick_way_decides_as_the_detector_does(shared_data: Path) -> None:
    texts = texts_of(sorted((shared_data / "college").glob("RC_*.zst")))[:4000]
    quick = foreign(pa.chunked_array([texts]), 0.6, 24).to_pylist()
    differ = sum(one != is_foreign(text) for one, text in zip(quick, texts, strict=True))
    assert differ <= 2


WORDS = st.sampled_from(["sleep", "help", "friend", "https://example.org/a", "bot", "nicht", "und", "the", "you", "I"])
ROWS = st.lists(
    st.one_of(
        st.fixed_dictionaries(
            {
                "id": st.sampled_from([f"c{i}" for i in range(6)]),
                "body": st.one_of(st.lists(WORDS, max_size=30).map(" ".join), st.text(max_size=40)),
                "author": st.sampled_from(["a", "b", "[deleted]", "AutoModerator", "xBot"]),
                "score": st.one_of(st.none(), st.integers(-5, 50)),
                "stickied": st.booleans(),
                "score_hidden": st.sampled_from([None, True, False]),
                "edited": st.sampled_from([False, 1_617_236_000]),
                "created_utc": st.sampled_from([APRIL_2021, JULY_2023, DECEMBER_2023]),
            }
        ).map(lambda changes: fields.comment(comment("c", "p") | changes)),
        st.fixed_dictionaries(
            {
                "id": st.sampled_from([f"p{i}" for i in range(6)]),
                "selftext": st.lists(WORDS, max_size=30).map(" ".join),
                "over_18": st.sampled_from([None, True, False]),
                "contest_mode": st.sampled_from([None, True, False]),
            }
        ).map(lambda changes: fields.post(post("p") | changes)),
    ),
    max_size=20,
)
SWITCHES = st.dictionaries(
    st.sampled_from([name for name in CleaningSettings.model_fields if name.startswith("drop_")]), st.booleans()
)


@hypothesis.settings(max_examples=60, deadline=None)
@hypothesis.given(rows=ROWS, switches=SWITCHES)
def test_whatever_the_rows_and_switches_every_row_is_kept_or_has_a_reason_that_is_switched_on(
    rows: list[dict[str, Any]], switches: dict[str, bool]
) -> None:
    settings = CleaningSettings(**switches)
    before = table_of(rows) if rows else RECORD.empty_table()
    after = clean(before, settings)
    assert (pc.sum(after["count"]).as_py() or 0) == len(rows)
    for reason in set(after["dropped"].to_pylist()) - {None}:
        assert getattr(settings, f"drop_{reason}")
    kept = after.filter(pc.is_null(after["dropped"]))
    assert set(kept["id"].to_pylist()) <= {row["id"] for row in rows}
    again = clean(before, settings)
    assert again.equals(after)
