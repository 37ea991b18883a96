"""The whole plan of a configuration: every training stage's memory, hours, dollars and disk, and what else would fit.

Pure: it reads the configuration, what manifests are there, and tables; neither Ray nor torch is imported.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from configs.settings import Settings
from configs.training import MODELS, SCRATCH, STAGES, ModelName, StageName, StageSettings
from pipelines.training import modes
from pipelines.training.plan import Task
from pipelines.training.planner import speed, volume
from pipelines.training.planner.gpus import GPUS, PRICED, Gpu
from pipelines.training.planner.memory import GIB, Memory, memory, reading
from pipelines.training.planner.model import Architecture, architecture
from pipelines.training.planner.options import Option, options
from pipelines.training.planner.setup import Setup, batch_of, possible
from pipelines.training.planner.speed import Time
from pipelines.training.planner.volume import Rows

GPUS_PER_NODE = 8


@dataclass(frozen=True)
class Hardware:
    """What is planned for; without a GPU, memory alone can be said."""

    gpu: Gpu | None
    price: float
    """Dollars an hour and GPU."""
    nodes: int | None
    gpus_per_node: int | None
    workers: int

    @property
    def room(self) -> float | None:
        """Bytes of one device, None on the CPU."""
        return self.gpu.memory * GIB if self.gpu else None


@dataclass(frozen=True)
class StagePlan:
    """One stage of one model."""

    model: ModelName
    stage: StageName
    task: Task
    rows: Rows
    setup: Setup
    steps: int
    tokens: float
    """Trained on in all epochs, padding among them."""
    memory: Memory
    time: Time | None
    reading: Memory | None
    """Of the reference's pass, before DPO."""
    reading_time: Time | None
    tokens_file: float
    """Bytes."""
    checkpoint: float
    """Bytes."""

    @property
    def hours(self) -> float:
        """Of training and of the reference's pass."""
        return sum(time.hours for time in (self.time, self.reading_time) if time)

    @property
    def dollars(self) -> float:
        """Of both."""
        return sum(time.dollars for time in (self.time, self.reading_time) if time)


@dataclass(frozen=True)
class Forecast:
    """What ``llumi plan`` shows."""

    settings: Settings
    architecture: Architecture
    trained: int
    hardware: Hardware
    stages: list[StagePlan]
    options: dict[StageName, list[Option]]
    """Of SFT and of DPO1, where the device's memory is known."""
    elsewhere: list[tuple[Gpu, float, float, float]]
    """Each known GPU: bytes asked of it, hours and dollars of all stages."""
    disk: dict[str, float]
    """Bytes by what they hold."""
    assumptions: list[str]


def forecast(settings: Settings, hardware: Hardware, rows: int | None = None) -> Forecast:
    """The plan; ``rows`` stands in for the number of rows of every stage.

    Raises ConfigError for settings that no machine can run, ModelNotFound for a model that is not known.
    """
    modes.check(settings)
    model = architecture(settings)
    stages = [stage_of(settings, model, name, stage, hardware, rows) for name in MODELS for stage in STAGES]
    return Forecast(
        settings=settings,
        architecture=model,
        trained=stages[0].setup.trained(model),
        hardware=hardware,
        stages=stages,
        options={stage: choices(settings, model, stage, hardware, rows) for stage in ("sft", "dpo1") if hardware.gpu},
        elsewhere=[other(settings, model, gpu, hardware, rows) for gpu in GPUS] if hardware.gpu else [],
        disk=disk(settings, model, stages),
        assumptions=assumptions(settings, hardware, stages),
    )


def stage_of(
    settings: Settings, model: Architecture, name: ModelName, stage: StageName, hardware: Hardware, rows: int | None
) -> StagePlan:
    """One stage."""
    task: Task = "sft" if stage == "sft" else "dpo"
    own: StageSettings = getattr(settings.training, stage)
    setup, found = Setup.of(settings, task, own), volume.rows_of(settings, name, stage, rows)
    workers = settings.training.most_workers
    tokens = found.trained(task) * volume.epochs(found.rows, own, workers) * volume.PADDING
    price, gpu = hardware.price, hardware.gpu
    dpo = task == "dpo"
    return StagePlan(
        model=name,
        stage=stage,
        task=task,
        rows=found,
        setup=setup,
        steps=volume.batch_steps(found.rows, own, workers),
        tokens=tokens,
        memory=memory(model, setup, batch_of(settings, task, own, found)),
        time=speed.training(model, setup, gpu, tokens, found.length, price) if gpu else None,
        reading=reading(model, setup) if dpo else None,
        reading_time=speed.reading(model, setup, gpu, found.scored(), found.length, price) if gpu and dpo else None,
        tokens_file=volume.tokens_file(found, task),
        checkpoint=volume.checkpoint(setup.trained(model), setup.element),
    )


def choices(
    settings: Settings, model: Architecture, stage: StageName, hardware: Hardware, rows: int | None
) -> list[Option]:
    """What else would fit, for a stage of the first model."""
    task: Task = "sft" if stage == "sft" else "dpo"
    own: StageSettings = getattr(settings.training, stage)
    found = volume.rows_of(settings, MODELS[0], stage, rows)
    batches = partial(batch_of, settings, task, own, found)
    assert hardware.room is not None
    setup = Setup.of(settings, task, own)
    return options(
        model, setup, batches, own.micro_batch * setup.accumulation, hardware.room, partial(possible, settings)
    )


def other(
    settings: Settings, model: Architecture, gpu: Gpu, hardware: Hardware, rows: int | None
) -> tuple[Gpu, float, float, float]:
    """The same run on as many of another GPU."""
    price = hardware.price if gpu == hardware.gpu else gpu.price
    there = Hardware(gpu, price, hardware.nodes, hardware.gpus_per_node, hardware.workers)
    stages = [stage_of(settings, model, name, stage, there, rows) for name in MODELS for stage in STAGES]
    hours, dollars = sum(stage.hours for stage in stages), sum(stage.dollars for stage in stages)
    return gpu, max(largest(stages)), hours, dollars


def largest(stages: Sequence[StagePlan]) -> list[float]:
    """Bytes asked of a device by each stage and by each reference's pass."""
    return [one.total for stage in stages for one in (stage.memory, stage.reading) if one]


def disk(settings: Settings, model: Architecture, stages: Sequence[StagePlan]) -> dict[str, float]:
    """Bytes under ``output``, by what they hold; checkpoints are of one stage, since a finished one drops its own."""
    element = 2 if settings.training.bf16 else 4
    kept = settings.training.keep_checkpoints + 1
    return {
        "tokens, all stages, before compression": sum(stage.tokens_file for stage in stages),
        "one checkpoint": max(stage.checkpoint for stage in stages),
        f"checkpoints of the stage at work ({kept}: the newest and the best)": kept
        * max(stage.checkpoint for stage in stages),
        "adapters, all stages" if settings.training.mode != "full" else "models, all stages": sum(
            stage.setup.trained(model) * element for stage in stages
        ),
        "merged models": len(MODELS) * volume.merged(model, element),
    }


def assumptions(settings: Settings, hardware: Hardware, stages: Sequence[StagePlan]) -> list[str]:
    """What the figures stand on, in words."""
    said = []
    guessed = {stage.stage: f"{stage.rows.rows:,}" for stage in stages if stage.rows.source == "assumed"}
    lengths = [stage for stage in stages if stage.rows.source != "tokens"]
    if guessed:
        words = ", ".join(f"{number} of {stage}" for stage, number in guessed.items())
        said.append(f"Rows with * are assumed ({words}); set --rows, or make them: `llumi run CONFIG --until pairs`.")
    if lengths:
        some = lengths[0].rows
        said.append(
            f"Rows that are not tokenised yet are taken to have {some.prompt:.0f} tokens of prompt and "
            f"{some.completion:.0f} of completion on average, and up to training.max_length "
            f"{settings.training.max_length}, which memory is planned for."
        )
    if hardware.gpu:
        low, expected, high = (f"{share:.0%}" for share in speed.UTILISATION)
        said.append(
            f"Speed is assumed: {expected} of the bfloat16 peak ({low} to {high} for the range), recomputation in it; "
            "network, start, evaluation and checkpoints are not. ZeRO-3 and offloading may halve it."
        )
        said.append(
            f"Prices: on-demand for one GPU ({hardware.gpu.source}), {PRICED}; --price takes yours. "
            "CUDA context 0.7 GiB, NCCL 0.6 GiB and 6 % fragmentation are assumed; the tensors' formula is "
            "checked on CPUs only."
        )
    else:
        said.append("Hours and dollars are estimated for GPUs only: name one with --gpu.")
    if settings.model.base == SCRATCH:
        said.append("The base stage is not in these figures; its model is small.")
    return said
