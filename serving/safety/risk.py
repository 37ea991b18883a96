"""What a triage says about a post, and nothing of what the post says."""

from dataclasses import dataclass
from typing import Literal

Level = Literal["none", "elevated", "acute"]
Action = Literal["none", "show_resources", "hand_over"]

LEVELS: tuple[Level, ...] = ("none", "elevated", "acute")
"""From calm to crisis."""
ACTIONS: dict[Level, Action] = {"none": "none", "elevated": "show_resources", "acute": "hand_over"}
"""What the caller is asked to do: nothing more than ever; show local crisis resources beside the
draft; show them and bring the post before a trained person now."""


@dataclass(frozen=True)
class Risk:
    """One post's level, and the ids of the rules that it rests on (never text)."""

    level: Level = "none"
    signals: tuple[str, ...] = ()

    @property
    def action(self) -> Action:
        """What the caller is asked to do."""
        return ACTIONS[self.level]

    @property
    def resources_required(self) -> bool:
        """Whether the caller must show local crisis resources."""
        return self.level != "none"


def highest(*levels: Level) -> Level:
    """The gravest of the levels; none where there is none."""
    return max(levels, key=LEVELS.index, default="none")
