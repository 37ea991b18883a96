"""Every rule keeps what its own examples promise, and says where it comes from."""

import re
from pathlib import Path

import pytest

from configs.errors import ConfigError
from configs.prompts import messages
from configs.safety import SafetySettings
from serving.safety.guard import Guard
from serving.safety.rulebook import Combination, Rule, matches, read, shipped
from serving.safety.triage import Sign, Triage
from serving.safety.wording import folded

TRIAGE = Triage.of(SafetySettings())
GUARD = Guard.of(SafetySettings())
OLDER = {
    "post": "My cat is gone.",
    "reply": "When my cat died I sat on the kitchen floor for two days before I called my sister.",
}
BOOKS = ("triage", "guard", "injection")


def named(rules: tuple[Rule, ...]) -> list[object]:
    return [pytest.param(rule, id=rule.id) for rule in rules]


def signs(rule: Rule, text: str) -> list[Sign]:
    return TRIAGE.signs(rule, text, folded(text))


def broken(rule: Rule, text: str) -> bool:
    post = rule.given.get("post", "A post about a cat.")
    return rule.id in GUARD.look(text, post=post, prompt=messages("gm", post, None, [OLDER]))


@pytest.mark.parametrize("rule", named(shipped("triage").rules))
def test_a_triage_rule_finds_its_examples_and_nothing_else(rule: Rule) -> None:
    assert [text for text in rule.match if not any(sign.cue is None for sign in signs(rule, text))] == []
    assert [text for text in rule.no_match if signs(rule, text)] == []


@pytest.mark.parametrize("rule", named(tuple(r for r in shipped("triage").rules if r.lowered)))
def test_a_triage_rule_is_lowered_by_what_its_examples_show(rule: Rule) -> None:
    assert [text for text in rule.lowered if not signs(rule, text) or signs(rule, text)[0].cue is None] == []


@pytest.mark.parametrize("combination", [pytest.param(c, id=c.id) for c in shipped("triage").combinations])
def test_a_combination_holds_for_its_examples_and_no_others(combination: Combination) -> None:
    found = {text: combination.id in TRIAGE.look(text).signals for text in (*combination.match, *combination.no_match)}
    assert found == dict.fromkeys(combination.match, True) | dict.fromkeys(combination.no_match, False)


@pytest.mark.parametrize("rule", named(shipped("guard").rules))
def test_a_guard_rule_finds_its_examples_and_nothing_else(rule: Rule) -> None:
    assert [text for text in rule.match if not broken(rule, text)] == []
    assert [text for text in rule.no_match if broken(rule, text)] == []


@pytest.mark.parametrize("rule", named(shipped("injection").rules))
def test_an_injection_rule_finds_its_examples_and_nothing_else(rule: Rule) -> None:
    assert [text for text in rule.match if not matches(rule, folded(text))] == []
    assert [text for text in rule.no_match if matches(rule, folded(text))] == []


@pytest.mark.parametrize("rule", named(shipped("guard").rules))
def test_what_no_rule_should_find_breaks_no_other_rule_either(rule: Rule) -> None:
    """Else an answer that is fine would be written again."""
    post = rule.given.get("post", "A post about a cat.")
    assert {text: GUARD.look(text, post=post) for text in rule.no_match} == dict.fromkeys(rule.no_match, ())


def test_ids_are_unique_over_all_files() -> None:
    ids = [rule.id for book in BOOKS for rule in shipped(book).rules]
    ids += [one.id for one in shipped("triage").combinations]
    assert len(ids) == len(set(ids))


def test_each_level_of_the_columbia_scale_has_a_rule() -> None:
    assert {rule.cssrs for rule in shipped("triage").rules} >= {"1", "2", "3", "4", "5", "behaviour"}


def test_a_combination_names_factors_that_rules_have() -> None:
    factors = {rule.factor for rule in shipped("triage").rules}
    used = {factor for one in shipped("triage").combinations for group in one.all for factor in group}
    assert used - factors == set()


def test_each_kind_of_harm_has_a_rule() -> None:
    groups = {rule.id.split(".")[0] for rule in shipped("guard").rules}
    assert {"method", "encouragement", "minimising", "diagnosis", "medication", "contact", "personal"} <= groups
    assert {"emoji", "link", "leak", "language", "degenerate"} <= groups


def test_the_files_say_that_no_clinician_has_reviewed_them() -> None:
    folder = Path(__file__).parents[3] / "serving" / "safety" / "rules"
    for book in ("triage", "guard"):
        assert "NOT REVIEWED BY A CLINICIAN" in (folder / f"{book}.yaml").read_text(encoding="utf-8")


def test_the_documentation_lists_every_rule_with_the_version_of_its_file() -> None:
    text = (Path(__file__).parents[3] / "docs" / "safety.md").read_text(encoding="utf-8")
    for book in BOOKS:
        assert f"`{book}.yaml` {shipped(book).version}" in text
        assert [rule.id for rule in shipped(book).rules if f"`{rule.id}`" not in text] == []
    assert re.search(r"[Cc]linicians? must review", text)


RULE = """
kind: guard
version: "2.0.0"
rules:
  - id: house.word
    description: A word that our community does not use.
    source: house rules
    patterns: ['\\bgosh\\b']
    match: [Oh gosh.]
    no_match: [Oh well.]
"""


def test_a_rule_of_ones_own_is_applied_beside_the_shipped_ones(tmp_path: Path) -> None:
    (tmp_path / "house.yaml").write_text(RULE)
    guard = Guard.of(SafetySettings(rules=(str(tmp_path / "house.yaml"),)))
    assert guard.look("Oh gosh, that is hard 💪", post="A post.") == ("emoji.any", "house.word")


def test_a_rule_or_a_group_can_be_left_out() -> None:
    answer = "You'll be fine 💪"
    assert Guard.of(SafetySettings()).look(answer, post="A post.") == ("minimising.promise", "emoji.any")
    assert Guard.of(SafetySettings(without=("minimising", "emoji.any"))).look(answer, post="A post.") == ()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("id: house.word", "id: House"), "id: Value error, an id is group.name"),
        (("['\\bgosh\\b']", "['(gosh']"), "cannot be read: error"),
        (("    source: house rules\n", ""), "rules.0.source: Field required"),
        (("['\\bgosh\\b']", "[]"), "a rule has patterns or a check"),
        (("    match: [Oh gosh.]\n", ""), "rules.0.match: Field required"),
        (("['\\bgosh\\b']", "['{nothing}']"), "cannot be read: KeyError"),
        (("kind: guard", "kind: other"), "kind: Input should be"),
    ],
)
def test_a_rule_file_that_does_not_hold_names_the_file_and_the_field(
    tmp_path: Path, change: tuple[str, str], said: str
) -> None:
    path = tmp_path / "house.yaml"
    path.write_text(RULE.replace(*change))
    with pytest.raises(ConfigError, match=re.escape(said)) as error:
        read(path)
    assert str(path) in str(error.value)


def test_settings_that_name_no_rule_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"serving.safety.without: emojis is no rule or group"):
        Guard.of(SafetySettings(without=("emojis",)))
    with pytest.raises(ConfigError, match="is not there"):
        Guard.of(SafetySettings(rules=(str(tmp_path / "none.yaml"),)))
