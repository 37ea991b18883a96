"""The order of rows: which go into which optimizer step, by seed and epoch alone.

transformers' own samplers draw from the process's random state, so after a restart an epoch
would go on in another order than it began. Here a resumed run sees the rows that it had not
seen yet, and no other. A step's rows are chosen before anyone asks how many workers share
them, so that any number of workers takes the same steps; to that end the last step of an epoch
is filled with rows of its first, which also lets a set with fewer rows than a step train.

Up to ``WINDOW`` rows are shuffled as a whole. Larger sets are shuffled by runs of ``CHUNK``
rows, and row by row within a window of such runs, as streaming formats do: whoever reads them
from afar reads every piece of a file once an epoch and holds one window at most.
"""

import hashlib
from bisect import bisect_left, insort
from collections.abc import Iterator, Sequence
from itertools import accumulate

import numpy as np
import torch
from torch.utils.data import Sampler

from configs.training import Batching

POOL = 32
"""Steps whose rows are sorted together: more pads less, fewer shuffles better."""
WINDOW = 65_536
"""Rows that are shuffled together."""
CHUNK = 4096
"""Consecutive rows that stay in one window."""
PACKED_TOGETHER = 8192
"""Rows among which packing looks for those that fill a micro-batch."""


class Shuffled(Sampler[int]):
    """Indices of one epoch in random order; each ``step`` consecutive ones are a step's rows, all workers' together."""

    def __init__(
        self, lengths: Sequence[int], step: int, seed: int, *, window: int = WINDOW, chunk: int = CHUNK
    ) -> None:
        self.lengths = np.asarray(lengths, dtype=np.int32)
        self.step = step
        self.seed = seed
        self.chunk = chunk
        self.runs = max(1, window // chunk)
        """Chunks of a window."""
        self.whole = len(self.lengths) <= window
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Called before each epoch."""
        self.epoch = epoch

    @property
    def steps(self) -> int:
        """Optimizer steps of an epoch."""
        return -(-len(self.lengths) // self.step)

    @property
    def windows(self) -> int:
        """Pieces of an epoch that are shuffled each on its own."""
        return 1 if self.whole else -(-self.chunks // self.runs)

    @property
    def chunks(self) -> int:
        """Runs of consecutive rows."""
        return -(-len(self.lengths) // self.chunk)

    def __len__(self) -> int:
        return self.steps * self.step

    def __iter__(self) -> Iterator[int]:
        for at in range(self.windows):
            yield from self.window(self.epoch, at).ravel().tolist()

    def starts(self, epoch: int) -> list[int]:
        """How many rows come before each window, and at the end how many there are."""
        sizes = [len(self.lengths)] if self.whole else [sum(map(self.size, runs)) for runs in self.dealt(epoch)]
        return [0, *accumulate(sizes)]

    def size(self, chunk: int) -> int:
        """Rows of a chunk; only the set's last one may be short."""
        return min(self.chunk, len(self.lengths) - chunk * self.chunk)

    def dealt(self, epoch: int) -> list[list[int]]:
        """The chunks of each window."""
        order = torch.randperm(self.chunks, generator=drawn(self.seed, epoch, "chunks")).tolist()
        return [order[at : at + self.runs] for at in range(0, len(order), self.runs)]

    def window(self, epoch: int, at: int) -> np.ndarray:
        """The steps of one window of an epoch: row indices [steps, rows of a step].

        Rows that are left over at a window's end begin the next one; the last is filled.
        """
        rows = self.rows_of(epoch, at)
        steps = self.arranged(rows, self.generator(epoch, at))
        if missing := -len(rows) % self.step:  # in the last window only
            first = steps if at == 0 else self.window(epoch, 0).ravel()
            steps = np.concatenate([steps, np.resize(first if len(first) else steps, missing)])
        return steps.reshape(-1, self.step)

    def rows_of(self, epoch: int, at: int) -> np.ndarray:
        """The rows of a window's steps, shuffled: its own, less those left over, after those left over before."""
        starts, parts = self.starts(epoch), [self.members(epoch, at)]
        begin = starts[at] // self.step * self.step
        end = starts[-1] if at == self.windows - 1 else starts[at + 1] // self.step * self.step
        earliest = at
        while starts[earliest] > begin:
            earliest -= 1
            parts.insert(0, self.members(epoch, earliest))
        return np.concatenate(parts)[begin - starts[earliest] : end - starts[earliest]]

    def members(self, epoch: int, at: int) -> np.ndarray:
        """The rows that belong to a window, shuffled."""
        rows = len(self.lengths)
        if self.whole:
            generator = torch.Generator().manual_seed(self.seed * 1_000_003 + epoch)
            return torch.randperm(rows, generator=generator).numpy()
        runs = [np.arange(self.size(chunk)) + chunk * self.chunk for chunk in self.dealt(epoch)[at]]
        own = np.concatenate(runs)
        return own[torch.randperm(len(own), generator=drawn(self.seed, epoch, at)).numpy()]

    def generator(self, epoch: int, at: int) -> torch.Generator:
        """What the order of a window's steps is drawn from."""
        if not self.whole:
            return drawn(self.seed, epoch, at, "steps")
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + epoch)
        torch.randperm(len(self.lengths), generator=generator)  # goes on after the draw of ``members``
        return generator

    def arranged(self, rows: np.ndarray, generator: torch.Generator) -> np.ndarray:
        """A window's rows in the order of its steps; a short last step stays last."""
        return rows


class LengthGrouped(Shuffled):
    """As ``Shuffled``, with rows of like length in a step, so that little is padding."""

    def arranged(self, rows: np.ndarray, generator: torch.Generator) -> np.ndarray:
        pool = POOL * self.step
        pools = [rows[start : start + pool] for start in range(0, len(rows), pool)]
        ordered = [part[np.argsort(-self.lengths[part], kind="stable")] for part in pools]
        flat = np.concatenate(ordered) if ordered else rows
        whole = len(flat) // self.step
        steps = flat[: whole * self.step].reshape(whole, self.step)
        shuffled = steps[torch.randperm(whole, generator=generator).numpy()]
        return np.concatenate([shuffled.ravel(), flat[whole * self.step :]])


class Packed(Sampler[list[int]]):
    """Micro-batches of rows that together fill ``capacity`` tokens as far as they go, laid end to end.

    Which rows share a micro-batch is settled once, so that every epoch has as many steps: among
    some thousand rows that a seeded shuffle brought together, each goes from the longest on into
    the fullest micro-batch that still has room (best-fit decreasing; Coffman et al. 1984). The
    order of micro-batches is drawn anew for each epoch.
    """

    def __init__(self, lengths: Sequence[int], capacity: int, step: int, seed: int) -> None:
        self.packs = packed(np.asarray(lengths, dtype=np.int32), capacity, seed)
        self.step = step
        """Micro-batches of an optimizer step, all workers' together."""
        self.seed = seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Called before each epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        return -(-len(self.packs) // self.step) * self.step

    def __iter__(self) -> Iterator[list[int]]:
        order = torch.randperm(len(self.packs), generator=drawn(self.seed, self.epoch, "packs")).numpy()
        for at in np.resize(order, len(self)).tolist():
            yield self.packs[at]


def packed(lengths: np.ndarray, capacity: int, seed: int) -> list[list[int]]:
    """Rows in groups of at most ``capacity`` tokens; a longer row is a group of its own."""
    order = torch.randperm(len(lengths), generator=drawn(seed, "packing")).numpy()
    packs: list[list[int]] = []
    for start in range(0, len(order), PACKED_TOGETHER):
        part = order[start : start + PACKED_TOGETHER]
        room: list[tuple[int, int]] = []  # what is left in each pack, ascending, and the pack
        for row in part[np.argsort(-lengths[part], kind="stable")].tolist():
            length = int(lengths[row])
            fits = bisect_left(room, (length, -1))
            if fits == len(room):
                packs.append([row])
                left, pack = capacity - length, len(packs) - 1
            else:
                left, pack = room.pop(fits)
                packs[pack].append(row)
                left -= length
            if left > 0:
                insort(room, (left, pack))
    return packs


def drawn(*words: int | str) -> torch.Generator:
    """A generator that depends on the words alone."""
    digest = hashlib.blake2b(repr(words).encode(), digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "big") >> 1)


def order_of(
    batching: Batching, lengths: Sequence[int], seed: int, *, micro_batch: int, micro_batches: int, max_length: int
) -> "Shuffled | Packed":
    """The order of a set of rows under ``training.batching``; ``micro_batches`` are those of a step, all workers'."""
    if batching == "packed":
        return Packed(lengths, micro_batch * max_length, micro_batches, seed)
    kind = Shuffled if batching == "random" else LengthGrouped
    return kind(lengths, micro_batch * micro_batches, seed)
