"""Looks at what a model wrote before anybody sees it: the ids of the rules it breaks.

    Guard.of(settings.serving.safety).look(answer, post=post, prompt=prompt) -> ("method.named",)

Rules are ``rules/guard.yaml``: patterns, and checks in ``checks``. They favour false positives,
since an answer that is refused in vain is written again. They read words: an answer can do harm
in words that no rule knows, which is why a helper reads every draft.
"""

from collections.abc import Iterable
from typing import Self

from configs.errors import ConfigError
from configs.safety import SafetySettings
from pipelines.generation.engine import Messages
from serving.safety.checks import CHECKS, Answer
from serving.safety.rulebook import Rule, in_force, matches
from serving.safety.wording import folded


class Guard:
    """Safe for many answers at once."""

    def __init__(self, rules: Iterable[Rule], foreign_probability: float = 0.8):
        self.rules = tuple(rules)
        self.foreign_probability = foreign_probability
        self._harmful = {rule.id for rule in self.rules if rule.harmful}
        for rule in self.rules:
            if rule.check is not None and rule.check not in CHECKS:
                raise ConfigError(f"rule {rule.id}: check {rule.check} is none of {', '.join(sorted(CHECKS))}")

    @classmethod
    def of(cls, settings: SafetySettings) -> Self:
        """The shipped rules and what the configuration adds; raises ConfigError."""
        rules, _ = in_force(settings, "guard")
        return cls(rules, settings.foreign_probability)

    def look(
        self, answer: str, *, post: str, draft: str | None = None, prompt: Messages | None = None
    ) -> tuple[str, ...]:
        """Ids of the rules that the answer to ``post`` breaks, none where it may be shown.

        ``draft`` is the helper's, for a revision: their own links and numbers may stay. ``prompt`` is
        what the model was given, to see whether it gives it away.
        """
        seen = Answer.of(answer, post, draft, prompt, self.foreign_probability)
        known = {"post": folded(post), "draft": folded(draft or "")}
        return tuple(rule.id for rule in self.rules if self._broken(rule, seen, known))

    def harmful(self, broken: Iterable[str]) -> bool:
        """Whether one of these rules is about harm, so that resources are needed whatever the triage said."""
        return not self._harmful.isdisjoint(broken)

    @staticmethod
    def _broken(rule: Rule, seen: Answer, known: dict[str, str]) -> bool:
        if rule.check is not None:
            return CHECKS[rule.check](seen)
        allowed = [known[where] for where in rule.unless_in]
        return any(
            not cues and not any(match[0] in text for text in allowed) for match, cues in matches(rule, seen.folded)
        )
