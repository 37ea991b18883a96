"""What asking the teacher will take: shown before anything is asked, and refused above a limit.

Prompt tokens are estimated from characters, for the teacher's tokeniser is not at hand;
completion tokens are the most there can be, so the cost is an upper bound as far as the
estimate holds. Repetitions after failures are not counted: endpoints do not charge them.
"""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from configs.errors import ConfigError
from configs.improvement import TeacherSettings


@dataclass(frozen=True)
class Budget:
    """Of one run."""

    drafts: int
    """Drafts to revise."""
    answered: int
    """Of them, those whose revision is in the store already."""
    requests: int
    """Prompts to ask: equal ones are asked once."""
    prompt_tokens: int
    """Estimated."""
    completion_tokens: int
    """At most."""
    cost: float
    """At most, in the currency of the prices."""

    def line(self) -> str:
        """For people."""
        return (
            f"teacher: {self.requests:,} requests ({self.answered:,} of {self.drafts:,} drafts are answered already),"
            f" about {self.prompt_tokens:,} prompt tokens, at most {self.completion_tokens:,} completion tokens,"
            f" cost at most {self.cost:,.2f}"
        )

    def figures(self) -> dict[str, Any]:
        """For the manifest."""
        return asdict(self)


def budget_of(requests: Iterable[pa.Table], answered: set[str], settings: TeacherSettings) -> Budget:
    """The budget of ``requests`` (tables with ``key`` and ``prompt``) where ``answered`` keys are in the store."""
    drafts = known = characters = 0
    missing: set[str] = set()
    for table in requests:
        lengths = pc.utf8_length(table["prompt"]).to_pylist()
        for key, length in zip(table["key"].to_pylist(), lengths, strict=True):
            drafts += 1
            if key in answered:
                known += 1
            elif key not in missing:
                missing.add(key)
                characters += length
    prompt_tokens = round(characters / settings.characters_per_token)
    completion_tokens = len(missing) * settings.max_tokens
    cost = (prompt_tokens * settings.prompt_price + completion_tokens * settings.completion_price) / 1_000_000
    return Budget(drafts, known, len(missing), prompt_tokens, completion_tokens, round(cost, 4))


def require_within(found: Budget, settings: TeacherSettings) -> None:
    """Raises ConfigError where the run would exceed a limit, with both numbers and the ways out."""
    if settings.max_requests is not None and found.requests > settings.max_requests:
        raise ConfigError(
            f"{found.line()}: more requests than improvement.teacher.max_requests={settings.max_requests:,};"
            " raise it, or lower improvement.teacher.max_per_post"
        )
    if settings.max_cost is not None and found.cost > settings.max_cost:
        raise ConfigError(
            f"{found.line()}: more than improvement.teacher.max_cost={settings.max_cost:,.2f};"
            " raise it, or lower improvement.teacher.max_per_post or max_tokens"
        )
