"""How much a stage reads and writes: rows, tokens and files, from manifests where there are any.

What was tokenised is known exactly. Where only rows are there, or nothing yet, lengths and
numbers are assumed, and every plan says so beside the figure.
"""

from dataclasses import dataclass
from pathlib import Path

from configs.settings import Settings
from configs.training import ModelName, StageName, StageSettings
from pipelines import manifest
from pipelines.layout import Layout
from pipelines.manifest import Manifest
from pipelines.training.plan import Task
from pipelines.training.planner.model import Architecture

ASSUMED_ROWS: dict[StageName, int] = {"sft": 50_000, "dpo1": 50_000, "dpo2": 5_000}
"""Rows, or pairs, of a stage about which nothing is known; ratings are made by people, so they are few."""
ASSUMED_PROMPT, ASSUMED_COMPLETION = 700, 180
"""Mean tokens of a prompt (instructions and a post) and of a reply where nothing is tokenised yet."""
PADDING = 1.05
"""Padded tokens for each token, where rows of like length share a micro-batch."""
ID, FLOAT = 4, 4
"""Bytes of a token's id, and of a float32."""


@dataclass(frozen=True)
class Rows:
    """The training rows of one stage; lengths in tokens."""

    rows: int
    prompt: float
    """Mean."""
    completion: float
    """Mean."""
    longest: int
    """Of a whole row."""
    longest_completion: int
    source: str
    """``tokens``, ``rows`` (lengths are assumed) or ``assumed``."""

    @property
    def length(self) -> float:
        """Mean tokens of a prompt with one completion."""
        return self.prompt + self.completion

    def trained(self, task: Task) -> float:
        """Tokens of one epoch; a pair runs its prompt with each of its two replies."""
        return self.rows * self.length * (2 if task == "dpo" else 1)

    def scored(self) -> float:
        """Tokens that the reference reads of pairs: each prompt once."""
        return self.rows * (self.prompt + 2 * self.completion)


def rows_of(settings: Settings, model: ModelName, stage: StageName, assumed: int | None = None) -> Rows:
    """What a stage trains on, as far as the output folder tells; ``assumed`` overrides the number of rows."""
    at = Layout(Path(settings.output))
    tokens = manifest.read(at.tokens(model, stage))
    longest = settings.training.max_length
    if tokens is not None and assumed is None and (found := of_tokens(tokens, longest)):
        return found
    own: StageSettings = getattr(settings.training, stage)
    folder = {"sft": at.sft, "dpo1": at.pairs, "dpo2": at.rated_pairs}[stage]
    made = None if assumed is not None else number(manifest.read(folder), model, stage)
    rows = made if made is not None else assumed if assumed is not None else ASSUMED_ROWS[stage]
    scale = min(1.0, longest / (ASSUMED_PROMPT + ASSUMED_COMPLETION))
    return Rows(
        rows=min(rows, own.max_rows or rows),
        prompt=ASSUMED_PROMPT * scale,
        completion=ASSUMED_COMPLETION * scale,
        longest=longest,
        longest_completion=longest // 2,
        source="assumed" if made is None else "rows",
    )


def of_tokens(made: Manifest, longest: int) -> Rows | None:
    """Exact figures from the manifest of tokenised rows."""
    lengths = made.figures.get("lengths", {}).get("train", {})
    if not lengths.get("whole", {}).get("count"):
        return None
    return Rows(
        rows=made.rows["train"].kept,
        prompt=lengths["prompt"]["mean"],
        completion=lengths["completion"]["mean"],
        longest=min(longest, lengths["whole"]["max"]),
        longest_completion=lengths["completion"]["max"],
        source="tokens",
    )


def number(made: Manifest | None, model: ModelName, stage: StageName) -> int | None:
    """Training rows that a manifest of SFT rows, pairs or rated pairs counts."""
    if made is None:
        return None
    if stage == "dpo2":
        found = made.figures.get(f"{model}_pairs", {}).get("train")
    else:
        found = made.figures.get(model, {}).get("train")
    return found.get("pairs") if isinstance(found, dict) else found


def batch_steps(rows: int, stage: StageSettings, workers: int) -> int:
    """Optimizer steps of a stage; the last of an epoch may be short."""
    whole = -(-rows // (stage.micro_batch * stage.accumulation * workers))
    return stage.max_steps if stage.max_steps > 0 else max(1, round(whole * stage.epochs))


def epochs(rows: int, stage: StageSettings, workers: int) -> float:
    """Passes over the rows, as ``max_steps`` may cut them."""
    if stage.max_steps <= 0:
        return stage.epochs
    return stage.max_steps * stage.micro_batch * stage.accumulation * workers / max(rows, 1)


def tokens_file(rows: Rows, task: Task) -> float:
    """Bytes of a stage's token ids before compression: ids and labels, or a prompt and two replies."""
    ids = 2 * rows.length if task == "sft" else rows.prompt + 2 * rows.completion
    return rows.rows * ids * ID


def checkpoint(trained: int, element: int) -> float:
    """Bytes of one checkpoint over all workers: float32 weights and two moments, and the trained weights twice.

    DeepSpeed keeps them in its model states, transformers in a file that can be loaded alone.
    """
    return trained * (3 * FLOAT + 2 * element)


def merged(model: Architecture, element: int) -> float:
    """Bytes of the merged model."""
    return model.weights * element
