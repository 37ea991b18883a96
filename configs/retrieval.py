"""Settings of retrieval: the index of similar posts whose well-received replies stand in prompts as examples."""

from typing import Self

from pydantic import Field, model_validator

from configs.base import Section

LEXICAL = "lexical"
"""The embedder that needs no model."""


class EmbedderSettings(Section):
    """What turns a post into a vector; posts with close vectors are similar.

    ``lexical`` hashes the post's words: it needs no model and finds posts
    that say the same thing in the same words, and no others. A sentence-transformers model
    also finds posts that say it in other words.
    """

    model: str = Field(LEXICAL, min_length=1)
    """A local folder of a sentence-transformers model (the one that holds modules.json), or ``lexical``."""
    dimensions: int = Field(1024, ge=16)
    """Length of the vectors of ``lexical``; a model brings its own."""
    max_tokens: int | None = Field(None, ge=8)
    """Most tokens of a text that a model reads, the rest is cut off; none = as the model is configured."""
    batch_size: int = Field(64, ge=1)
    """Texts that a model encodes at once."""


class RetrievalSettings(Section):
    """The index of posts of the training split, and how its posts enter a prompt."""

    examples: int = Field(0, ge=0)
    """Most examples (a similar post and its reply) in each training prompt; 0 = none."""
    index: bool = False
    """Build the index though ``examples`` is 0, for what else looks posts up (serving)."""
    embedder: EmbedderSettings = EmbedderSettings()
    """What posts are compared by."""
    min_score: int = 3
    """Lowest score (net votes) of a reply that is shown as an example."""
    replies_per_post: int = Field(3, ge=1)
    """Most replies kept of one post, highest score first; an example shows the first that may be shown there."""
    max_reply_words: int = Field(150, ge=1)
    """Longest reply that is kept, in words."""
    max_words: int = Field(400, ge=1)
    """Most words of all examples of one prompt together, posts and replies."""
    max_post_words: int = Field(120, ge=1)
    """Words after which an example's post is cut off; its reply never is."""
    min_similarity: float = Field(0.1, ge=-1, le=1)
    """Lowest cosine similarity of an example's post to the post (-1 to 1)."""
    max_similarity: float = Field(0.95, gt=0, le=1)
    """Posts more similar than this (cosine) count as the same text and are no example."""
    exact_up_to: int = Field(100_000, ge=0)
    """Posts up to which the search compares all of them, their vectors in memory; above, an approximate index."""
    min_recall: float = Field(0.95, ge=0, le=1)
    """Least share of the true nearest posts that the approximate index finds; it searches as much as that takes."""
    actors: int = Field(1, ge=1)
    """Actors that embed posts."""
    gpus_per_actor: float | None = Field(None, ge=0)
    """GPUs an embedding actor asks of Ray; none = 1 where the cluster has GPUs and the embedder is a model, else 0."""

    @property
    def enabled(self) -> bool:
        """Whether the index is built."""
        return self.index or self.examples > 0

    @model_validator(mode="after")
    def _similarities_are_ordered(self) -> Self:
        if self.min_similarity >= self.max_similarity:
            raise ValueError(
                f"min_similarity {self.min_similarity:g} must be below max_similarity {self.max_similarity:g}"
            )
        return self
