"""Rules as versioned YAML: read, checked, compiled.

A rule has an id (``group.name``), a description, a source, patterns and examples. The examples
are the rule's test: one under ``match`` must be found, one under ``no_match`` must not, and one
under ``lowered`` must be found at a step less. Patterns are Python's regular expressions over
folded text (see ``wording``); ``{name}`` stands for one of the file's ``words``.
"""

import re
from functools import cache, cached_property
from pathlib import Path
from typing import Any, Literal, Self

import yaml
from pydantic import Field, ValidationError, field_validator, model_validator

from configs.base import Section
from configs.errors import ConfigError
from configs.safety import SafetySettings
from serving.safety.wording import FOLDER, cues, of_a_thing, sentences

Kind = Literal["triage", "guard", "injection"]
KINDS: tuple[Kind, ...] = ("triage", "guard", "injection")
"""What a file of rules is for; one of each is shipped."""
Strength = Literal["hint", "elevated", "acute"]
STRENGTHS: tuple[Strength, ...] = ("hint", "elevated", "acute")
"""A hint says nothing alone; two of different factors are elevated."""
LOWERING = ("negated", "past", "other", "reported", "fiction", "figurative")
"""Cues that may lower a rule."""
ID = re.compile(r"[a-z_]+\.[a-z_]+")


class Rule(Section):
    """One rule of any file."""

    id: str
    """``group.name``; what signals, refusals and metrics show."""
    description: str = Field(min_length=10)
    """What it finds, and why that matters."""
    source: str = Field(min_length=3)
    """Literature or guideline that it rests on; ``own`` where it is our own wording of a plain need."""
    patterns: tuple[str, ...] = ()
    """Regular expressions; any one is enough."""
    check: str | None = None
    """Name of a check that no pattern can make, instead of patterns (guard)."""
    given: dict[Literal["post", "draft"], str] = Field(default_factory=dict)
    """Post and draft that the examples answer (guard)."""
    lowered_by: tuple[str, ...] = ()
    """Cues under which the rule counts a step less; a guard's rule does not count at all then."""
    match: tuple[str, ...] = Field(min_length=1)
    """Examples that the rule must find."""
    no_match: tuple[str, ...] = Field(min_length=1)
    """Examples that it must not find."""
    lowered: tuple[str, ...] = ()
    """Examples that it must find with a cue that lowers it."""
    level: Strength = "acute"
    """What a match says by itself (triage)."""
    factor: str | None = None
    """What kind of sign it is, for combinations (triage)."""
    cssrs: str | None = None
    """Level of the Columbia scale that the wording comes nearest to (triage): 1-5 or ``behaviour``."""
    unless_in: tuple[Literal["post", "draft"], ...] = ()
    """Not broken by words that stand in the post or draft already (guard)."""
    harmful: bool = False
    """Broken, the answer's reader needs resources whatever the triage said (guard)."""

    @field_validator("id")
    @classmethod
    def _named(cls, value: str) -> str:
        if not ID.fullmatch(value):
            raise ValueError("an id is group.name in small letters")
        return value

    @field_validator("lowered_by")
    @classmethod
    def _known(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if unknown := set(value) - set(LOWERING):
            raise ValueError(f"{', '.join(sorted(unknown))} is none of {', '.join(LOWERING)}")
        return value

    @model_validator(mode="after")
    def _finds(self) -> Self:
        if bool(self.patterns) == bool(self.check):
            raise ValueError("a rule has patterns or a check")
        return self

    @cached_property
    def regex(self) -> re.Pattern[str]:
        """All patterns as one."""
        return re.compile("|".join(f"(?:{pattern})" for pattern in self.patterns))

    def found(self, sentence: str) -> list[tuple[re.Match[str], tuple[str, ...]]]:
        """Every match in a folded sentence, with the cues that lower it."""
        if not self.lowered_by:
            return [(match, ()) for match in self.regex.finditer(sentence)]
        return [
            (match, tuple(cue for cue in cues(sentence, match) if cue in self.lowered_by))
            for match in self.regex.finditer(sentence)
            if not of_a_thing(sentence[: match.start()])
        ]


class Combination(Section):
    """Signs that say more together than each does."""

    id: str
    """``combination.name``."""
    description: str = Field(min_length=10)
    """Why they belong together."""
    source: str = Field(min_length=3)
    """Literature that it rests on."""
    level: Strength
    """What they say together."""
    all: tuple[tuple[str, ...], ...]
    """Groups of factors: one of each, all different, at least one of them more than a hint."""
    match: tuple[str, ...] = Field(min_length=1)
    """Examples that it must find."""
    no_match: tuple[str, ...] = Field(min_length=1)
    """Examples that it must not find."""


class Rulebook(Section):
    """One file."""

    kind: Kind
    """What the rules are for."""
    version: str = Field(pattern=r"\d+\.\d+\.\d+")
    """Raised with every change of what is found."""
    words: dict[str, str] = Field(default_factory=dict)
    """Named parts of patterns."""
    rules: tuple[Rule, ...] = ()
    """The rules."""
    combinations: tuple[Combination, ...] = ()
    """Signs that count together (triage)."""


def read(path: Path) -> Rulebook:
    """The file's rules, words put into patterns; raises ConfigError that names the rule and the field."""
    try:
        data: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
        words = data.get("words", {})
        for rule in data.get("rules", ()):
            rule["patterns"] = [expanded(pattern, words) for pattern in rule.get("patterns", ())]
        book = Rulebook.model_validate(data)
        for rule in book.rules:
            _ = rule.regex
    except FileNotFoundError:
        raise ConfigError(f"rule file {path} is not there") from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise ConfigError(f"rule file {path}: {where}: {first['msg']}") from None
    except (yaml.YAMLError, re.error, AttributeError, KeyError, TypeError) as error:
        raise ConfigError(f"rule file {path} cannot be read: {type(error).__name__}: {error}") from None
    if repeated := sorted({rule.id for rule in book.rules if [r.id for r in book.rules].count(rule.id) > 1}):
        raise ConfigError(f"rule file {path}: id {repeated[0]} is there twice")
    return book


def expanded(pattern: str, words: dict[str, str]) -> str:
    """``pattern`` with each ``{name}`` replaced by the file's word of that name."""
    while True:
        result = re.sub(r"\{([a-z_]+)\}", lambda found: f"(?:{words[found[1]]})", pattern)
        if result == pattern:
            return result
        pattern = result


@cache
def shipped(kind: Kind) -> Rulebook:
    """The file of one kind that comes with the package."""
    return read(FOLDER / f"{kind}.yaml")


def in_force(settings: SafetySettings, kind: Kind) -> tuple[tuple[Rule, ...], tuple[Combination, ...]]:
    """Rules and combinations of one kind, shipped and of the configuration; a later one replaces its namesake.

    Raises ConfigError for a file that cannot be read, and for a name in ``without`` that is none.
    """
    books = [*map(shipped, KINDS), *(read(Path(path)) for path in settings.rules)]
    every = [rule.id for book in books for rule in book.rules] + [one.id for book in books for one in book.combinations]
    known = {name for id_ in every for name in (id_, id_.split(".")[0])}
    if unknown := [name for name in settings.without if name not in known]:
        raise ConfigError(f"serving.safety.without: {unknown[0]} is no rule or group; see docs/safety.md")
    of_kind = [book for book in books if book.kind == kind]
    rules = {rule.id: rule for book in of_kind for rule in book.rules}
    combinations = {one.id: one for book in of_kind for one in book.combinations}
    left_out = set(settings.without)
    return (
        tuple(one for one in rules.values() if left_out.isdisjoint((one.id, one.id.split(".")[0]))),
        tuple(one for one in combinations.values() if left_out.isdisjoint((one.id, one.id.split(".")[0]))),
    )


def matches(rule: Rule, folded_text: str) -> list[tuple[re.Match[str], tuple[str, ...]]]:
    """All matches in a folded text, sentence by sentence."""
    return [found for sentence in sentences(folded_text) for found in rule.found(sentence)]
