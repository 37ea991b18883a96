"""The order of rows: shuffled, yet rows of like length together, so that little is padding.

transformers' own length-grouped sampler draws from the process's random state, so after a
restart an epoch would go on in another order than it began. This one draws from the seed and
the epoch alone: a resumed run sees the rows that it had not seen yet, and no other.
"""

from collections.abc import Iterator, Sequence

import torch
from torch.utils.data import Sampler

POOL = 32
"""Steps whose rows are sorted together: more pads less, fewer shuffles better."""


class LengthGrouped(Sampler[int]):
    """Indices of one epoch; each ``step`` consecutive ones (all workers' rows of a step) have like lengths."""

    def __init__(self, lengths: Sequence[int], step: int, seed: int):
        self.lengths = list(lengths)
        self.step = step
        self.seed = seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Called by accelerate before each epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.lengths)

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.epoch)
        order = torch.randperm(len(self.lengths), generator=generator).tolist()
        pool = POOL * self.step
        steps: list[list[int]] = []
        for start in range(0, len(order), pool):
            rows = sorted(order[start : start + pool], key=lambda row: self.lengths[row], reverse=True)
            steps += [rows[at : at + self.step] for at in range(0, len(rows), self.step)]
        # A short last step stays last, so that all others keep their boundaries.
        whole, rest = [s for s in steps if len(s) == self.step], [s for s in steps if len(s) < self.step]
        for at in torch.randperm(len(whole), generator=generator).tolist():
            yield from whole[at]
        for short in rest:
            yield from short
