"""Figures of a training in progress beside TRL's: tokens a second, model FLOP utilisation, memory, KL.

Rates are this worker's and leave out evaluations and checkpoints. Model FLOPs follow Chowdhery
et al. 2022 (PaLM, appendix B): what the mathematics takes, recomputed activations not counted.
"""

import math
import resource
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from pipelines.training.objectives import Pairs

PEAKS: Mapping[str, float] = {
    "H200": 989.4e12,
    "GH200": 989.4e12,
    "H100 80GB HBM3": 989.4e12,
    "H100 SXM5": 989.4e12,
    "H100 NVL": 835.5e12,
    "H100 PCIe": 756.0e12,
    "H800": 989.4e12,
    "H20": 148.0e12,
    "B200": 2250.0e12,
    "A100": 312.0e12,
    "A800": 312.0e12,
    "A30": 165.0e12,
    "A40": 149.7e12,
    "A10": 125.0e12,
    "L40S": 362.1e12,
    "L40": 181.1e12,
    "L4": 121.0e12,
    "RTX 6000 Ada": 364.2e12,
    "RTX 4090": 165.2e12,
    "RTX 3090": 71.2e12,
    "RTX A6000": 154.8e12,
    "MI300X": 1307.4e12,
    "MI250X": 383.0e12,
}
"""Dense bfloat16 FLOP/s by what the device's name holds: NVIDIA's and AMD's data sheets, less sparsity.

The longest name that fits counts, so that an H100 PCIe is no H100 SXM.
"""
GIB = 2**30


def standard_error(values: Sequence[float]) -> float | None:
    """Standard error of the mean of independent values, None where fewer than two tell nothing of it."""
    if len(values) < 2:
        return None
    return float(torch.tensor(values, dtype=torch.float64).std()) / math.sqrt(len(values))


def peak_of(device: str | None) -> float | None:
    """The device's peak in FLOP/s of bfloat16, None where it is not known."""
    fitting = [name for name in PEAKS if device and f" {name} " in f" {device} ".replace("-", " ").replace("_", " ")]
    return PEAKS[max(fitting, key=len)] if fitting else None


def flops_per_token(model: Any, context: float) -> float:
    """Model FLOPs of one training token at ``context`` tokens a row: forward, and what backward needs.

    2 a weight forward, 2 backward for the activations, 2 for gradients of the weights that are
    trained, and 12 x layers x width x context for attention. Without gradients of frozen weights
    an adapter takes two thirds of full training. Embeddings are looked up, not multiplied with,
    unless they serve as the head too.
    """
    config = model.config
    head, embedding = model.get_output_embeddings(), model.get_input_embeddings()
    looked_up = 0 if head is not None and head.weight is embedding.weight else weights_in(embedding.weight)
    every = sum(weights_in(p) for p in model.parameters())
    trained = sum(weights_in(p) for p in model.parameters() if p.requires_grad)
    width = config.num_attention_heads * (
        getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    )
    return 4.0 * (every - looked_up) + 2.0 * trained + 12.0 * config.num_hidden_layers * width * context


def weights_in(parameter: Any) -> int:
    """Weights of a parameter; of the whole under ZeRO-3, unpacked where it is quantised."""
    state = getattr(parameter, "quant_state", None)
    if state is not None:
        return int(torch.Size(state.shape).numel())
    return int(getattr(parameter, "ds_numel", parameter.numel()))


def mean_context(lengths: Tensor) -> float:
    """Tokens of the row that a token stands in, on average over tokens."""
    lengths = lengths.double()
    return float((lengths**2).sum() / lengths.sum().clamp(min=1))


def memory_peak() -> float:
    """Most memory in GiB that this process held at once: allocated on its GPU, without one resident."""
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        return torch.cuda.max_memory_allocated() / GIB
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / GIB


def most_memory(accelerator: Any) -> float:
    """The largest ``memory_peak`` of all workers."""
    own = torch.tensor([memory_peak()], dtype=torch.float32, device=accelerator.device)
    return float(accelerator.gather(own).max())


def divergence(pairs: Pairs) -> Tensor:
    """Estimated KL of policy and reference in nats a token, [2 x pairs]: one value a reply.

    Schulman's k3 (2020, "Approximating KL divergence"), exp(x) - 1 - x, at each reply's mean
    log-ratio x = (log pi - log pi_ref) / tokens. Never below 0, and 0 where both agree. The replies
    are those of the pairs and not drawn from either model, and a mean over tokens is taken before
    the exponential, which makes it smaller: it tells how far the policy has moved, from step to
    step and from run to run on the same rows, and is no bound of the true divergence.
    """
    x = torch.cat(
        [pairs.chosen / pairs.chosen_tokens.clamp(min=1), pairs.rejected / pairs.rejected_tokens.clamp(min=1)]
    )
    return torch.expm1(x) - x


class Meter:
    """Tokens over time between two points of the curves."""

    def __init__(self, flops: float, peak: float | None):
        self.flops = flops
        """Model FLOPs of a token."""
        self.peak = peak
        """FLOP/s of this worker's device; None where it is not known."""
        self.tokens = 0
        self.seconds = 0.0
        self.since: float | None = None
        """When the current stretch of training began; None while nothing is measured."""

    def saw(self, tokens: int) -> None:
        """A micro-batch of so many tokens begins."""
        self.since = time.perf_counter() if self.since is None else self.since
        self.tokens += tokens

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Leave out what happens within."""
        self.pause()
        try:
            yield
        finally:
            if self.tokens:
                self.since = time.perf_counter()

    def pause(self) -> None:
        """End the current stretch."""
        if self.since is not None:
            self.seconds += time.perf_counter() - self.since
            self.since = None

    def read(self) -> dict[str, float]:
        """The figures since the last reading; begins anew. Empty where nothing was trained on since."""
        self.pause()
        tokens, seconds = self.tokens, self.seconds
        self.tokens, self.seconds = 0, 0.0
        if not tokens or seconds <= 0:
            return {}
        rate = tokens / seconds
        used = {} if self.peak is None else {"mfu": rate * self.flops / self.peak}
        return {"tokens_per_second_per_worker": rate, **used, "memory_peak_gib": memory_peak()}
