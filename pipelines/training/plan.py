"""What a training worker is told: plain values, since they travel to other hosts."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, Self

from configs.training import StageSettings, TrainingSettings

Task = Literal["lm", "sft", "dpo"]


@dataclass(frozen=True)
class Plan:
    """One training run, as its workers see it; all paths are absolute and reached by every node."""

    name: str
    """Name of the run: the same for the same inputs and settings, so that a second start resumes the first."""
    task: Task
    """``lm``: all weights on plain text; ``sft`` and ``dpo``: what ``training.mode`` says."""
    tokens: str
    """Folder of tokenised rows, ``{train,validation}/*.parquet``."""
    reference: str | None
    """DPO: folder of the reference's log-probabilities, file by file beside ``tokens``."""
    base: str
    """Base model: a folder or a Hugging Face name."""
    revision: str | None
    """Revision of a Hugging Face base."""
    start: str | None
    """Adapter, or whole model, that this run continues; None starts from the base."""
    output: str
    """Folder that rank 0 writes the result into."""
    storage: str
    """Ray Train's folder of this run, with its checkpoints."""
    attention: str
    """Attention implementation of transformers."""
    stage: StageSettings
    """Steps, rates and batches."""
    training: TrainingSettings
    """Memory, precision and faults."""
    seed: int
    """Seed of order, initialisation and dropout."""
    kernels: bool = False
    """Whether layers come from the hub's kernels."""
    logs: str | None = None
    """Folder of the trackers' files; None: no tracker."""
    label_noise: float | None = None
    """Share of wrong labels where it was estimated (``label_smoothing: auto``)."""
    mean_weight: float | None = None
    """Mean of the training pairs' weights before they are made 1 on average, where pairs are weighted."""
    selector: Mapping[str, str] = field(default_factory=dict)
    """Labels of the nodes that workers may run on; empty = any node."""

    def into(self, output: Path) -> Self:
        """The same plan, writing into another folder."""
        return replace(self, output=str(output.resolve()))


def portable_name(base: str) -> str:
    """How artefacts name a base: a Hugging Face name as it is, a folder by its own name only.

    A folder in Hugging Face's cache (``models--ORG--NAME/snapshots/HASH``) has the name it was fetched by.
    """
    if not Path(base).is_absolute():
        return base
    fetched = next((part for part in Path(base).parts if part.startswith("models--")), None)
    return "/".join(fetched.split("--")[1:]) if fetched else Path(base).name
