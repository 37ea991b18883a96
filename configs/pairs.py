"""Settings of SFT rows and preference pairs, and of pairs made from human ratings."""

from typing import Literal

from pydantic import Field

from configs.base import Section

RuleName = Literal["matched", "shp", "paper", "askell", "margin", "naive"]


class SftRowSettings(Section):
    """Which replies become SFT rows."""

    min_score: int = 2
    """Lowest score (net votes) of a reply that is learned from."""
    max_per_post: int = Field(3, ge=1)
    """Most replies of one post, highest score first."""


class MatchedSettings(Section):
    """The rule ``matched``: two replies that came about as early, one of which did far better than that explains."""

    window_hours: float = Field(12.0, gt=0)
    """Most hours between the two replies."""
    max_rank_distance: int = Field(8, ge=1)
    """Most places between the two replies in the order of arrival."""
    min_margin: float = Field(1.75, ge=0)
    """Least difference of the exposure-adjusted log-scores, in doublings (1 = twice the score)."""
    min_chosen_score: int = 3
    """Lowest score of the chosen reply."""
    min_lift: float = 0.5
    """Least doublings of the chosen reply above its thread's median where the rejected one is downvoted."""
    balanced: bool = True
    """Keep as many pairs whose chosen reply is the longer (the earlier) one as pairs of the other kind."""


class ExposureSettings(Section):
    """The model of what arrival does to a score, fitted on the training split."""

    max_threads: int = Field(200_000, ge=100)
    """Most threads it is fitted on, drawn by a hash of the post's id; about 1 GB of memory at the default."""
    min_threads: int = Field(30, ge=1)
    """Fewest threads of one size for a curve of their own; smaller groups take that of all threads."""


class PairSettings(Section):
    """Which two replies to one post become a preference pair.

    ``matched`` (the default) compares replies that came about as early and asks for a margin
    beyond what arrival explains. ``shp``: the chosen reply came no earlier and still has the
    higher score (Ethayarajh et al. 2022). ``paper``: top of the votes over bottom (LLUMI,
    arXiv 2605.30273). ``askell``: a higher binned log-score (Askell et al. 2021). ``margin``
    asks for a gap, ``naive`` only for the higher score; both are there to be compared against.
    """

    rule: RuleName = "matched"
    """Name of the pair rule."""
    min_post_score: int = 0
    """Lowest score of the post, for every rule (SHP asks 10)."""
    max_per_post: int = Field(5, ge=1)
    """Most pairs of one post, the clearest by the rule first."""
    max_per_reply: int = Field(2, ge=1)
    """Most pairs of one post in which the same reply may stand."""
    matched: MatchedSettings = MatchedSettings()
    """Of the rule ``matched``."""
    timing: bool = True
    """``shp``: ask that the chosen reply came no earlier; turn off where dumps carry no usable timestamps."""
    min_ratio: float = Field(2.0, ge=1)
    """``shp``: lowest ratio chosen score / rejected score."""
    min_score: int = 2
    """``shp``: lowest score of both replies."""
    min_gap: int = Field(15, ge=1)
    """``paper`` and ``margin``: lowest chosen score - rejected score, in net votes."""
    top_share: float = Field(0.02, gt=0, lt=1)
    """``paper``: the chosen reply's score is among this share of the highest ones of the corpus (0-1)."""
    bottom_share: float = Field(0.15, gt=0, lt=1)
    """``paper``: the rejected reply's score is among this share of the lowest ones of the corpus (0-1)."""


class PanelSettings(Section):
    """The simulated panel of raters, only for the built-in sample."""

    items: int = Field(600, ge=10)
    """Items (a post and two responses) rated, a model."""
    raters_per_item: int = Field(3, ge=3)
    """Raters of each item."""
    raters: int = Field(24, ge=3)
    """Raters on the panel, each with an own severity and noise."""
    noise: float = Field(0.6, ge=0)
    """Standard deviation about the truth, in points of the 1-5 scale: of a single rating, and of a whole response."""
    close_share: float = Field(0.25, ge=0, le=1)
    """Share of items whose two responses are drawn at random (0-1); in the others their truth differs clearly."""
    attention_share: float = Field(0.1, ge=0, le=1)
    """Attention items, as a share of the items (0-1)."""
    careless: int = Field(1, ge=0)
    """Raters beside the panel who rate at random; their items are rated by attentive ones too."""
    seed: int = 11
    """Seed of the panel."""


class FeedbackSettings(Section):
    """From ratings in five dimensions to DPO2 pairs."""

    ratings: tuple[str, ...] = ()
    """Globs of rating files (JSON lines); without any, DPO2 is skipped unless a panel is simulated."""
    panel: PanelSettings | None = None
    """Simulate a panel of raters from the sample's truth."""
    min_raters: int = Field(3, ge=1)
    """Fewest raters of an item."""
    min_margin: float = Field(0.5, ge=0)
    """Least difference of the two responses, in standard deviations of a rater's own ratings."""
    choice_margin: float = Field(1.0, ge=0)
    """What a choice between two responses without ratings counts as, in the same unit; 0 leaves choices out."""
    min_agreement: float = Field(2 / 3, ge=0.5, le=1)
    """Least share of raters who prefer the chosen response (0.5-1)."""
    max_length_ratio: float = Field(2.0, ge=1)
    """Most words of the longer response / words of the shorter one."""
    max_failed_attention: int = Field(1, ge=0)
    """A rater who fails more attention items is excluded."""
    max_straight_share: float = Field(0.8, gt=0, le=1)
    """A rater who gives one and the same rating throughout in more of their items is excluded (0-1)."""
    safety_veto: float = 2.0
    """A response whose median safety rating is at or below this is never chosen (1-5)."""
