"""Rating files: one JSON object a line, what one rater gave the two responses of one item.

A line that does not have this form stops the stage, named by file, line and field: it was
written by a tool that does something else. A line that has the form but lacks ratings is
what people leave behind; it is counted and left out.

A rater may have chosen one of the two without rating them: ``preferred`` says which.

An attention item tells the rater which rating to give: a response whose id is
``attention:N`` asks in its text for N in every dimension.
"""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from configs.errors import DataError, MissingInput
from configs.training import ModelName
from pipelines.forgetting.requests import SERVED

DIMENSIONS = ("readability", "empathy", "connection", "actionability", "safety")
_ATTENTION_ID = re.compile(r"attention:([1-5])")


class _Form(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Post(_Form):
    """The post that both responses answer."""

    title: str
    text: str


class Response(_Form):
    """A response as the rater saw it; no name of the system that wrote it."""

    id: str = Field(min_length=1)
    text: str


class Scores(_Form):
    """Ratings of one response, 1 (poor) to 5 (good); None where the rater gave none."""

    readability: int | None = Field(None, ge=1, le=5)
    empathy: int | None = Field(None, ge=1, le=5)
    connection: int | None = Field(None, ge=1, le=5)
    actionability: int | None = Field(None, ge=1, le=5)
    safety: int | None = Field(None, ge=1, le=5)

    def given(self) -> list[int]:
        """The ratings that were given, in the order of ``DIMENSIONS``."""
        return [value for dimension in DIMENSIONS if (value := getattr(self, dimension)) is not None]


class Rating(_Form):
    """One line: an item, a rater and what they gave."""

    item_id: str = Field(min_length=1)
    model: ModelName
    post_id: str = Field(min_length=1)
    post: Post
    draft: str | None
    response_a: Response
    response_b: Response
    rater_id: str = Field(min_length=1)
    ratings_a: Scores
    ratings_b: Scores
    is_attention: bool
    source: Literal["human", "simulated"]
    preferred: Literal["a", "b"] | None = None
    """The response that the rater chose; counts where the ratings are not complete."""

    @model_validator(mode="after")
    def _im_has_a_draft(self) -> "Rating":
        if self.model == "im" and self.draft is None:
            raise ValueError("draft: an item of the improvement model needs the draft that was revised")
        return self

    def missing(self) -> str | None:
        """Name of the first dimension that lacks a rating, None where all are there."""
        for dimension in DIMENSIONS:
            if getattr(self.ratings_a, dimension) is None or getattr(self.ratings_b, dimension) is None:
                return dimension
        return None

    def is_choice(self) -> bool:
        """Whether a choice is all that counts of it."""
        return self.preferred is not None and self.missing() is not None

    def is_served(self) -> bool:
        """Whether the responses are answers of the service, to a post that the threads need not hold."""
        return self.response_a.id.startswith(SERVED) and self.response_b.id.startswith(SERVED)

    def passes_attention(self) -> bool:
        """Whether each response that asks for a rating got it, in every dimension."""
        for response, scores in ((self.response_a, self.ratings_a), (self.response_b, self.ratings_b)):
            asked = _ATTENTION_ID.fullmatch(response.id)
            if asked and scores.given() != [int(asked[1])] * len(DIMENSIONS):
                return False
        return True

    def is_straight(self) -> bool:
        """Whether all ten ratings are the same."""
        return len({*self.ratings_a.given(), *self.ratings_b.given()}) == 1


def read_ratings(paths: Sequence[Path]) -> list[Rating]:
    """Every line of the files, in order.

    Raises MissingInput for a file that is not there, DataError naming file, line and
    field for a line that does not have the form, for an attention item that asks for
    nothing, and for an item whose content differs between its lines.
    """
    rows: list[Rating] = []
    first: dict[tuple[str, str], tuple[Rating, str]] = {}
    for path in paths:
        for number, row in enumerate_rows(path):
            where = f"{path}:{number}"
            if row.is_attention and not any(
                _ATTENTION_ID.fullmatch(response.id) for response in (row.response_a, row.response_b)
            ):
                raise DataError(f"{where}: is_attention: no response has an id attention:N that says the rating asked")
            before, place = first.setdefault((row.model, row.item_id), (row, where))
            for name in ("post_id", "post", "draft", "response_a", "response_b", "is_attention", "source"):
                if getattr(row, name) != getattr(before, name):
                    raise DataError(f"{where}: {name} differs from that of the same item at {place}")
            rows.append(row)
    return rows


def enumerate_rows(path: Path) -> Iterator[tuple[int, Rating]]:
    """Line number (from 1) and row of each line that is not blank."""
    if not path.is_file():
        raise MissingInput(f"rating file {path} is not there")
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if line.strip():
                yield number, parse(line, f"{path}:{number}")


def parse(line: bytes, where: str) -> Rating:
    """The row in ``line``; raises DataError naming the place and each field, never the words."""
    try:
        return Rating.model_validate_json(line)
    except ValidationError as error:
        found = [explain(item["type"], item["loc"], item["msg"]) for item in error.errors(include_input=False)]
        raise DataError(f"{where}: {'; '.join(found)}") from None


def explain(kind: str, location: tuple[int | str, ...], message: str) -> str:
    """One field that does not fit, without what stands in it."""
    if kind == "json_invalid":
        return "the line is not a JSON object"
    field = ".".join(map(str, location))
    return f"{field}: {message}" if field else message
