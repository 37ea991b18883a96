"""Identifying strings leave the text; crisis lines and plain numbers stay; both ways of scrubbing agree."""

from pathlib import Path

import hypothesis
import hypothesis.strategies as st
import pyarrow as pa
import pytest

from benchmarks.texts import texts_of
from configs.corpus import ScrubSettings
from pipelines.corpus import crisis
from pipelines.corpus.scrub import scrub, scrub_column
from pipelines.corpus.scrub_report import Example, example, labelled, report, right


@pytest.mark.parametrize(
    ("text", "scrubbed"),
    [
        ("thanks u/some_body-1!", "thanks [USER]!"),
        ("/u/someone said so", "[USER] said so"),
        ("u/one_one,u/two_two", "[USER],[USER]"),
        ("find me @some.one99", "find me [USER]"),
        ("find me @river-walks.", "find me [USER]."),
        ("add earlybird#8949 there", "add [USER] there"),
        ("my discord: sleepy_fox7", "my discord: [USER]"),
        ("mail a.b+c@mail.example.org now", "mail [EMAIL] now"),
        ("kim (at) gmail (dot) com", "[EMAIL]"),
        ("sunny.days at gmail dot com works", "[EMAIL] works"),
        ("see https://example.org/a?b=c, it helps", "see [URL], it helps"),
        ("(see https://example.org/wiki/Grief_(emotion))", "(see [URL])"),
        ("(www.example.com/x)", "([URL])"),
        ("example.com/x has it", "[URL] has it"),
        ("bit.ly/3xYz", "[URL]"),
        ("[this page](https://example.org/a_b) helped", "this page [URL] helped"),
        ("it was fine.com on", "it was [URL] on"),
        ("call 415-555-0132", "call [PHONE]"),
        ("call (415) 555-0132 today", "call [PHONE] today"),
        ("call +44 20 7946 0958", "call [PHONE]"),
        ("call 4155550132.", "call [PHONE]."),
        ("ring me, the number is 555-0132", "ring me, the number is [PHONE]"),
        ("my ip is 192.168.1.77", "my ip is [IP]"),
        ("from 2001:db8:0:1:1:1:1:1 on", "from [IP] on"),
        ("from 2001:db8::ff00:42:8329 on", "from [IP] on"),
        ("I live at 123 Main Street, Apt 4B.", "I live at [ADDRESS]."),
        ("350 North Hill Road, Springfield, IL 62701 it is", "[ADDRESS] it is"),
        ("write to P.O. Box 1234", "write to [ADDRESS]"),
        ("my student id is 20214478193", "my student id is [NUMBER]"),
        ("card 4111 1111 1111 1111", "card [NUMBER]"),
        ("ssn 078-05-1120", "ssn [NUMBER]"),
        ("iban GB82 WEST 1234 5698 7654 32", "iban [NUMBER]"),
    ],
)
def test_what_identifies_becomes_a_typed_placeholder(text: str, scrubbed: str) -> None:
    assert scrub(text) == scrubbed
    assert scrub_column(pa.array([text])).to_pylist() == [scrubbed]


@pytest.mark.parametrize(
    "text",
    [
        "r/Anxiety helped me, and/or u/me",
        "I slept.I woke",
        "you're at Emory",
        "since 2019-2020 I took 20 mg at 10:30:45",
        "I paid $1234567890 or 100,000,000",
        "version 1.2.3 of 10/12/2020",
        "24/7 and 50/50, and/or",
        "about 12000 people, 5 to 6 of 10",
        "it is a 2 way street",
        "5 minutes down the road",
        "he has +200 ban evading accounts",
        "200-1000 people came",
        "over 100000000 people",
        "a 12-step programme, 3 1/2 years, 50 mg",
    ],
)
def test_plain_numbers_and_plain_words_stay(text: str) -> None:
    assert scrub(text) == text
    assert scrub_column(pa.array([text])).to_pylist() == [text]


@pytest.mark.parametrize("line", crisis.lines(), ids=lambda line: f"{line.country}-{line.name}-{line.number}")
def test_the_number_of_a_crisis_line_stays_at_home_and_from_abroad(line: crisis.CrisisLine) -> None:
    assert line.country
    assert line.name
    assert "." in line.source
    spelt = [line.number, line.number.replace(" ", "-"), crisis.digits(line.number)]
    if line.code and len(crisis.digits(line.number)) >= 6:
        spelt.append(f"+{line.code} {line.number.removeprefix('0')}")
    for number in spelt:
        assert scrub(f"you can call {number} any time") == f"you can call {number} any time"


@pytest.mark.parametrize(
    "text",
    [
        "call or text 988 any time",
        "text HOME to 741741",
        "1-800-273-8255 is open all night",
        "(800) 273-8255",
        "1 (877) 565-8860",
        "+1 800-273-8255",
        "+44 116 123",
    ],
)
def test_crisis_lines_stay_in_any_spelling(text: str) -> None:
    assert scrub(text) == text


def test_a_number_one_digit_off_a_crisis_line_does_not_stay() -> None:
    assert scrub("1-800-273-8256") == "[PHONE]"


def test_numbers_of_ones_own_can_be_kept() -> None:
    settings = ScrubSettings(keep_numbers=("415-555-0132",))
    assert scrub("(415) 555-0132 or 415-555-0133", settings) == "(415) 555-0132 or [PHONE]"


EACH = {
    "URL": "www.x.org", "EMAIL": "ab@x.org", "USER": "u/abc", "ADDRESS": "12 Oak Street", "IP": "10.0.0.1",
    "PHONE": "415-555-0132", "NUMBER": "078-05-1120",
}  # fmt: skip


@pytest.mark.parametrize("kind", EACH)
def test_a_kind_that_is_not_asked_for_stays(kind: str) -> None:
    text = "; ".join(EACH.values())
    only = ScrubSettings(kinds=(kind,))
    expected = text.replace(EACH[kind], f"[{kind}]")
    assert scrub(EACH[kind], only) == f"[{kind}]"
    assert scrub(EACH[kind], ScrubSettings(kinds=())) == EACH[kind]
    if kind != "URL":  # an e-mail address holds a domain
        assert scrub(text, only) == scrub_column(pa.array([text]), only)[0].as_py() == expected


def test_scrubbing_twice_changes_nothing_more() -> None:
    once = scrub("u/abc a@b.org www.x.org 415-555-0132 10.0.0.1 [t](https://x.org)")
    assert once == "[USER] [EMAIL] [URL] [PHONE] [IP] t [URL]"
    assert scrub(once) == once


def test_nulls_slices_and_chunks_keep_their_places() -> None:
    whole = pa.array(["x", None, "u/abc", "", "call 415-555-0132"])
    assert scrub_column(whole).to_pylist() == ["x", None, "[USER]", "", "call [PHONE]"]
    assert scrub_column(whole.slice(2)).to_pylist() == ["[USER]", "", "call [PHONE]"]
    assert scrub_column(pa.array([], pa.string())).type == pa.string()
    assert scrub_column(pa.nulls(2, pa.string())).to_pylist() == [None, None]


PIECES = st.sampled_from(
    [
        *EACH.values(), "https://", "(at)", "(dot)", "http://a.b/c(d)", "@", "u/", "/u/", "user/", ".com", "gmail",
        " at ", "dot", "[", "](", ")", "(", ".", ",", "-", "+", "/", ":", "::", "#", "$", "1234", "555", "0132", "988",
        "116 123", "(800) 273-8255", "2001:db8", "99.1", "discord", "snap", ": ", "Main", "Street", "st", "way", "the",
        "Box", "P.O. Box 7", "SW1A 2AB", "GB82", "\n", "\u00a0", "\u2019", "\u0131", "\u0130", "\u212a", "é", "ß",
        " ", " ", " ", "call",
    ]
)  # fmt: skip
TEXTS = st.one_of(st.lists(PIECES, max_size=14).map("".join), st.lists(PIECES, max_size=10).map(" ".join), st.text())


@hypothesis.settings(max_examples=400, deadline=None)
@hypothesis.given(texts=st.lists(TEXTS, min_size=1, max_size=8))
def test_a_column_is_scrubbed_as_each_of_its_texts_in_plain_python(texts: list[str]) -> None:
    assert scrub_column(pa.array(texts, pa.string())).to_pylist() == [scrub(text) for text in texts]


@hypothesis.settings(max_examples=200, deadline=None)
@hypothesis.given(text=TEXTS, kinds=st.sets(st.sampled_from(sorted(EACH))))
def test_both_ways_agree_whatever_kinds_are_asked_for(text: str, kinds: set[str]) -> None:
    settings = ScrubSettings(kinds=tuple(sorted(kinds)))
    assert scrub_column(pa.array([text], pa.string()), settings).to_pylist() == [scrub(text, settings)]


def test_both_ways_agree_on_real_comments(shared_data: Path) -> None:
    texts = texts_of(sorted((shared_data / "college").glob("RC_*.zst")))[:3000]
    assert scrub_column(pa.array(texts)).to_pylist() == [scrub(text) for text in texts]


def test_the_labelled_set_is_large_and_has_examples_of_every_kind_and_of_none() -> None:
    kinds = [kind for row in labelled() for kind, _ in row.marks]
    assert len(labelled()) >= 150
    assert all(kinds.count(kind) >= 8 for kind in (*EACH, "NAME"))
    assert sum(not row.marks for row in labelled()) >= 60
    assert all(words in row.text for row in labelled() for _, words in row.marks)


def test_the_report_states_recall_and_precision_by_kind_and_that_names_are_not_found() -> None:
    figures = report(ScrubSettings())
    assert figures["NAME"] == {"labelled": 10, "found": 0, "wrong": 0, "recall": 0.0}
    for kind in EACH:
        assert figures[kind]["recall"] >= 0.8
        assert figures[kind]["precision"] >= 0.9
    total = sum(figures[kind]["labelled"] for kind in EACH)
    assert sum(figures[kind]["found"] for kind in EACH) / total >= 0.92


def test_the_report_falls_where_a_kind_is_switched_off() -> None:
    figures = report(ScrubSettings(kinds=("URL",)))
    assert figures["PHONE"]["recall"] == 0.0
    assert "precision" not in figures["PHONE"]


def test_a_find_counts_only_whole_and_under_its_kind() -> None:
    row = example("write to [[EMAIL:jo.may@x.org]] or [[EMAIL:ann@b.net]]")
    assert row == Example("write to jo.may@x.org or ann@b.net", (("EMAIL", "jo.may@x.org"), ("EMAIL", "ann@b.net")))
    assert len(list(right(row, "write to [EMAIL] or [EMAIL]"))) == 2
    assert list(right(row, "write to jo.may[EMAIL] or ann[EMAIL]")) == []
    assert list(right(row, "write to [USER] or [USER]")) == []
    assert [words for _, words in right(row, "write to [EMAIL] or ann@b.net")] == ["jo.may@x.org"]
