"""Settings of the corpus stage: which dumps are read and which rows are kept."""

import re
from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

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
    """Which rows are dropped: ``drop_<reason>`` switches the rule that the manifest counts under that reason.

    What tunes a rule stands below its switch. Patterns are RE2, found anywhere in the value.
    """

    drop_deleted: bool = True
    """Drop deleted and removed texts, and comments of deleted accounts (their writer may be the poster)."""
    drop_moderator: bool = True
    """Drop rows in which a moderator or administrator speaks as one, and pinned rows."""
    drop_bot: bool = True
    """Drop rows of bots: by ``bots``, ``bot_names`` or ``bot_texts``."""
    bots: tuple[str, ...] = (
        "AutoModerator", "RemindMeBot", "sneakpeekbot", "WikiTextBot", "autotldr", "TweetPoster", "TotesMessenger",
        "BotDefense", "SaveVideo", "vredditshare", "nice-scores", "B0tRank", "MTGCardFetcher",
    )  # fmt: skip
    """Names of bot accounts, compared without case."""
    bot_names: tuple[str, ...] = (r"(?i)bot$", r"(?i)[_-]bot[_-]?[0-9]*$", r"[a-z0-9]Bot[_-]?[0-9]*$")
    """Patterns of names of bot accounts."""
    bot_names_except: tuple[str, ...] = (r"(?i)(?:abbot|talbot|cabot|robot)$",)
    """Patterns of names that only look like those of bots."""
    bot_texts: tuple[str, ...] = (
        r"\bi[\s^*]+am[\s^*]+a[\s^*]+bot[\s^*]*[,.!|)\]]",
        r"\b(?:action|comment|reply|message|post) (?:was|is|has been) (?:performed|posted|made|generated|sent|written)"
        r" (?:automatically|by a bot)\b",
        r"\b(?:beep|bleep)[, ]+(?:boop|bloop)\b.{0,60}\bbot\b",
        r"\bbot\b.{0,60}\b(?:beep|bleep)[, ]+(?:boop|bloop)\b",
    )
    """Patterns of the signatures bots put under their texts, compared without case."""
    drop_own_reply: bool = True
    """Drop the poster's comments under their own post."""
    drop_over_18: bool = True
    """Drop posts marked NSFW."""
    drop_link_post: bool = True
    """Drop posts that point elsewhere: what their replies answer is not in the text."""
    drop_crosspost: bool = True
    """Drop posts passed on from another community: their text was written for, and answered by, another one."""
    drop_not_top_level: bool = True
    """Drop comments that answer another comment, or do not say what they answer, as SHP does."""
    drop_score_missing: bool = True
    """Drop comments without a score."""
    drop_score_hidden: bool = True
    """Drop comments whose score was still hidden when they were read."""
    drop_contest_mode: bool = True
    """Drop posts, and thereby their comments, in contest mode (random order, scores hidden)."""
    drop_frozen_month: bool = True
    """Drop rows of ``frozen_months``."""
    frozen_months: tuple[str, ...] = ("2023-07", "2023-08", "2023-09", "2023-10", "2024-03")
    """Months (YYYY-MM, UTC) whose votes were not updated in the public dumps."""
    drop_score_unsettled: bool = True
    """Drop rows from ``settled_from`` on that do not say that their score was read a second time."""
    settled_from: str = Field("2023-11", pattern=r"^\d{4}-\d{2}$")
    """First month (YYYY-MM, UTC) of which the public dumps hold scores at first sight, and again after 36 h."""
    drop_edited: bool = False
    """Drop rows edited after posting (votes may be of an earlier wording)."""
    drop_link_only: bool = True
    """Drop rows whose text is a link and at most ``link_only_words`` words beside it."""
    link_only_words: int = Field(3, ge=0)
    """Most words beside the links of a text that counts as link-only."""
    drop_too_short: bool = True
    """Drop posts and comments of fewer words than the two below."""
    min_post_words: int = Field(3, ge=0)
    """Fewest words in a post's title and text together."""
    min_comment_words: int = Field(5, ge=0)
    """Fewest words in a comment."""
    drop_too_long: bool = True
    """Drop posts and comments of more words than the two below."""
    max_post_words: int = Field(1000, gt=0)
    """Most words in a post's title and text together."""
    max_comment_words: int = Field(400, gt=0)
    """Most words in a comment."""
    drop_not_english: bool = True
    """Drop rows whose language is recognised as another than English."""
    not_english_probability: float = Field(0.6, ge=0, le=1)
    """Probability (0-1) of the other language from which on it counts as recognised."""
    not_english_min_letters: int = Field(24, ge=0)
    """Fewest letters in a text whose language is asked for; shorter ones are kept."""
    drop_duplicate: bool = True
    """Drop rows with the words of an earlier row (title and text for posts), whatever case and punctuation."""
    drop_near_duplicate: bool = True
    """Drop rows that share most of their wording with an earlier row."""
    near_duplicate_similarity: float = Field(0.7, gt=0, le=1)
    """Estimated Jaccard similarity (0-1) of two texts' pairs of words from which on they are near duplicates."""
    near_duplicate_min_words: int = Field(20, ge=2)
    """Fewest words in a text that is looked at for near duplicates; short ones are alike by chance."""
    near_duplicate_bands: int = Field(12, ge=1, le=32)
    """Bands of four slots by which near duplicates are found, a row in the shuffle each: 12 find 96% at .7."""

    @field_validator("bot_names", "bot_names_except", "bot_texts")
    @classmethod
    def _are_patterns(cls, patterns: tuple[str, ...]) -> tuple[str, ...]:
        for pattern in patterns:
            try:
                re.compile(pattern)
            except re.error as error:
                raise ValueError(f"{pattern!r} is no pattern: {error}") from None
        return patterns


ScrubKind = Literal["URL", "EMAIL", "USER", "ADDRESS", "IP", "PHONE", "NUMBER"]


class NameSettings(Section):
    """A model that recognises names of people, run by presidio on spaCy."""

    model: str = Field(min_length=1)
    """spaCy model with a component ``ner``: the name of an installed one, or a folder."""
    language: str = "en"
    """Language of the model (ISO 639-1)."""
    entities: tuple[str, ...] = ("PERSON",)
    """Presidio's names of what is replaced; PERSON becomes ``[NAME]``, the others their own name."""
    threshold: float = Field(0.5, ge=0, le=1)
    """Presidio's score (0-1) from which on an entity is replaced."""
    batch: int = Field(64, gt=0)
    """Texts the model takes at once."""


class ScrubSettings(Section):
    """What is replaced by typed placeholders, and how authors are hashed."""

    kinds: tuple[ScrubKind, ...] = ("URL", "EMAIL", "USER", "ADDRESS", "IP", "PHONE", "NUMBER")
    """Kinds that are replaced, each by its name in brackets."""
    keep_numbers: tuple[str, ...] = ()
    """Phone numbers that stay beside those of the listed crisis lines, as they are dialled."""
    names: NameSettings | None = None
    """A model for names of people, which no pattern finds; without one they stay."""
    author_key: str | None = None
    """File with the key of the authors' hashes, 16 characters or more; else the variable
    LLUMI_AUTHOR_KEY, else ``author.key`` under ``output``, made on first use."""


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
    scrub: ScrubSettings = ScrubSettings()
    """What is replaced in the texts that are kept."""
    split: SplitSettings = SplitSettings()
    """Shares of authors a split."""
    max_comments_per_post: int = Field(200, ge=2)
    """Most comments kept a post; chosen by a hash of the comment's id, never by arrival or score."""
    max_malformed_share: float = Field(0.01, ge=0, le=1)
    """Share of a file's lines that may be unparsable (0-1) before the stage refuses the file."""
    partitions: int = Field(0, ge=0, le=65_535)
    """Partitions by post, a task each; 0 = up to 4,096 by the dumps' size, a task for every 64 MB of rows kept."""
    rows_per_file: int = Field(20_000, gt=0)
    """Threads a Parquet file (the last one may hold fewer): about 100 MB of text at the default."""
    read_mb: float = Field(256, gt=0)
    """Stored megabytes a read task, where a dump can be cut: between the frames of a .zst file, or
    the row groups of a Parquet file. A file of one frame, or of another compression, is one task."""
    reader_memory_gb: float = Field(2.5, gt=0)
    """Logical memory a read task asks of Ray, in GB: a 2^31 decoding window needs 2.1."""


class SampleSettings(Section):
    """The built-in sample: a simulated community with known truth."""

    threads: int = Field(1200, ge=10)
    """Posts in the simulated community."""
    seed: int = 7
    """Seed of the simulation."""
