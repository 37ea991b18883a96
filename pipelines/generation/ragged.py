"""Attention of a continuous batch on CPUs: every request looks at its own keys only.

Continuous batching lays the requests of a batch end to end. Without a flash kernel, which CPUs do
not have, transformers then computes every query against the keys of all requests and masks what is
not its own: work that grows with the square of the batch. With 16 requests of 250-600 tokens and
the heads of a 7B, a layer took 143 ms of one core that way, and 6 ms this way.

Requests that write one token, all but those whose prompt is being read, are taken together in groups
of similar length, as many as one core's cache holds; their pages are gathered and padded at the end.
Queries of one key head are stacked, so that no key is repeated for the heads that share it.

Not covered: models with sliding windows, which keep transformers' way, and GPUs, which have kernels.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface

NAME = "ragged_paged"
"""Name under which transformers knows this attention."""
GROUP_BYTES = 4 * 2**20
"""Keys and values gathered at once: about the cache of a core."""

Single = tuple[int, int, torch.Tensor]
"""Keys, row in the batch and pages of a request that writes one token."""


@dataclass(frozen=True)
class Reader:
    """A request whose prompt, or a part of it, is in the batch."""

    rows: slice
    """Its tokens in the batch."""
    length: int
    """Its keys, those of ``rows`` included."""
    pages: torch.Tensor | None
    """Its pages in the cache; None where all its keys are in the batch itself."""
    mask: torch.Tensor | None
    """[queries, keys], true where seen; None for plain causality."""


@dataclass(frozen=True)
class Writers:
    """Requests of one token each in the batch, of similar length."""

    rows: torch.Tensor
    pages: torch.Tensor
    """[requests x most pages]: those of shorter ones filled up with any."""
    mask: torch.Tensor | None
    """[requests, 1, 1, most keys], 0 or -inf; None where all are as long."""
    longest: int


@dataclass(frozen=True)
class Plan:
    """What is the same for every layer of one step."""

    step: torch.Tensor
    """The tensor that only this step was given."""
    readers: list[Reader]
    writers: list[Writers]


def install(manager: Any, context_tokens: int) -> bool:
    """Use it in a manager that is not started yet; false where the model must keep transformers' way.

    A sliding window that no request of up to ``context_tokens`` tokens reaches the end of is none, and taken off.
    """
    config = manager.model.config.get_text_config()
    window, kinds = getattr(config, "sliding_window", None), getattr(config, "layer_types", None)
    if window is not None and window >= context_tokens and kinds is None:
        config.sliding_window = window = None
    if window is not None or set(kinds or ["full_attention"]) != {"full_attention"}:
        return False
    AttentionInterface.register(NAME, attend)
    manager.model.set_attn_implementation(NAME)
    return True


def attend(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    cache: Any,
    scaling: float,
    **batch: Any,
) -> tuple[torch.Tensor, None]:
    """Attention output [1, tokens, heads, width] of ``query`` [1, heads, tokens, width].

    ``key`` and ``value`` [1, key heads, tokens, width] go to ``cache`` first; ``batch`` is what
    continuous batching hands every layer (transformers' ``PagedAttentionArgs``).
    """
    allocator = cache.layer_to_allocator[module.layer_idx]
    pages_of_keys, pages_of_values = allocator.get_cache_for_block_table(module.layer_idx)
    write = batch["write_index"][allocator.index]
    pages_of_keys.view(-1, *pages_of_keys.shape[2:]).index_copy_(0, write, key[0].transpose(0, 1))
    pages_of_values.view(-1, *pages_of_values.shape[2:]).index_copy_(0, write, value[0].transpose(0, 1))
    plan = planned(cache, allocator, batch)
    _, heads, tokens, width = query.shape
    shared = key.shape[1]
    # [key heads, tokens, heads that share one, width]
    queries = query.view(shared, heads // shared, tokens, width).transpose(1, 2)
    out = query.new_empty(tokens, shared, heads // shared, width)
    for reader in plan.readers:
        if reader.pages is None:
            keys, values = key[:, :, reader.rows], value[:, :, reader.rows]
        else:
            keys = gathered(pages_of_keys, reader.pages, 1, reader.length)
            values = gathered(pages_of_values, reader.pages, 1, reader.length)
        read = scaled_dot_product_attention(
            query[:, :, reader.rows],
            keys,
            values,
            attn_mask=reader.mask,
            is_causal=reader.mask is None,
            scale=scaling,
            enable_gqa=heads != shared,
        )
        out[reader.rows] = read[0].transpose(0, 1).unflatten(1, (shared, -1))
    for group in plan.writers:
        count = len(group.rows)
        keys = gathered(pages_of_keys, group.pages, count, group.longest)
        values = gathered(pages_of_values, group.pages, count, group.longest)
        stacked = queries[:, group.rows].transpose(0, 1)
        out[group.rows] = scaled_dot_product_attention(stacked, keys, values, attn_mask=group.mask, scale=scaling)
    return out.view(1, tokens, heads, width), None


def gathered(cache: torch.Tensor, pages: torch.Tensor, requests: int, length: int) -> torch.Tensor:
    """The first ``length`` entries [requests, key heads, length, width] of each request's pages."""
    found = cache.index_select(0, pages)
    return found.view(requests, -1, *cache.shape[2:])[:, :length].transpose(1, 2)


def planned(cache: Any, allocator: Any, batch: dict[str, Any]) -> Plan:
    """The plan of this step, made by its first layer and kept with the cache."""
    plan: Plan | None = getattr(cache, "ragged_plan", None)
    if plan is None or plan.step is not batch["cu_seq_lens_q"]:
        plan = cache.ragged_plan = made(allocator, batch)
    return plan


def made(allocator: Any, batch: dict[str, Any]) -> Plan:
    """Who reads and who writes, and from which pages."""
    starts = batch["cu_seq_lens_q"].tolist()
    key_starts = batch["cu_seq_lens_k"][allocator.layer_type].tolist()
    index, size = batch["read_index"][allocator.index], allocator.tokens_per_page
    readers: list[Reader] = []
    single: list[Single] = []
    for number, start in enumerate(starts[:-1]):
        end, first, last = starts[number + 1], key_starts[number], key_starts[number + 1]
        length = last - first
        if not len(index):
            # Nobody has a past: the batch itself holds all keys.
            readers.append(Reader(slice(start, end), length, None, None))
            continue
        pages = index[first:last:size] // size
        if end - start == 1:
            single.append((length, start, pages))
        else:
            readers.append(Reader(slice(start, end), length, pages, seen(end - start, length)))
    token_bytes = 2 * allocator.num_key_value_heads * allocator.head_dim * allocator.cache_dtype.itemsize
    groups = grouped(single, GROUP_BYTES // (size * token_bytes))
    return Plan(batch["cu_seq_lens_q"], readers, [together(group, allocator.cache_dtype) for group in groups])


def seen(queries: int, keys: int) -> torch.Tensor | None:
    """Which keys the last ``queries`` of ``keys`` tokens see; None where plain causality says it."""
    return None if queries == keys else torch.ones(queries, keys, dtype=torch.bool).tril(keys - queries)


def grouped(single: list[Single], most_pages: int) -> list[list[Single]]:
    """Writers in groups of similar length and at most ``most_pages`` padded pages, or alone; longest first."""
    groups: list[list[Single]] = []
    for writer in sorted(single, key=lambda writer: -writer[0]):
        # The first of a group is its longest.
        if groups and (len(groups[-1]) + 1) * len(groups[-1][0][2]) <= most_pages:
            groups[-1].append(writer)
        else:
            groups.append([writer])
    return groups


def together(group: list[Single], dtype: torch.dtype) -> Writers:
    """One group, its longest first."""
    longest, _, pages = group[0]
    table = torch.zeros(len(group), len(pages), dtype=torch.long)
    for number, (_, _, own) in enumerate(group):
        table[number, : len(own)] = own
    lengths = torch.tensor([length for length, _, _ in group])
    mask = None
    if int(lengths.min()) < longest:
        beyond = torch.arange(longest) >= lengths[:, None]
        mask = torch.zeros(beyond.shape, dtype=dtype).masked_fill(beyond, -torch.inf)[:, None, None]
    return Writers(torch.tensor([row for _, row, _ in group]), table.flatten(), mask, longest)
