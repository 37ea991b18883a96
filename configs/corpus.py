"""Settings of the corpus stage: which dumps are read and which rows are kept."""

from typing import Self

from pydantic import Field, model_validator

from configs.base import Section


class SplitSettings(Section):
    """Shares of post authors a split; everything one author posted lies in one split."""

    train: float = Field(0.90, gt=0, lt=1)
    """Share of authors in the training split (0-1)."""
    validation: float = Field(0.05, gt=0, lt=1)
    """Share of authors in the validation split (0-1)."""
    test: float = Field(0.05, gt=0, lt=1)
    """Share of authors in the held-out test split (0-1)."""

    @model_validator(mode="after")
    def _sum_is_one(self) -> Self:
        total = self.train + self.validation + self.test
        if abs(total - 1) > 1e-6:
            raise ValueError(f"train + validation + test must be 1, they are {total:g}")
        return self


class CleaningSettings(Section):
    """Which rows are dropped, each under a named reason in the manifest."""

    drop_over_18: bool = True
    """Drop posts marked NSFW."""
    drop_edited: bool = False
    """Drop rows edited after posting (votes may be of an earlier wording)."""
    drop_non_english: bool = True
    """Drop rows whose language is recognised as another than English."""
    drop_duplicates: bool = True
    """Drop rows whose normalised text (title and text for posts) was seen before."""
    top_level_only: bool = True
    """Keep only comments that answer the post itself, as SHP does."""
    min_post_words: int = Field(3, ge=0)
    """Fewest words in a post's title and text together."""
    max_post_words: int = Field(1000, gt=0)
    """Most words in a post's title and text together."""
    min_comment_words: int = Field(5, ge=0)
    """Fewest words in a comment."""
    max_comment_words: int = Field(400, gt=0)
    """Most words in a comment."""
    bots: tuple[str, ...] = ("AutoModerator", "RemindMeBot", "sneakpeekbot", "WikiTextBot")
    """Names of bot accounts, compared without case, beside names that end in ``bot``."""
    frozen_months: tuple[str, ...] = ("2023-07", "2023-08", "2023-09", "2023-10", "2024-03")
    """Months (YYYY-MM, UTC) whose votes were not updated in the public dumps."""


class CorpusSettings(Section):
    """From dump files to threads: one row a post with its comments."""

    posts: tuple[str, ...] = ()
    """Globs of post dumps (RS_*), local or ``s3://``, ``gs://``."""
    comments: tuple[str, ...] = ()
    """Globs of comment dumps (RC_*), local or ``s3://``, ``gs://``."""
    subreddits: tuple[str, ...] = ()
    """Communities kept, without ``r/``, compared without case; empty keeps all."""
    cleaning: CleaningSettings = CleaningSettings()
    """Which rows are dropped."""
    split: SplitSettings = SplitSettings()
    """Shares of authors a split."""
    max_comments_per_post: int = Field(200, ge=2)
    """Most comments kept a post; chosen by a hash of the comment's id, never by arrival or score."""
    max_malformed_share: float = Field(0.01, ge=0, le=1)
    """Share of a file's lines that may be unparsable (0-1) before the stage refuses the file."""
    partitions: int = Field(0, ge=0)
    """Partitions of the keyed shuffle that joins comments to posts; 0 = from the input's size."""
    rows_per_file: int = Field(20_000, gt=0)
    """Threads a Parquet file (the last one may hold fewer): about 100 MB of text at the default."""
    reader_memory_gb: float = Field(2.5, gt=0)
    """Logical memory a read task asks of Ray, in GB: a 2^31 decoding window needs 2.1."""


class SampleSettings(Section):
    """The built-in sample: a simulated community with known truth."""

    threads: int = Field(1200, ge=10)
    """Posts in the simulated community."""
    seed: int = 7
    """Seed of the simulation."""
