"""What a training worker is told: plain values, since they travel to other hosts."""

from dataclasses import dataclass, replace
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
    """``lm``: all weights on plain text; ``sft`` and ``dpo``: a LoRA adapter."""
    tokens: str
    """Folder of tokenised rows, ``{train,validation}/*.parquet``."""
    reference: str | None
    """DPO: folder of the reference's log-probabilities, file by file beside ``tokens``."""
    base: str
    """Base model: a folder or a Hugging Face name."""
    revision: str | None
    """Revision of a Hugging Face base."""
    start: str | None
    """Adapter that this one continues; None starts a fresh one."""
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

    def into(self, output: Path) -> Self:
        """The same plan, writing into another folder."""
        return replace(self, output=str(output.resolve()))


def portable_name(base: str) -> str:
    """How artefacts name a base: a Hugging Face name as it is, a folder by its own name only."""
    return Path(base).name if Path(base).is_absolute() else base
