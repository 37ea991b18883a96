"""Settings of the base model and of training: SFT, DPO1 and DPO2 with DeepSpeed ZeRO, LoRA, QLoRA or all weights."""

from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Discriminator, Field, Tag, model_validator

from configs.base import Section
from configs.objectives import ObjectiveSettings

ModelName = Literal["gm", "im"]
StageName = Literal["sft", "dpo1", "dpo2"]
MODELS: tuple[ModelName, ...] = ("gm", "im")
STAGES: tuple[StageName, ...] = ("sft", "dpo1", "dpo2")
SCRATCH = "scratch"
Batching = Literal["length_grouped", "random", "padding_free", "packed"]


class ScratchModelSettings(Section):
    """The small Mistral-architecture model that is made on the spot where ``model.base`` is ``scratch``."""

    hidden_size: int = Field(192, gt=0)
    """Width of the residual stream."""
    layers: int = Field(4, gt=0)
    """Decoder layers."""
    heads: int = Field(6, gt=0)
    """Attention heads."""
    kv_heads: int = Field(2, gt=0)
    """Key-value heads (grouped-query attention)."""
    intermediate_size: int = Field(512, gt=0)
    """Width of the MLP."""
    vocabulary: int = Field(4096, ge=300)
    """Most entries of the BPE vocabulary trained on the training split's text."""
    max_positions: int = Field(1024, ge=64)
    """Longest sequence in tokens."""


class ModelSettings(Section):
    """The base model that both adapters stand on."""

    base: str = SCRATCH
    """A Hugging Face name, a local folder, or ``scratch``: a small model trained here from the corpus."""
    revision: str | None = None
    """Revision (commit or tag) of a Hugging Face model."""
    attention: str = "sdpa"
    """Attention implementation of transformers (``sdpa``, ``eager``, ``flash_attention_2``), or a kernel of the hub."""
    use_kernels: bool = False
    """Take layers from the ``kernels`` package where it has them (GPU only; it fetches them from the hub)."""
    scratch: ScratchModelSettings = ScratchModelSettings()
    """Sizes of the model made where ``base`` is ``scratch``."""


class LoraSettings(Section):
    """Low-rank adapters (Hu et al. 2021) by PEFT."""

    r: int = Field(16, gt=0)
    """Rank."""
    alpha: int = Field(32, gt=0)
    """Scale; the update is multiplied by alpha / r."""
    dropout: float = Field(0.05, ge=0, lt=1)
    """Dropout on the adapter's input (0-1)."""
    targets: tuple[str, ...] = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
    """Names of the linear layers that get an adapter."""


class OffloadSettings(Section):
    """What DeepSpeed keeps outside of the GPU (Ren et al. 2021; to NVMe: Rajbhandari et al. 2021)."""

    optimizer: Literal["none", "cpu", "nvme"] = "none"
    """Where the optimizer's state lies and its step is computed, from ZeRO-1 on; ``nvme`` is refused, as DeepSpeed does
    not resume from it."""
    parameters: Literal["none", "cpu", "nvme"] = "none"
    """Where weights lie that no layer needs just now; with ZeRO-3. ``nvme`` is for ``mode: full`` only."""
    nvme_path: str | None = None
    """Folder on each node's own fast disk, for ``nvme``; runs get folders of their own in it."""


class StageSettings(ObjectiveSettings):
    """One training stage; what it minimises is in ``ObjectiveSettings``."""

    epochs: float = Field(1.0, gt=0)
    """Passes over the rows."""
    max_steps: int = Field(-1, ge=-1)
    """Optimizer steps; above 0 it overrides ``epochs``."""
    max_rows: int = Field(0, ge=0)
    """Most training rows, chosen by a seeded shuffle; 0 = all."""
    learning_rate: float = Field(2e-5, gt=0)
    """Peak learning rate."""
    warmup_share: float = Field(0.05, ge=0, le=1)
    """Share of steps over which the learning rate rises (0-1)."""
    micro_batch: int = Field(8, gt=0)
    """Rows (SFT) or pairs (DPO) a worker takes at once."""
    accumulation: int = Field(1, gt=0)
    """Micro-batches added up before an optimizer step."""
    weight_decay: float = Field(0.0, ge=0)
    """Weight decay of AdamW."""
    save_every: int = Field(0, ge=0)
    """Steps between checkpoints; 0 = one at each epoch's end."""


class WorkerRange(Section):
    """Elastic training: as many workers as the cluster holds, between two numbers."""

    min: int = Field(ge=1)
    """Fewest workers; with fewer, training waits for nodes."""
    max: int = Field(ge=1)
    """Most workers; optimizer steps take ``micro_batch * accumulation * max`` rows whatever the number."""

    @model_validator(mode="after")
    def ordered(self) -> Self:
        if self.min > self.max:
            raise ValueError(f"min {self.min} is above max {self.max}")
        return self


def workers_tag(value: Any) -> str:
    """Which kind of ``workers`` a value is meant to be; errors do not show it (configs.load)."""
    return "<range>" if isinstance(value, dict | WorkerRange) else "<number>"


Workers = Annotated[
    Annotated[int, Field(ge=1), Tag("<number>")] | Annotated[WorkerRange, Tag("<range>")], Discriminator(workers_tag)
]


class UploadSettings(Section):
    """How hard a checkpoint's copy into storage is tried; one that fails at last is left out and counted."""

    retries: int = Field(3, ge=0)
    """Further attempts after one that failed (disk full, I/O error, no permission)."""
    backoff_s: float = Field(2.0, gt=0)
    """Seconds before the first retry; doubled before each further one, at most a minute."""


class DivergenceSettings(Section):
    """When training stops because its loss has grown; a loss or gradient that is not finite stops it at once."""

    factor: float = Field(5.0, ge=0)
    """Stop where the loss exceeds this many times its running median (one below ln 2 counts as ln 2); 0 = never."""
    steps: int = Field(20, ge=1)
    """... in this many optimizer steps in a row."""
    window: int = Field(100, ge=1)
    """Optimizer steps that the running median is taken over."""


def unless_false(value: Any) -> Any:
    """YAML reads a bare ``off`` as false."""
    return "off" if value is False else value


class TrainingSettings(Section):
    """How training runs: workers, memory, precision, fault tolerance, and the stages."""

    workers: Workers = 2
    """Training processes, one GPU (or share of CPU) each; {min, max} = as many as the cluster holds just then."""
    cpus_per_worker: float = Field(1, gt=0)
    """CPUs a worker asks of Ray."""
    gpus_per_worker: float = Field(0, ge=0)
    """GPUs a worker asks of Ray; 0 trains on the CPU over gloo."""
    placement: Literal["PACK", "SPREAD", "STRICT_PACK", "STRICT_SPREAD"] = "PACK"
    """How Ray places workers over nodes."""
    interface: str | None = None
    """Network interface that workers talk over, on every host the same name; none = that of the node's Ray address."""
    mode: Literal["lora", "qlora", "full"] = "lora"
    """Train an adapter, an adapter on a base held in 4 bits (GPU only), or all weights."""
    zero_stage: Literal[0, 1, 2, 3] = 2
    """DeepSpeed ZeRO stage: what is sharded over workers (1 optimizer, 2 gradients, 3 weights)."""
    offload: OffloadSettings = OffloadSettings()
    """What is kept in the host's memory or on its disk instead of on the GPU."""
    bf16: bool = False
    """Train in bfloat16 instead of float32."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass to save memory."""
    max_length: int = Field(1024, ge=16)
    """Longest row in tokens, prompt and completion together."""
    too_long: Literal["drop", "cut_prompt"] = "drop"
    """Longer rows: left out, or kept with the middle of the post's text cut out; a completion is never cut."""
    batching: Batching = "length_grouped"
    """How rows share a micro-batch: padded to its longest, of like length or not; or end to end without padding, where
    ``packed`` fills ``micro_batch * max_length`` tokens. The last two are SFT's and need FlashAttention; DPO pads."""
    ingest: Literal["memory_map", "stream"] = "memory_map"
    """Training rows from the node's own disk, or streamed by Ray Data for sets larger than that disk; same results."""
    lora: LoraSettings = LoraSettings()
    """Adapter settings, shared by the stages since each continues the one before."""
    memory_check: Annotated[Literal["refuse", "warn", "off"], BeforeValidator(unless_false)] = "refuse"
    """What happens before a stage starts whose planned memory exceeds that of the devices."""
    max_failures: int = Field(3, ge=-1)
    """Worker failures that are retried from the last checkpoint; -1 = without limit."""
    keep_checkpoints: int = Field(2, ge=1)
    """Newest checkpoints kept; the best one is kept besides."""
    upload: UploadSettings = UploadSettings()
    """What is done where storage fails."""
    divergence: DivergenceSettings = DivergenceSettings()
    """What stops a training that goes wrong."""
    validation_rows: int = Field(256, ge=0)
    """Most rows of the validation split that are evaluated at a stage's end, chosen by a seeded draw; 0 = all."""
    log_every: int = Field(10, ge=1)
    """Steps between two points of the training curves."""
    grad_norm: float = Field(1.0, gt=0)
    """Gradients are clipped to this norm."""
    report_to: tuple[Literal["tensorboard", "mlflow", "wandb"], ...] = ("tensorboard",)
    """Where training curves go beside the adapter; MLflow and W&B need the extras ``mlflow`` and ``wandb``."""
    mlflow_uri: str | None = None
    """MLflow's tracking server or folder; null: ``logs/mlflow`` under the output."""
    wandb_online: bool = False
    """Send runs to W&B while they train; else they stay in ``logs/wandb`` under the output, for ``wandb sync``."""
    base: StageSettings = StageSettings(learning_rate=2e-3, micro_batch=16)
    """Language-model training of a ``scratch`` base."""
    sft: StageSettings = StageSettings()
    """Supervised fine-tuning on well-received replies."""
    dpo1: StageSettings = StageSettings(learning_rate=5e-6)
    """DPO on votes."""
    dpo2: StageSettings = StageSettings(learning_rate=5e-6)
    """DPO on ratings in five dimensions."""

    @model_validator(mode="after")
    def objectives_fit(self) -> Self:
        for name in ("base", "sft"):
            if given := getattr(self, name).preferential():
                raise ValueError(f"{name}.{given[0]} is DPO's alone; set it in dpo1 or dpo2")
        for name in ("dpo1", "dpo2"):
            if "lm_head" in self.lora.targets and self.mode != "full":
                raise ValueError(f"lora.targets: {name} cannot train an adapter on lm_head; take it out")
        return self

    @model_validator(mode="after")
    def least_workers_share_a_step(self) -> Self:
        for name in ("base", *STAGES):
            micro_batches = getattr(self, name).accumulation * self.most_workers
            if micro_batches % self.least_workers:
                raise ValueError(
                    f"workers.min {self.least_workers} cannot share the {micro_batches} micro-batches of a step of "
                    f"{name} (accumulation x workers.max) evenly; use a divisor of {micro_batches}"
                )
        return self

    @property
    def most_workers(self) -> int:
        """Workers that a step's rows are counted by: ``workers``, or its ``max``."""
        return self.workers.max if isinstance(self.workers, WorkerRange) else self.workers

    @property
    def least_workers(self) -> int:
        """Workers without which training does not start: ``workers``, or its ``min``."""
        return self.workers.min if isinstance(self.workers, WorkerRange) else self.workers
