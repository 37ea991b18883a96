"""What every settings model has in common: unknown keys refused, frozen, fields documented."""

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """One part of the configuration; each field's docstring is its documentation."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)
