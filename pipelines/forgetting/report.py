"""What ``llumi forget`` tells: what went, from how many rows, what was trained on it, what is left to do by hand."""

from typing import Literal

from pydantic import BaseModel

ADVICE = (
    "`llumi run CONFIG` trains again what was trained on removed rows; until then stop serving these models."
    " Weights cannot be made to forget: whoever holds a copy of them, of an output or of the dumps has to know."
)
LIMITS = (
    "Rows were found by id. Somebody else's comment that quotes a removed text stays, and so do copies of a text that"
    " were posted under another id and not asked for. Dumps are never touched, the built-in sample's neither."
)
Action = Literal["rows", "removed", "trained", "kept"]


class Change(BaseModel):
    """What became of one output."""

    output: str
    """Folder, relative to the run's."""
    stage: str
    action: Action
    """``rows``: taken out; ``removed``: the whole folder; ``trained``: weights, left as they are; ``kept``."""
    rows: dict[str, int] = {}
    """Rows taken out by kind."""
    of: dict[str, int] = {}
    """Rows before, by kind."""
    why: str = ""


class TrainedModel(BaseModel):
    """Weights that removed rows went into."""

    output: str
    rows: int
    """Rows of its own training data that were removed; 0 where they reached it through another model."""
    through: list[str]
    """The models it was made from that removed rows went into."""
    command: str
    """What trains it again."""


class Outside(BaseModel):
    """A file that is not under the output and holds what is to be forgotten: it is not touched."""

    file: str
    lines: int


class Served(BaseModel):
    """A service that may answer with a model that removed rows went into."""

    url: str
    models: list[str]


class Report(BaseModel):
    """The whole of it; holds no text, and names only what was asked for and not found."""

    dry_run: bool
    when: str
    asked: dict[str, int]
    """Requests by kind."""
    kept_out: int
    """Entries of the list of what later builds keep out."""
    unknown: list[str]
    """Requests of which the threads hold nothing; later builds keep them out all the same."""
    changes: list[Change]
    models: list[TrainedModel]
    outside: list[Outside]
    served: list[Served] = []
    notes: list[str] = [LIMITS]

    @property
    def is_done(self) -> bool:
        """Whether nothing is left that ``llumi run`` would not put right."""
        return not self.outside and not self.served
