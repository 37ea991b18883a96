"""Memory of one worker, term by term, at each of the three moments at which it can be largest.

ZeRO (Rajbhandari et al. 2020, section 3; 12 bytes of optimizer a trained weight: a float32 copy and
AdamW's two moments) with what DeepSpeed 0.19 adds: flat copies of gradients at the step, a
bucket, layers gathered at stage 3. The moments: the head's backward with all activations kept,
the layers' backward with gradients growing, the optimizer's step with neither.

What runs at the same time outside of torch is the device's overhead: see ``GpuOverhead`` and
``CpuOverhead``, whose numbers are named there with their origin.
"""

from dataclasses import dataclass, field, fields, replace

from pipelines.training.planner import activations
from pipelines.training.planner.activations import FLOAT, Batch
from pipelines.training.planner.model import Architecture
from pipelines.training.planner.setup import Setup

GIB, MIB = 2**30, 2**20
ADAM = 8
"""Bytes of AdamW's two moments a trained weight."""
ALLREDUCE = 500_000_000
"""Gradients that DeepSpeed sums at once without ZeRO."""
READ_TOKENS, READ_POSITIONS, WIDE = 16_384, 2_048, 3
"""The reference's padded tokens of a pass and positions of logits; tensors as wide as the MLP at once."""
LIVE = 1_000_000_000
"""Weights that ZeRO-3 keeps gathered (``stage3_max_live_parameters``)."""
NF4 = 0.5 + 0.127 / 8
"""Bytes of a weight in bitsandbytes' NF4 with double quantisation (Dettmers et al. 2023, section 3)."""


@dataclass(frozen=True)
class Terms:
    """Bytes of one worker at one moment."""

    weights: float = 0.0
    gradients: float = 0.0
    optimizer: float = 0.0
    activations: float = 0.0
    head: float = 0.0
    """The language-model head's tiles, and its gradient where it is trained."""
    gathered: float = 0.0
    """ZeRO's buckets, and at stage 3 the layers that are whole just now."""

    @property
    def tensors(self) -> float:
        """All of torch's tensors."""
        return sum(getattr(self, one.name) for one in fields(self))


@dataclass(frozen=True)
class Memory:
    """What a worker takes at most, and of its host besides."""

    terms: Terms
    """At the moment that takes most."""
    moment: str
    """Which: ``head``, ``layers``, ``step``, or ``reading`` for the reference."""
    overhead: float
    """Bytes beside torch's tensors."""
    host: float = 0.0
    """Bytes of the host's memory for what is offloaded."""
    every: dict[str, Terms] = field(default_factory=dict)
    """The terms at each moment."""

    @property
    def total(self) -> float:
        """Bytes of the device."""
        return self.terms.tensors + self.overhead


@dataclass(frozen=True)
class GpuOverhead:
    """Beside torch's tensors on a CUDA device. Assumed, since no GPU was measured yet."""

    context: float = 0.7 * GIB
    """CUDA's context with the kernels that are loaded, and cuBLAS's workspace."""
    nccl: float = 0.6 * GIB
    """NCCL's buffers, where there is more than one worker."""
    fragmentation: float = 0.06
    """Share of what tensors take that the caching allocator cannot give to others."""

    def of(self, terms: Terms, setup: Setup) -> float:
        """Bytes."""
        return self.context + (self.nccl if setup.workers > 1 else 0) + self.fragmentation * terms.tensors


@dataclass(frozen=True)
class CpuOverhead:
    """Beside torch's tensors in a process on the CPU; measured by benchmarks/planner.py."""

    imports: float = 600 * MIB
    """Resident once torch, transformers, TRL, PEFT and DeepSpeed are imported and workers have met."""
    libraries: float = 60 * MIB
    """What they load and cache in the first steps."""
    fragmentation: float = 0.35
    """Share of what tensors take that glibc keeps of freed blocks: 0.1 to 0.6 was seen."""
    unsharded: float = 1.0
    """ZeRO-3: share of all weights that glibc keeps of the time before they were cut."""

    def of(self, terms: Terms, setup: Setup) -> float:
        """Bytes."""
        kept = self.unsharded * terms.weights * setup.workers if setup.zero_stage == 3 else 0.0
        return self.imports + self.libraries + self.fragmentation * terms.tensors + kept


def memory(model: Architecture, setup: Setup, batch: Batch) -> Memory:
    """What a worker takes at the moment that takes most."""
    every = {
        "head": at_head(model, setup, batch),
        "layers": at_layers(model, setup, batch),
        "step": at_step(model, setup),
    }
    moment = max(every, key=lambda name: every[name].tensors)
    overhead = GpuOverhead() if setup.on_gpu else CpuOverhead()
    return Memory(
        terms=every[moment],
        moment=moment,
        overhead=overhead.of(every[moment], setup),
        host=host(model, setup),
        every=every,
    )


def reading(model: Architecture, setup: Setup) -> Memory:
    """What an actor takes that computes the reference's log-probabilities (``reference.Referee``).

    Each holds the whole model, whatever ZeRO does in training; keys and values of a batch are kept while
    its rows share their prompts, and logits are made for so many positions at once.
    """
    element, tokens = setup.element, READ_TOKENS
    passing = tokens * (WIDE * model.intermediate + 4 * model.hidden) * element
    cache = tokens * 2 * model.key_width * model.layers * element
    adapter = 0 if setup.mode == "full" else setup.trained(model) * element
    terms = Terms(
        weights=model.weights * element + adapter,
        activations=passing + cache,
        head=min(READ_POSITIONS, tokens) * model.vocabulary * (element + 2 * FLOAT),
    )
    alone = replace(setup, workers=1)
    overhead = GpuOverhead() if setup.on_gpu else CpuOverhead()
    return Memory(terms=terms, moment="reading", overhead=overhead.of(terms, alone), every={"reading": terms})


def held(model: Architecture, setup: Setup) -> Terms:
    """Weights and optimizer, which are there at every moment."""
    trained, element = setup.trained(model), setup.element
    frozen = float(setup.frozen(model) * element)
    if setup.mode == "qlora":
        frozen -= model.quantised * (element - NF4)
    weights = frozen + trained * element
    if setup.zero_stage == 3:
        weights = 0 if setup.offload_parameters else weights / setup.workers
    optimizer: float
    if setup.zero_stage == 0:
        optimizer = trained * (ADAM + (FLOAT if setup.bf16 else 0))
    else:
        optimizer = 0 if setup.offload_optimizer else trained * (ADAM + FLOAT) / setup.workers
    return Terms(weights=weights, optimizer=optimizer)


def gradients(model: Architecture, setup: Setup) -> float:
    """Bytes of gradients once the backward pass has made them."""
    whole = setup.trained(model) * setup.element
    share = whole / setup.workers
    if setup.zero_stage == 0:
        return whole
    if setup.zero_stage == 1:  # whole until a step's last micro-batch has been summed over workers
        return whole + (0.0 if setup.offload_optimizer else share)
    if setup.offload_optimizer:
        return 0.0
    # Stage 2 adds a micro-batch's gradients, in a buffer of their own, to the sum of those before.
    return share * (2 if setup.zero_stage == 2 and setup.accumulation > 1 else 1)


def gathered(model: Architecture, setup: Setup) -> float:
    """Bytes of buckets, and of the layers that stage 3 holds whole."""
    if setup.zero_stage == 0:
        return 0.0
    buffers = model.hidden**2 * setup.element * (2 if setup.on_gpu and setup.zero_stage < 3 else 1)
    if setup.zero_stage == 3 and (setup.workers > 1 or setup.offload_parameters):
        buffers += min(model.weights, LIVE) * setup.element
    return buffers


def at_head(model: Architecture, setup: Setup, batch: Batch) -> Terms:
    """While the head runs backward: all activations are there, gradients only of micro-batches before."""
    graph = setup.graph()
    head = activations.plain_head if setup.task == "lm" else activations.fused_head
    before = setup.accumulation > 1 or setup.zero_stage == 3
    return replace(
        held(model, setup),
        gradients=gradients(model, replace(setup, accumulation=1)) if before else 0.0,
        activations=activations.kept_at_head(model, graph, batch),
        head=head(model, graph, batch),
        gathered=gathered(model, setup),
    )


def at_layers(model: Architecture, setup: Setup, batch: Batch) -> Terms:
    """While the last layer runs backward: its gradients, the whole buffer of this worker's share of them."""
    graph = setup.graph()
    largest = 0.0
    if graph.full:
        largest = model.embedding * (setup.element if setup.task == "lm" or not setup.bf16 else FLOAT + setup.element)
    return replace(
        held(model, setup),
        gradients=gradients(model, setup) + (0.0 if setup.zero_stage < 2 else largest),
        activations=activations.kept(model, graph, batch) + activations.working(model, graph, batch),
        gathered=gathered(model, setup),
    )


def at_step(model: Architecture, setup: Setup) -> Terms:
    """While the optimizer steps: gradients are flattened, and in bfloat16 copied to float32."""
    trained, element = setup.trained(model), setup.element
    share = trained / setup.workers
    in_float = FLOAT if setup.bf16 else 0
    gradient: float
    if setup.zero_stage == 0:
        gradient = trained * element + (trained * FLOAT if setup.bf16 else min(trained, ALLREDUCE) * element)
    elif setup.offload_optimizer:
        gradient = 0.0
    else:
        gradient = share * (2 * element + in_float)
    return replace(held(model, setup), gradients=gradient)


def host(model: Architecture, setup: Setup) -> float:
    """Bytes of a worker's host memory that offloading takes: float32 copy, moments, gradients, pinned buffers."""
    trained = setup.trained(model)
    bytes_ = 0.0
    if setup.offload_optimizer:
        bytes_ += trained / setup.workers * (FLOAT + ADAM + FLOAT + setup.element)
    if setup.offload_parameters and setup.zero_stage == 3:
        bytes_ += (setup.frozen(model) + trained) * setup.element / setup.workers
    return bytes_
