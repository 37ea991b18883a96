"""What of the settings a worker's memory and time depend on, and nothing else: so that others can be tried."""

from dataclasses import dataclass
from typing import Literal

from configs.errors import ConfigError
from configs.settings import Settings
from configs.training import StageSettings
from pipelines.training import modes
from pipelines.training.devices import Devices
from pipelines.training.plan import Task
from pipelines.training.planner.activations import Batch, Graph
from pipelines.training.planner.model import Architecture
from pipelines.training.planner.volume import Rows

Mode = Literal["lora", "qlora", "full"]


@dataclass(frozen=True)
class Setup:
    """Everything that the memory of a worker depends on beside model and batch."""

    task: Task
    mode: Mode
    zero_stage: int
    offload_optimizer: bool
    offload_parameters: bool
    bf16: bool
    checkpointing: bool
    workers: int
    accumulation: int
    on_gpu: bool
    attention: str
    targets: tuple[str, ...]
    rank: int
    dropout: bool

    @classmethod
    def of(cls, settings: Settings, task: Task, stage: StageSettings) -> "Setup":
        """From the settings; the fewest workers count, since they shard least."""
        training = settings.training
        return cls(
            task=task,
            mode="full" if task == "lm" else training.mode,
            zero_stage=training.zero_stage,
            offload_optimizer=training.offload.optimizer != "none",
            offload_parameters=training.offload.parameters != "none",
            bf16=training.bf16,
            checkpointing=training.gradient_checkpointing,
            workers=training.least_workers,
            accumulation=stage.accumulation * training.most_workers // training.least_workers,
            on_gpu=training.gpus_per_worker > 0,
            attention=settings.model.attention,
            targets=training.lora.targets,
            rank=training.lora.r,
            dropout=training.lora.dropout > 0 and task == "sft",  # TRL turns it off for DPO
        )

    @property
    def element(self) -> int:
        """Bytes of a weight and of an activation."""
        return 2 if self.bf16 else 4

    def trained(self, model: Architecture) -> int:
        """Weights that are trained."""
        return model.weights if self.mode == "full" else model.lora(self.targets, self.rank)

    def frozen(self, model: Architecture) -> int:
        """Weights that are not."""
        return 0 if self.mode == "full" else model.weights

    def graph(self) -> Graph:
        """What decides which activations are kept."""
        return Graph(
            element=self.element,
            full=self.mode == "full",
            sharded=self.zero_stage == 3,
            targets=self.targets,
            rank=self.rank,
            dropout=self.dropout and self.mode != "full",
            checkpointing=self.checkpointing,
            attention=self.attention,
            on_gpu=self.on_gpu,
        )


def batch_of(settings: Settings, task: Task, stage: StageSettings, rows: Rows, size: int | None = None) -> Batch:
    """The largest micro-batch of a stage, of ``size`` rows or pairs where another than the settings' is asked about."""
    micro_batch, batching = size or stage.micro_batch, settings.training.batching
    if task != "dpo" and batching in ("padding_free", "packed"):
        length = settings.training.max_length if batching == "packed" else rows.longest
        return Batch(1, micro_batch * length, micro_batch * min(rows.longest_completion, length), padded=False)
    sequences = micro_batch * (2 if task == "dpo" else 1)
    return Batch(sequences, rows.longest, rows.longest_completion, padded=sequences > 1)


def possible(settings: Settings, setup: Setup, devices: Devices | None = None) -> bool:
    """Whether ``modes.check`` lets the settings pass with what differs in ``setup``; offloading is to the host."""
    training = settings.training
    places = {"optimizer": setup.offload_optimizer, "parameters": setup.offload_parameters}
    kept = {name: getattr(training.offload, name) for name in places}
    offload = {name: (kept[name] if kept[name] != "none" else "cpu") if on else "none" for name, on in places.items()}
    update = {
        "mode": training.mode if setup.task == "lm" else setup.mode,
        "zero_stage": setup.zero_stage,
        "gradient_checkpointing": setup.checkpointing,
        "offload": training.offload.model_copy(update=offload),
    }
    try:
        modes.check(settings.model_copy(update={"training": training.model_copy(update=update)}), devices)
    except ConfigError:
        return False
    return True
