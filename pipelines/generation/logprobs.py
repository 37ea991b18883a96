"""Log-probabilities of completions under a causal language model, without work done twice.

Held-out pairs share a lot: every prompt of a model opens with the same instructions, and
the two completions of a pair follow the same prompt. ``completion_logps`` runs each shared
part once and lets the rest attend to its keys and values: first the opening common to the
whole batch, then each distinct prompt, then the completions. Causal attention makes this
equal to a pass over each row alone, up to rounding.

The head is applied only where a completion token is predicted, so logits for prompts are
never built. It is taken to be one linear layer, as in Mistral, Llama and Qwen; models
that cap their logits afterwards (Gemma 2) are not covered.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import torch

POSITIONS = 2048
"""Positions whose logits are built at once."""
MIN_SHARED = 8
"""Shortest common opening, in tokens, that is worth a pass of its own."""

Row = tuple[Sequence[int], Sequence[int]]
"""Token ids of a prompt and of its completion, neither empty."""


@torch.no_grad()
def completion_logps(model: Any, rows: Sequence[Row]) -> list[float]:
    """For each row, the sum over its completion's tokens of log p(token | prompt, tokens before).

    ``model`` is a transformers causal language model in eval mode, with or without adapters
    injected into its layers.
    """
    state = _State(model)
    prompts = list(dict.fromkeys(tuple(prompt) for prompt, _ in rows))
    if _shares(model) and min(map(len, prompts)) > 1:
        opening = common_opening([prompt[:-1] for prompt in prompts])
        opening = opening if opening >= MIN_SHARED else 0
        state.extend([prompts[0][:opening]])
        state.select([0] * len(prompts))
        state.extend([prompt[opening:-1] for prompt in prompts])
        place = {prompt: index for index, prompt in enumerate(prompts)}
        state.select([place[tuple(prompt)] for prompt, _ in rows])
        tails = [(prompt[-1], *completion) for prompt, completion in rows]
    else:
        tails = [(*prompt, *completion) for prompt, completion in rows]
    hidden = state.extend([tail[:-1] for tail in tails])
    return _sums(model, hidden, tails, [len(completion) for _, completion in rows])


def logps_of_many(model: Any, rows: Sequence[Row], most_tokens: int) -> list[float]:
    """``completion_logps`` of any number of rows: equal rows once, in batches of up to ``most_tokens`` padded tokens.

    Rows of one prompt come into one batch, where the prompt is run once. The batches depend on the
    rows alone, not on their order. A row that is longer than ``most_tokens`` makes a batch of its own.
    """
    found: dict[Row, float] = {}
    for batch in passes(rows, most_tokens):
        found.update(zip(batch, completion_logps(model, batch), strict=True))
    return [found[tuple(prompt), tuple(completion)] for prompt, completion in rows]


def passes(rows: Sequence[Row], most_tokens: int) -> Iterator[list[Row]]:
    """The batches that ``logps_of_many`` runs, in its order; each distinct row, as tuples, is in one."""
    distinct = {(tuple(prompt), tuple(completion)) for prompt, completion in rows}
    return batches(sorted(distinct, key=lambda row: (-len(row[0]), row[0], -len(row[1]), row[1])), most_tokens)


def batches(rows: Sequence[Row], most_tokens: int) -> Iterator[list[Row]]:
    """Consecutive rows whose number times their longest prompt and completion stays within ``most_tokens``."""
    batch: list[Row] = []
    prompt = completion = 0
    for row in rows:
        longer = max(prompt, len(row[0])), max(completion, len(row[1]))
        if batch and (len(batch) + 1) * sum(longer) > most_tokens:
            yield batch
            batch, longer = [], (len(row[0]), len(row[1]))
        batch.append(row)
        prompt, completion = longer
    if batch:
        yield batch


def common_opening(sequences: Sequence[Sequence[int]]) -> int:
    """How many tokens all sequences begin with in common."""
    first, last = min(sequences, key=tuple), max(sequences, key=tuple)
    length = min(len(first), len(last))
    return next((i for i in range(length) if first[i] != last[i]), length)


def _shares(model: Any) -> bool:
    """Whether parts may be shared: gaps in the cache would shift a sliding attention window."""
    return getattr(model.config, "sliding_window", None) is None


def _sums(model: Any, hidden: torch.Tensor, tails: Sequence[Sequence[int]], lengths: Sequence[int]) -> list[float]:
    """Sums over the last ``lengths[i]`` tokens of each tail, from the hidden states before them."""
    head = model.get_output_embeddings()
    device = hidden.device
    owner = torch.tensor([i for i, n in enumerate(lengths) for _ in range(n)], device=device)
    place = torch.tensor([len(t) - 1 - n + k for t, n in zip(tails, lengths, strict=True) for k in range(n)]).to(device)
    token = torch.tensor([x for t, n in zip(tails, lengths, strict=True) for x in t[len(t) - n :]], device=device)
    sums = torch.zeros(len(tails), dtype=torch.float64, device=device)
    for start in range(0, len(owner), POSITIONS):
        part = slice(start, start + POSITIONS)
        logits = head(hidden[owner[part], place[part]]).float()
        chosen = logits.gather(1, token[part, None])[:, 0] - logits.logsumexp(1)
        sums.index_add_(0, owner[part], chosen.double())
    return [float(value) for value in sums.tolist()]


class _State:
    """Keys and values of a batch so far, and which of their places hold a token of each row."""

    def __init__(self, model: Any):
        from transformers import DynamicCache

        self.decoder = model.get_decoder()
        self.device = next(model.parameters()).device
        self.cache = DynamicCache()
        self.mask: torch.Tensor | None = None

    def extend(self, sequences: Sequence[Sequence[int]]) -> torch.Tensor:
        """Append one sequence a row, padded on the right; its hidden states [rows, longest, width]."""
        rows, longest = len(sequences), max(map(len, sequences))
        ids = torch.zeros((rows, longest), dtype=torch.long)
        real = torch.zeros((rows, longest), dtype=torch.long)
        for index, sequence in enumerate(sequences):
            ids[index, : len(sequence)] = torch.tensor(sequence, dtype=torch.long)
            real[index, : len(sequence)] = 1
        ids, real = ids.to(self.device), real.to(self.device)
        before = self.mask if self.mask is not None else real[:, :0]
        self.mask = torch.cat([before, real], dim=1)
        if longest == 0:
            return torch.empty((rows, 0, 0), device=self.device)
        out = self.decoder(
            input_ids=ids,
            attention_mask=self.mask,
            position_ids=before.sum(1, keepdim=True) + torch.arange(longest, device=self.device),
            past_key_values=self.cache,
            use_cache=True,
        )
        hidden: torch.Tensor = out.last_hidden_state
        return hidden

    def select(self, owners: Sequence[int]) -> None:
        """Make row i of the batch continue what row ``owners[i]`` holds."""
        index = torch.tensor(owners, device=self.device)
        if self.mask is not None:
            self.mask = self.mask[index]
        if self.cache.get_seq_length():
            self.cache.batch_select_indices(index)
