"""Looks at a post before anything is written: none, elevated or acute.

    Triage.of(settings.serving.safety).look("I can't do this anymore") -> Risk(level, signals)

The lexicon is ``rules/triage.yaml``. It favours false positives: what it overlooks is answered
by a draft as if nothing were wrong, what it sees in vain costs a helper a minute. It reads words,
so it misses what is said without them; a classifier can be set beside it, which may raise the
level and never lower it. No clinician has reviewed the rules.
"""

import asyncio
import importlib
import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import product
from typing import Self

from configs.errors import ConfigError
from configs.safety import SafetySettings
from pipelines.corpus.language import is_foreign
from serving.safety.risk import LEVELS, Level, Risk, highest
from serving.safety.rulebook import STRENGTHS, Combination, Rule, Strength, in_force, matches
from serving.safety.wording import folded

LOG = logging.getLogger("ray.serve")
Classifier = Callable[[str], Level]
FAILED = "classifier.failed"
UNREAD = 0.8
"""Probability from which on a paragraph counts as not English."""
CHECKS: dict[str, Callable[[str], bool]] = {
    "foreign": lambda text: any(
        is_foreign(" ".join(part.split()), UNREAD) for part in (text, *text.split("\n")) if part.strip()
    )
}
"""What no pattern can find, by the name that rules call it."""
DRAFT = "draft:"
"""Before the id of a rule that the helper's draft matched, not the post."""


@dataclass(frozen=True)
class Sign:
    """A rule that matched, with the cue that lowered it."""

    rule: Rule
    strength: Strength | None
    """None where a lowered hint says nothing any more."""
    cue: str | None

    @property
    def signal(self) -> str:
        """As callers see it: ``group.name`` or ``group.name/cue``."""
        return f"{self.rule.id}/{self.cue}" if self.cue else self.rule.id


class Triage:
    """Safe for many posts at once."""

    def __init__(
        self,
        rules: Iterable[Rule],
        combinations: Iterable[Combination],
        injections: Iterable[Rule] = (),
        classifier: Classifier | None = None,
        timeout_s: float = 2.0,
    ):
        self.rules, self.combinations, self.injections = tuple(rules), tuple(combinations), tuple(injections)
        self.classifier, self.timeout_s = classifier, timeout_s

    @classmethod
    def of(cls, settings: SafetySettings) -> Self:
        """The shipped lexicon and what the configuration adds; raises ConfigError."""
        rules, combinations = in_force(settings, "triage")
        injections, _ = in_force(settings, "injection")
        return cls(
            rules,
            combinations,
            injections,
            loaded(settings.classifier) if settings.classifier else None,
            settings.classifier_timeout_s,
        )

    def look(self, text: str, *, draft: str | None = None) -> Risk:
        """The level of a post and what it rests on.

        Give the whole post, before anything of it is cut off. A helper's ``draft`` counts too: it may quote the
        person or tell of the helper, but names risk in order to ask about it, so it raises the level to elevated
        at most.
        """
        risk = self._read(text, draft)
        return risk if self.classifier is None else raised(risk, self._classified(text))

    async def assess(self, text: str, draft: str | None = None) -> Risk:
        """``look`` beside the event loop, and with a time limit for the classifier."""
        risk = await asyncio.to_thread(self._read, text, draft)
        if self.classifier is None:
            return risk
        try:
            async with asyncio.timeout(self.timeout_s):
                said = await asyncio.to_thread(self._classified, text)
        except TimeoutError:
            LOG.error("the classifier gave no answer within %g s; the post counts as elevated at least", self.timeout_s)
            said = None
        return raised(risk, said)

    def _read(self, text: str, draft: str | None) -> Risk:
        """What the lexicon says of post and draft."""
        level, signals = self._lexicon(text)
        of_draft, more = self._lexicon(draft) if draft is not None else ("none", [])
        if of_draft != "none":
            level = highest(level, "elevated")
            signals += [DRAFT + signal for signal in more]
        return Risk(level, tuple(dict.fromkeys(signals)))

    def _lexicon(self, text: str) -> tuple[Level, list[str]]:
        """The lexicon's level and signals."""
        text_folded = folded(text)
        signs = [sign for rule in self.rules for sign in self.signs(rule, text, text_folded)]
        together = [one for one in self.combinations if holds(one, signs)]
        strengths: list[Strength] = [sign.strength for sign in signs if sign.strength]
        strengths += [one.level for one in together]
        level = highest(*(strength for strength in strengths if strength != "hint"))
        if level == "none" and len({sign.rule.factor for sign in signs if sign.strength == "hint"}) > 1:
            level = "elevated"
        injections = [rule.id for rule in self.injections if matches(rule, text_folded)]
        return level, [sign.signal for sign in signs] + [one.id for one in together] + injections

    @staticmethod
    def signs(rule: Rule, raw: str, text: str) -> list[Sign]:
        """The rule's matches, the strongest alone."""
        if rule.check is not None:
            return [Sign(rule, rule.level, None)] if CHECKS[rule.check](raw) else []
        signs = [Sign(rule, lowered(rule.level, cues), cues[0] if cues else None) for _, cues in matches(rule, text)]
        return sorted(signs, key=lambda sign: STRENGTHS.index(sign.strength) if sign.strength else -1)[-1:]

    def _classified(self, text: str) -> Level | None:
        """What the classifier says; None where it fails, told by the error's type alone."""
        assert self.classifier is not None
        try:
            level = self.classifier(text)
        except Exception as error:
            LOG.error("the classifier failed: %s; the post counts as elevated at least", type(error).__name__)
            return None
        if level not in LEVELS:
            LOG.error("the classifier gave none of %s; the post counts as elevated at least", ", ".join(LEVELS))
            return None
        return level


def raised(risk: Risk, said: Level | None) -> Risk:
    """The risk with what the classifier said; its failure counts as elevated."""
    if said is None:
        return Risk(highest(risk.level, "elevated"), (*risk.signals, FAILED))
    if LEVELS.index(said) <= LEVELS.index(risk.level):
        return risk
    return Risk(said, (*risk.signals, f"classifier.{said}"))


def lowered(strength: Strength, cues: tuple[str, ...]) -> Strength | None:
    """One step less where there is any cue."""
    if not cues:
        return strength
    place = STRENGTHS.index(strength)
    return STRENGTHS[place - 1] if place else None


def holds(combination: Combination, signs: Iterable[Sign]) -> bool:
    """Whether there is a sign of each group, of different factors, none lowered, one more than a hint."""
    strengths: dict[str, Strength] = {}
    for sign in signs:
        if sign.cue is None and sign.rule.factor is not None:
            before = strengths.get(sign.rule.factor, "hint")
            strengths[sign.rule.factor] = max(before, sign.rule.level, key=STRENGTHS.index)
    present = [[factor for factor in group if factor in strengths] for group in combination.all]
    return any(
        len(set(factors)) == len(factors) and any(strengths[factor] != "hint" for factor in factors)
        for factors in product(*present)
    )


def loaded(name: str) -> Classifier:
    """The function ``module:name``; raises ConfigError."""
    module, _, function = name.partition(":")
    try:
        found = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(
            f"serving.safety.classifier={name} cannot be loaded ({type(error).__name__}): give module:function, "
            "importable on every node that serves"
        ) from None
    if not callable(found):
        raise ConfigError(f"serving.safety.classifier={name} is no function")
    return found
