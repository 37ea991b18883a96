"""Which route needs which scope. What is not in this table does not exist for any caller.

Matching is by the same text that the router matches, after the same decoding, and exact: there
is no second reading of a path that could let one through here and mean another route there.
A route that somebody adds and forgets here answers 404, which its first test shows.
"""

import re
from dataclasses import dataclass

from starlette._utils import get_route_path
from starlette.types import Scope as AsgiScope

from configs.access import Scope
from configs.serving import ServingSettings
from serving.playground.routes import PATHS as PLAYGROUND

SEGMENT = "[^/]+"
"""What a ``{name}`` in a path stands for: one segment, of any characters."""


@dataclass(frozen=True)
class Rule:
    """One path: the methods that it takes and the scope that each needs; None = open to everybody."""

    path: str
    methods: tuple[str, ...]
    scope: Scope | None

    def takes(self, path: str) -> bool:
        """Whether ``path`` is this rule's, without any normalisation."""
        parts = [SEGMENT if part.startswith("{") else re.escape(part) for part in re.split(r"(\{\w+\})", self.path)]
        return re.fullmatch("".join(parts), path) is not None


ROUTES = (
    Rule("/v1/generate", ("POST",), "generate"),
    Rule("/v1/improve", ("POST",), "improve"),
    Rule("/v1/chat/completions", ("POST",), "chat"),
    Rule("/v1/feedback", ("POST",), "feedback"),
    Rule("/v1/models", ("GET", "HEAD"), "models"),
    Rule("/v1/models/{model}", ("GET", "HEAD"), "models"),
    Rule("/v1/openapi.json", ("GET", "HEAD"), "docs"),
    Rule("/healthz", ("GET", "HEAD"), None),
)
"""Every route of the service but the playground's."""


class Table:
    """The rules in force under one configuration."""

    def __init__(self, rules: tuple[Rule, ...]):
        self.fixed = {rule.path: rule for rule in rules if "{" not in rule.path}
        self.patterns = tuple(rule for rule in rules if "{" in rule.path)

    @classmethod
    def of(cls, serving: ServingSettings) -> "Table":
        """The routes, and the playground's files where it is switched on."""
        files = tuple(Rule(path, ("GET", "HEAD"), None) for path in PLAYGROUND) if serving.playground else ()
        return cls(ROUTES + files)

    def find(self, path: str) -> Rule | None:
        """The rule of a path; None where there is none."""
        fixed = self.fixed.get(path)
        return fixed or next((rule for rule in self.patterns if rule.takes(path)), None)


def path_of(scope: AsgiScope) -> str:
    """The path as the router sees it."""
    return get_route_path(scope)
