"""The whole configuration, one typed tree: ``Settings``."""

from pydantic import Field

from configs.base import Section
from configs.card import CardSettings
from configs.cluster import ClusterSettings, EvaluationSettings
from configs.corpus import CorpusSettings, SampleSettings
from configs.improvement import ImprovementSettings
from configs.pairs import ExposureSettings, FeedbackSettings, PairSettings, SftRowSettings
from configs.retrieval import RetrievalSettings
from configs.serving import GenerationSettings, ServingSettings
from configs.training import ModelSettings, TrainingSettings


class PromptSettings(Section):
    """Which prompt template each model is trained and served with."""

    gm: str = "gm"
    """Template of the generation model: a name in configs/prompts/ or a path ending in .md."""
    im: str = "im"
    """Template of the improvement model: a name in configs/prompts/ or a path ending in .md."""


class Settings(Section):
    """Everything one run depends on; saved beside each output as ``settings.yaml``."""

    output: str = Field(min_length=1)
    """Folder that all stages write under."""
    seed: int = 0
    """Seed of everything random that has no seed of its own."""
    sample: SampleSettings | None = None
    """Make the built-in sample and read it instead of the corpus' dumps."""
    corpus: CorpusSettings = CorpusSettings()
    """Dumps and which rows are kept."""
    sft: SftRowSettings = SftRowSettings()
    """Which replies become SFT rows."""
    exposure: ExposureSettings = ExposureSettings()
    """What the order of arrival does to votes, for the pair rules."""
    pairs: PairSettings = PairSettings()
    """Which replies become preference pairs."""
    improvement: ImprovementSettings = ImprovementSettings()
    """What a draft should become, for the rows of IM."""
    retrieval: RetrievalSettings = RetrievalSettings()
    """Similar posts with well-received replies, for the prompts' example slot."""
    feedback: FeedbackSettings = FeedbackSettings()
    """Human ratings, for DPO2."""
    prompts: PromptSettings = PromptSettings()
    """Prompt templates."""
    model: ModelSettings = ModelSettings()
    """Base model."""
    training: TrainingSettings = TrainingSettings()
    """Training stages."""
    card: CardSettings = CardSettings()
    """What the data cards say beside what was measured."""
    generation: GenerationSettings = GenerationSettings()
    """Sampling."""
    evaluation: EvaluationSettings = EvaluationSettings()
    """Held-out figures and report."""
    serving: ServingSettings = ServingSettings()
    """The HTTP service."""
    cluster: ClusterSettings = ClusterSettings()
    """The Ray cluster."""
