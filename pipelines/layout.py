"""Where each output lies under ``settings.output``: the drawing of the data's way, as paths."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Layout:
    """Paths of one run."""

    root: Path

    @property
    def sample(self) -> Path:
        """Dumps of the built-in sample, with ``truth.parquet``."""
        return self.root / "sample"

    @property
    def threads(self) -> Path:
        """One row a post, its comments as a list."""
        return self.root / "threads"

    @property
    def retrieval(self) -> Path:
        """The index of similar posts: ``retrieval/index`` (LanceDB), ``retrieval/examples/*.parquet``."""
        return self.root / "retrieval"

    @property
    def revisions(self) -> Path:
        """What drafts should become, for the rows of IM: one file for each of the threads."""
        return self.root / "revisions"

    @property
    def teacher(self) -> Path:
        """Answers of the teacher, kept from run to run."""
        return self.root / "teacher"

    @property
    def exposure(self) -> Path:
        """What the order of arrival does to votes: ``exposure.json``."""
        return self.root / "exposure"

    @property
    def sft(self) -> Path:
        """SFT rows: ``sft/{gm,im}/{train,validation,test}/*.parquet``."""
        return self.root / "sft"

    @property
    def pairs(self) -> Path:
        """Preference pairs from votes: ``pairs/{gm,im}/{train,validation,test}/*.parquet``."""
        return self.root / "pairs"

    @property
    def ratings(self) -> Path:
        """Rating files of the simulated panel."""
        return self.root / "ratings"

    @property
    def feedback(self) -> Path:
        """Rating files of what people said of the service's answers."""
        return self.root / "feedback"

    @property
    def rated_pairs(self) -> Path:
        """Preference pairs from ratings, laid out like ``pairs``."""
        return self.root / "rated_pairs"

    @property
    def base(self) -> Path:
        """The base model that was made here, where ``model.base`` is ``scratch``."""
        return self.root / "models" / "base"

    def model(self, model: str) -> Path:
        """The merged model."""
        return self.root / "models" / model

    def adapter(self, model: str, stage: str) -> Path:
        """The adapter of a model after a stage."""
        return self.root / "adapters" / model / stage

    def tokens(self, model: str, stage: str) -> Path:
        """Tokenised rows of a stage."""
        return self.root / "tokens" / model / stage

    def reference(self, model: str, stage: str) -> Path:
        """What the reference of a DPO stage thinks of its rows: log-probabilities beside the tokens."""
        return self.root / "reference" / model / stage

    @property
    def checkpoints(self) -> Path:
        """Ray Train's storage: checkpoints of runs in progress."""
        return self.root / "checkpoints"

    @property
    def logs(self) -> Path:
        """Training curves as trackers keep them: TensorBoard's event files, one folder a run."""
        return self.root / "logs"

    @property
    def evaluation(self) -> Path:
        """Figures and ``report.html``."""
        return self.root / "evaluation"
