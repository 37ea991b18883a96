"""Settings of what looks at posts before generation and at drafts after it."""

from pydantic import Field

from configs.base import Section


class SafetySettings(Section):
    """Triage of posts, guard of drafts and revisions."""

    rules: tuple[str, ...] = ()
    """Rule files (YAML) that are read after the shipped ones; a rule of the same id replaces the shipped one."""
    without: tuple[str, ...] = ()
    """Ids of rules that are not applied."""
    classifier: str | None = None
    """A function ``module:name`` that takes a text and gives none, elevated or acute; it can raise the level that the
    lexicon found and never lower it."""
    classifier_timeout_s: float = Field(2.0, gt=0)
    """Seconds that the classifier has; later, or where it fails, the level is at least elevated."""
    regenerations: int = Field(2, ge=0, le=10)
    """Most times that an answer which breaks a rule is written again before it is refused."""
    regeneration_temperature: float = Field(0.7, gt=0, le=2)
    """Lowest temperature at which an answer is written again: a greedy one would come out the same."""
    foreign_probability: float = Field(0.8, gt=0, le=1)
    """Probability from which on an answer counts as not English."""
