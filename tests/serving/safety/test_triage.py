"""The triage: levels of labelled sentences, ways around a filter, whom and when a sign is about."""

import asyncio
import time

import pytest

from configs.errors import ConfigError
from configs.safety import SafetySettings
from serving.safety.risk import Level, Risk
from serving.safety.triage import Triage
from tests.serving.safety.labelled import SETS, seen, share

TRIAGE = Triage.of(SafetySettings())


def level(text: str) -> Level:
    return TRIAGE.look(text).level


def test_no_sentence_that_the_rules_were_written_with_is_overlooked() -> None:
    counts = seen(TRIAGE, "tuned")
    assert share(counts, "acute", "acute") == 1
    assert share(counts, "elevated", "elevated", "acute") == 1
    assert share(counts, "none", "none") >= 0.95


def test_what_the_rules_learned_stays_learned() -> None:
    counts = seen(TRIAGE, *SETS)
    assert share(counts, "acute", "elevated", "acute") >= 0.92
    assert share(counts, "acute", "acute") >= 0.85
    assert share(counts, "elevated", "elevated", "acute") >= 0.95
    assert share(counts, "none", "none") >= 0.96


@pytest.mark.parametrize(
    "text",
    [
        "i want to k1ll myself",
        "I want to k*ll mys*lf",
        "k i l l m y s e l f",
        "su!cidal again",
        "I am S.U.I.C.I.D.A.L",
        "i wanna unalive myself",
        "I want to ki\u200bll my\u00adself",
        "\uff29 \uff57\uff41\uff4e\uff54 \uff54\uff4f \uff44\uff49\uff45",  # full width
        "I w\u0430nt to di\u0435",  # Cyrillic letters
        "I WANT TO DIEEEEE",
        "I… want… to… die…",
        "I don\u2019t want to live anymore",
        "i want to\ndie",
    ],
)
def test_ways_around_a_filter_do_not_lead_around_the_triage(text: str) -> None:
    assert level(text) != "none"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("I want to kill myself.", "acute"),
        ("My sister wants to kill herself.", "elevated"),
        ("Do you want to kill yourself?", "elevated"),
        ("Does anyone else want to die?", "acute"),
        ("My sister left and I want to die.", "acute"),
        ("My brother just took a whole bottle of pills.", "acute"),
        ("Want to die. So tired.", "acute"),
        ("The phone is going to die.", "none"),
    ],
)
def test_first_second_and_third_person_are_told_apart(text: str, expected: Level) -> None:
    assert level(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("I don't want to die.", "elevated"),
        ("I'm not suicidal.", "elevated"),
        ("I can't stop thinking about suicide.", "acute"),
        ("I can't live like this, I want to die.", "acute"),
        ("There is no reason not to kill myself.", "acute"),
        ("I won't hurt anyone but I will kill myself.", "acute"),
    ],
)
def test_a_negation_lowers_by_one_step_and_no_other_word_does(text: str, expected: Level) -> None:
    assert level(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Ten years ago I tried to kill myself.", "elevated"),
        ("Two weeks ago I tried to kill myself.", "acute"),
        ("I tried to kill myself.", "acute"),
        ("I have wanted to die since I was ten.", "acute"),
        ("When I was 14 I was suicidal and now it is back.", "acute"),
    ],
)
def test_the_past_lowers_what_is_over(text: str, expected: Level) -> None:
    assert level(text) == expected


def test_signs_that_say_little_alone_say_more_together() -> None:
    given, found = "I gave away my guitar and my records.", "I found someone to take my dog."
    assert level("I feel calm for the first time in months.") == "none"
    assert level(given) == "elevated"
    assert level(f"{given} I said my goodbyes.") == "acute"
    assert level(f"I don't want to be here anymore. {found}") == "acute"


def test_a_sign_at_the_end_of_a_long_post_counts_as_at_its_start() -> None:
    filler = "We moved the boxes and talked about the weather and the rent. " * 300
    assert level(filler) == "none"
    assert level(filler + "I want to kill myself.") == "acute"
    unpunctuated = "and then we moved the boxes and talked about the rent " * 300
    assert level(unpunctuated + "i want to kill myself " + unpunctuated) == "acute"


def test_a_post_in_another_language_is_not_taken_for_calm() -> None:
    risk = TRIAGE.look("Je ne veux plus vivre, tout le monde serait mieux sans moi et personne ne le sait.")
    assert risk == Risk("elevated", ("unread.foreign",))


def test_signals_are_ids_and_never_words_of_the_post() -> None:
    risk = TRIAGE.look("Zanzibar zebras: my sister wants to kill herself and I hurt myself.")
    assert risk.signals == ("ideation.kill_self/other", "harm.self")
    assert risk.action == "show_resources"
    assert risk.resources_required


def test_what_the_caller_is_asked_to_do_follows_from_the_level() -> None:
    actions = [Risk(level).action for level in ("none", "elevated", "acute")]
    assert actions == ["none", "show_resources", "hand_over"]
    assert not Risk().resources_required


def test_a_helpers_draft_raises_the_level_to_elevated_at_most() -> None:
    post, draft = "I feel lonely.", "Do you want to kill yourself? When I was twenty I tried to kill myself."
    risk = TRIAGE.look(post, draft=draft)
    assert risk.level == "elevated"
    assert all(signal.startswith("draft:") for signal in risk.signals)
    assert level("I want to kill myself.") == "acute"
    assert TRIAGE.look(post, draft="I want to kill myself.").level == "elevated"
    assert TRIAGE.look("I want to die.", draft="That sounds hard.").level == "acute"


def test_the_cost_of_a_hostile_text_grows_no_faster_than_its_length() -> None:
    """CPU time of four times the text: quadratic would be 16 times, as it was before windows and bounds."""
    texts = ("i can't do this ", "i want to die ", "my friend told me that ", "k ", "'", "took all the ", "a", "#_")

    def cost(characters: int) -> float:
        started = time.process_time()
        for text in texts:
            TRIAGE.look(text * (characters // len(text)) + "b")
        return time.process_time() - started

    assert cost(20_000) < 9 * cost(5_000)


def cautious(text: str) -> Level:
    return "acute" if "lighthouse" in text else "none"


def broken(text: str) -> Level:
    raise ValueError(text)


def unsure(text: str) -> str:
    return "perhaps"


def slow(text: str) -> Level:
    time.sleep(0.5)
    return "none"


def with_classifier(name: str, seconds: float = 2.0) -> Triage:
    return Triage.of(SafetySettings(classifier=f"{__name__}:{name}", classifier_timeout_s=seconds))


def test_a_classifier_raises_the_level_and_never_lowers_it() -> None:
    triage = with_classifier("cautious")
    assert triage.look("Meet me at the lighthouse.") == Risk("acute", ("classifier.acute",))
    assert triage.look("I want to die.").level == "acute"
    assert asyncio.run(triage.assess("Meet me at the lighthouse.")).level == "acute"


@pytest.mark.parametrize(("name", "seconds"), [("broken", 2.0), ("unsure", 2.0), ("slow", 0.05)])
def test_a_classifier_that_fails_costs_a_shown_resource_and_no_word_in_the_log(
    name: str, seconds: float, caplog: pytest.LogCaptureFixture
) -> None:
    risk = asyncio.run(with_classifier(name, seconds).assess("My zebra is lonely."))
    assert risk == Risk("elevated", ("classifier.failed",))
    assert "classifier" in caplog.text
    assert "zebra" not in caplog.text


@pytest.mark.parametrize("name", ["nowhere:at_all", f"{__name__}:missing", "no_colon", f"{__name__}:TRIAGE"])
def test_a_classifier_that_cannot_be_loaded_is_named_before_the_service_starts(name: str) -> None:
    with pytest.raises(ConfigError, match=r"serving\.safety\.classifier="):
        Triage.of(SafetySettings(classifier=name))
