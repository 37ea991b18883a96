"""Settings of the HTTP interface: what one request may ask for, and what its prompt holds."""

from typing import Literal

from pydantic import Field

from configs.base import Section


class ApiSettings(Section):
    """Bounds of one request, and how posts become prompts."""

    max_drafts: int = Field(4, ge=1, le=16)
    """Most drafts a request may ask for (``n``)."""
    max_new_tokens: int = Field(1024, ge=1)
    """Most new tokens a request may ask for (``max_tokens``); never below generation.max_new_tokens."""
    long_posts: Literal["refuse", "cut"] = "refuse"
    """A post that does not fit into the context: 400, or its middle is left out and the answer says ``post_cut``."""
    examples: int | None = Field(None, ge=0, le=16)
    """Similar posts in a prompt where an index is configured; none = retrieval.examples as in training, or 2 where
    the index was built for the service alone."""
    max_example_tokens: int = Field(512, ge=0)
    """Most tokens of all similar posts of one prompt together, replies included."""
    openapi: bool = True
    """Serve the interface's OpenAPI document at /v1/openapi.json, to callers with the scope ``docs``."""
