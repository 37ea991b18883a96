"""Hours and dollars of a stage on one kind of GPU, from counted operations and an assumed utilisation.

Operations as ``metrics.flops_per_token`` counts them (Chowdhery et al. 2022, appendix B): 2 a weight
forward, 2 backward for activations, 2 more for weights that are trained, 12 x layers x width x
context for attention; gradient checkpointing runs the forward pass once more. Not counted: the
network, which ZeRO-3 and offloading load most, starts, evaluations and checkpoints.
"""

from dataclasses import dataclass

from pipelines.training.planner.gpus import Gpu
from pipelines.training.planner.model import Architecture
from pipelines.training.planner.setup import Setup

UTILISATION = (0.30, 0.42, 0.50)
"""Share of the GPU's bfloat16 peak that is assumed: low, expected, high. Recomputation counts as work."""
FLOAT32 = 1 / 15
"""float32 against bfloat16 tensor cores, about (A100: 19.5 of 312, H100: 67 of 989 TFLOP/s)."""


@dataclass(frozen=True)
class Time:
    """Of a stage on all its workers together: expected, and from the high to the low utilisation."""

    hours: float
    shortest: float
    longest: float
    tokens_per_second: float
    """Of all workers, expected."""
    mfu: float
    """Expected model FLOP utilisation, recomputation not counted, as training reports it."""
    dollars: float
    """Expected."""


def model_flops(model: Architecture, setup: Setup, context: float) -> float:
    """Of a training token in rows of ``context`` tokens, nothing computed twice."""
    trained = setup.trained(model)
    multiplied = model.multiplied + (0 if setup.mode == "full" else trained)
    return 4.0 * multiplied + 2.0 * trained + 12.0 * model.layers * model.query_width * context


def forward_flops(model: Architecture, setup: Setup, context: float) -> float:
    """Of a token that is only read."""
    adapter = 0 if setup.mode == "full" else setup.trained(model)
    return 2.0 * (model.multiplied + adapter) + 4.0 * model.layers * model.query_width * context


def training(model: Architecture, setup: Setup, gpu: Gpu, tokens: float, context: float, price: float) -> Time:
    """Of ``tokens`` training tokens, padding among them; ``price`` in dollars an hour and GPU."""
    useful = model_flops(model, setup, context)
    done = useful + (forward_flops(model, setup, context) if setup.checkpointing else 0.0)
    return time(setup, gpu, tokens, done, price, useful / done)


def reading(model: Architecture, setup: Setup, gpu: Gpu, tokens: float, context: float, price: float) -> Time:
    """Of the reference's pass over ``tokens`` tokens."""
    return time(setup, gpu, tokens, forward_flops(model, setup, context), price, 1.0)


def time(setup: Setup, gpu: Gpu, tokens: float, flops: float, price: float, useful: float) -> Time:
    """From operations a token to hours and dollars."""
    peak = gpu.peak * (1.0 if setup.bf16 else FLOAT32)
    low, expected, high = (tokens * flops / (peak * share * setup.workers) / 3600 for share in UTILISATION)
    rate = tokens / (expected * 3600) if expected else 0.0
    return Time(
        hours=expected,
        shortest=high,
        longest=low,
        tokens_per_second=rate,
        mfu=UTILISATION[1] * useful,
        dollars=expected * setup.workers * price,
    )
