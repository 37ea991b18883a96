"""Choosing the next token of every request of a batch, each by its own settings and its own chance.

Continuous batching draws from one random generator for the whole batch, sorts the vocabulary twice
a step whether a request samples or not, and drops the repetition penalty, for it hands a processor
no more than the last token of each sequence. So the choice is made here: a processor that looks the
requests up by their ids, and marks what it chose with the highest score, which a greedy loop takes.

Chance is Gumbel-max (Maddison et al. 2014, "A* sampling"): the token with the largest logit plus
Gumbel noise is a draw from the softmax. The noise of a token follows from the seed of the request,
the place in the answer and the token alone, hashed by SplitMix64 (Steele et al. 2014), so it is the
same whatever else is in the batch. What remains is that a batch rounds a logit otherwise than a
request alone does (about 1e-6): a seeded answer differs only where two tokens come that close.

Sound as long as a batch is prepared and run before the next (``use_async_batching=False``, no graphs).
"""

import random
from dataclasses import dataclass, field
from typing import Any

import torch
from transformers.generation.continuous_batching.cb_logits_processors import ContinuousBatchingLogitsProcessor

from pipelines.generation.engine import Sampling

GOLDEN = 0x9E3779B97F4A7C15
"""SplitMix64's increment, 2^64 / golden ratio."""
MASK = 2**64 - 1
COLDEST = 1e-5
"""Lowest temperature that is applied as it is."""
FIRST_LOOK = 64
"""Tokens among which a nucleus is looked for first; eight times as many, and so on, where it is larger."""


@dataclass
class Drawing:
    """What is to be known of one request while it is written."""

    sampling: Sampling
    prompt_tokens: int
    logprobs: list[float] = field(default_factory=list)
    """Of every token so far, where asked for; written by the loop, read by the engine."""

    def __post_init__(self) -> None:
        seed = self.sampling.seed
        self.seed = random.getrandbits(64) if seed is None else mixed(seed & MASK)
        self._held: torch.Tensor | None = None
        self._counted = 0

    def noise_key(self, state: Any) -> int:
        """Of the token that comes next; a request that lost its cache goes on where it was."""
        place = len(state.initial_tokens) + len(state.generated_tokens) - self.prompt_tokens
        return mixed((self.seed + (place + 1) * GOLDEN) & MASK)

    def held(self, state: Any, like: torch.Tensor) -> torch.Tensor:
        """Which tokens of the vocabulary the request holds, as booleans."""
        if self._held is None:
            self._held = torch.zeros(like.shape[-1], dtype=torch.bool, device=like.device)
        tokens = [*state.initial_tokens, *state.generated_tokens][self._counted :]
        self._counted += len(tokens)
        self._held[torch.tensor(tokens, dtype=torch.long, device=like.device)] = True
        return self._held


class Sampler(ContinuousBatchingLogitsProcessor):
    """Chooses for every request of a manager; requests that were not announced are written greedily."""

    supported_kwargs: dict[str, type] = {}  # noqa: RUF012  (the base class declares it so)
    ignored_kwargs = ()

    def __init__(self) -> None:
        self.drawings: dict[str, Drawing] = {}
        """By the id under which a request is in the manager; the engine adds and removes."""
        self._batch: list[tuple[Any, Drawing | None]] = []

    def install(self, manager: Any) -> None:
        """Make it the one processor of a manager that is not started yet."""
        processors = manager.logit_processor
        processors.clear()
        processors.logits_processor.append(self)
        processors.tensors_required = 1
        processors.do_processing = True

    def fill_defaults(self, int32_tensor: torch.Tensor) -> None:
        """Nothing travels through the batch's tensor of arguments."""
        int32_tensor.zero_()

    def prepare_tensor_args(self, requests_with_new_token: list[Any]) -> torch.Tensor:
        """Keep the requests of the batch for the call that follows."""
        self._batch = [(r.state, self.drawings.get(r.state.request_id)) for r in requests_with_new_token]
        return torch.empty(0, dtype=torch.int32)

    def __call__(self, scores: torch.Tensor, tensor_arg: torch.Tensor) -> torch.Tensor:
        """Scores [rows, vocabulary]: of each row one entry is made infinite, the chosen one."""
        raw = self._to_report(scores)
        drawn: list[tuple[int, Any, Drawing]] = []
        for row, (state, drawing) in enumerate(self._batch):
            if drawing is None:
                continue
            penalty = drawing.sampling.repetition_penalty
            if penalty != 1.0:
                held, old = drawing.held(state, scores), scores[row]
                scores[row] = torch.where(held, torch.where(old < 0, old * penalty, old / penalty), old)
            if drawing.sampling.temperature > 0:
                drawn.append((row, state, drawing))
        if drawn:
            rows = torch.tensor([row for row, _, _ in drawn], device=scores.device)
            chosen = draw(
                scores[rows],
                [drawing.sampling.temperature for _, _, drawing in drawn],
                [drawing.sampling.top_p for _, _, drawing in drawn],
                [drawing.noise_key(state) for _, state, drawing in drawn],
            )
            scores[rows, chosen] = torch.inf
        self._report(raw, scores)
        return scores

    def _to_report(self, scores: torch.Tensor) -> tuple[list[int], torch.Tensor] | None:
        """The rows whose log-probabilities are asked for, and those of all their tokens."""
        asked = [row for row, (_, d) in enumerate(self._batch) if d is not None and d.sampling.logprobs]
        return (asked, scores[asked].log_softmax(-1)) if asked else None

    def _report(self, raw: tuple[list[int], torch.Tensor] | None, scores: torch.Tensor) -> None:
        if raw is None:
            return
        asked, logprobs = raw
        chosen = scores[asked].argmax(-1, keepdim=True)
        for row, value in zip(asked, logprobs.gather(1, chosen)[:, 0].tolist(), strict=True):
            drawing = self._batch[row][1]
            assert drawing is not None
            drawing.logprobs.append(value)


def draw(
    scores: torch.Tensor, temperatures: list[float], top_ps: list[float], keys: list[int], first_look: int = FIRST_LOOK
) -> torch.Tensor:
    """A token for each row of ``scores`` [rows, vocabulary], from the nucleus of its tempered softmax.

    The nucleus (Holtzman et al. 2020) is the smallest set of likeliest tokens that holds ``top_p`` of the
    probability. The vocabulary is not sorted: most nuclei lie within its few likeliest tokens.
    """
    device = scores.device
    # Below COLDEST a logit may overflow, and nothing but the likeliest token is left long before.
    scores = scores / torch.tensor(temperatures, device=device).clamp(min=COLDEST)[:, None]
    top_p = torch.tensor(top_ps, device=device)
    noise_keys = torch.tensor([signed(key) for key in keys], device=device)
    chosen = torch.empty(len(keys), dtype=torch.long, device=device)
    whole = top_p >= 1
    if bool(whole.any()):
        every = torch.arange(scores.shape[1], device=device).expand(int(whole.sum()), -1)
        chosen[whole] = (scores[whole] + gumbel(noise_keys[whole], every)).argmax(1)
    left, size = (~whole).nonzero()[:, 0], first_look
    total = scores.logsumexp(1, keepdim=True) if len(left) else scores
    while len(left):
        size = min(size, scores.shape[1])
        likeliest, tokens = scores[left].topk(size)
        shares = (likeliest - total[left]).exp()
        before = shares.cumsum(1) - shares
        inside = before < top_p[left, None]
        # The first token is always in; the last one looked at shows that no further one is.
        inside[:, 0] = True
        found = ~inside[:, -1] if size < scores.shape[1] else torch.ones_like(inside[:, -1])
        noisy = (likeliest + gumbel(noise_keys[left], tokens)).masked_fill(~inside, -torch.inf)
        chosen[left[found]] = tokens.gather(1, noisy.argmax(1, keepdim=True))[found, 0]
        left, size = left[~found], size * 8
    return chosen


def gumbel(keys: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    """Gumbel noise, float64, that follows from a row's key [rows] and the token ids [rows, n] alone."""
    bits = keys[:, None] + (tokens + 1) * signed(GOLDEN)
    bits = (bits ^ shifted(bits, 30)) * signed(0xBF58476D1CE4E5B9)
    bits = (bits ^ shifted(bits, 27)) * signed(0x94D049BB133111EB)
    bits = bits ^ shifted(bits, 31)
    uniform = (shifted(bits, 11).double() + 0.5) * 2.0**-53
    return -torch.log(-torch.log(uniform))


def shifted(bits: torch.Tensor, by: int) -> torch.Tensor:
    """A logical shift to the right: torch's own keeps the sign."""
    return (bits >> by) & (2 ** (64 - by) - 1)


def mixed(bits: int) -> int:
    """SplitMix64's output function."""
    bits = ((bits ^ (bits >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    bits = ((bits ^ (bits >> 27)) * 0x94D049BB133111EB) & MASK
    return bits ^ (bits >> 31)


def signed(bits: int) -> int:
    """The int64 of the same bits."""
    return bits - 2**64 if bits >= 2**63 else bits
