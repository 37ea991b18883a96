"""Which version of a model a request goes to: the table that a rollout changes and the ingress follows.

    {"gm": [{"app": "llumi-gm", "deployment": "gm", "share": 0.9, "info": {...}},
            {"app": "llumi-gm-canary", "deployment": "gm", "share": 0.1, "info": {...}}], "im": [...]}

It is the ingress' ``user_config``: Serve hands a change of it to replicas that run, so that a share
moves within a second and nothing is restarted. It belongs to the document that was deployed and so
outlives every process.
"""

import hashlib
from collections.abc import Sequence
from typing import Any

from pydantic import Field

from configs.base import Section


class Route(Section):
    """One version of a model."""

    app: str
    """Serve application that holds it."""
    deployment: str
    """Deployment in that application."""
    share: float = Field(1.0, ge=0, le=1)
    """Share of the model's requests."""
    info: dict[str, Any] = Field(default_factory=dict)
    """Lineage: ``version``, ``path``, ``manifest``."""


class Routes(Section):
    """Both models' versions; the first of a model is its own deployment, a second one its canary."""

    gm: tuple[Route, ...] = Field(min_length=1, max_length=2)
    """Versions of the generation model."""
    im: tuple[Route, ...] = Field(min_length=1, max_length=2)
    """Versions of the improvement model."""

    def of(self, model: str) -> tuple[Route, ...]:
        """The versions of one model."""
        found: tuple[Route, ...] = getattr(self, model)
        return found


def choose(routes: Sequence[Route], request_id: str) -> Route:
    """The version for this request: the same for the same id, over many ids each by its share."""
    total = sum(route.share for route in routes)
    if total <= 0:
        return routes[0]
    point = int.from_bytes(hashlib.blake2b(request_id.encode(), digest_size=8).digest()) / 2**64 * total
    for route in routes:
        point -= route.share
        if point < 0:
            return route
    return max(routes, key=lambda route: route.share)


def second_choice(routes: Sequence[Route], first: Route) -> Route:
    """Where a request goes that ``first`` lost: from a canary back to the model's own deployment, else there again."""
    return first if first == routes[0] else routes[0]
