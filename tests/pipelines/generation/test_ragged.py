"""Attention over a batch of requests laid end to end equals attention of each request alone."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from pipelines.generation import ragged

WIDTH, PAGE = 16, 4


class Cache:
    """A paged cache of one layer whose pages were given out in no order."""

    def __init__(self, shared: int, lengths: list[int]):
        generator = torch.Generator().manual_seed(1)
        count = sum(-(-length // PAGE) for length in lengths)
        self.keys = torch.randn(count + 1, PAGE, shared, WIDTH, generator=generator)
        self.values = torch.randn(count + 1, PAGE, shared, WIDTH, generator=generator)
        free = (1 + torch.randperm(count, generator=generator)).tolist()
        self.tables = [[free.pop() for _ in range(-(-length // PAGE))] for length in lengths]
        self.layer_to_allocator = {0: self}
        self.index, self.layer_type, self.tokens_per_page = 0, "full_attention", PAGE
        self.num_key_value_heads, self.head_dim, self.cache_dtype = shared, WIDTH, torch.float32

    def get_cache_for_block_table(self, layer: int) -> tuple[torch.Tensor, torch.Tensor]:
        return self.keys, self.values

    def places(self, request: int, start: int, end: int) -> list[int]:
        return [self.tables[request][at // PAGE] * PAGE + at % PAGE for at in range(start, end)]

    def of(self, request: int, length: int) -> tuple[torch.Tensor, torch.Tensor]:
        places = torch.tensor(self.places(request, 0, length))
        return self.keys.view(-1, *self.keys.shape[2:])[places], self.values.view(-1, *self.values.shape[2:])[places]


def batch_of(cache: Cache, pasts: list[int], news: list[int]) -> dict[str, Any]:
    """What continuous batching hands a layer."""
    totals = [past + new for past, new in zip(pasts, news, strict=True)]
    starts = [0, *torch.tensor(news).cumsum(0).tolist()]
    key_starts = [0, *torch.tensor(totals).cumsum(0).tolist()]
    write = [place for i, (a, b) in enumerate(zip(pasts, totals, strict=True)) for place in cache.places(i, a, b)]
    read = [place for i, total in enumerate(totals) for place in cache.places(i, 0, total)] if any(pasts) else []
    return {
        "cu_seq_lens_q": torch.tensor(starts, dtype=torch.int32),
        "cu_seq_lens_k": {"full_attention": torch.tensor(key_starts, dtype=torch.int32)},
        "write_index": [torch.tensor(write)],
        "read_index": [torch.tensor(read, dtype=torch.long)],
    }


def alone(query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """Causal attention by its formula: [queries, heads, width] over [keys, key heads, width]."""
    share = query.shape[1] // keys.shape[1]
    keys, values = keys.repeat_interleave(share, 1), values.repeat_interleave(share, 1)
    scores = torch.einsum("qhd,khd->hqk", query.double(), keys.double()) * WIDTH**-0.5
    count, length = scores.shape[1:]
    hidden = torch.ones(count, length, dtype=torch.bool).triu(length - count + 1)
    return torch.einsum("hqk,khd->qhd", scores.masked_fill(hidden, -torch.inf).softmax(-1), values.double()).float()


@pytest.mark.parametrize("heads_shared", [(8, 4), (4, 4), (6, 1)])
@pytest.mark.parametrize("group_bytes", [1, 2**12, 2**22])
@pytest.mark.parametrize(
    ("pasts", "news"),
    [
        ([0, 0, 0], [5, 1, 9]),
        ([3, 17, 4, 8, 30], [1, 1, 1, 1, 1]),
        ([7, 7], [1, 1]),
        ([0, 9, 16, 0, 2, 21], [6, 1, 5, 1, 1, 3]),
    ],
    ids=["prompts only", "one token each", "equal lengths", "all in one batch"],
)
def test_each_request_gets_the_attention_it_would_get_alone(
    heads_shared: tuple[int, int],
    group_bytes: int,
    pasts: list[int],
    news: list[int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ragged, "GROUP_BYTES", group_bytes)
    heads, shared = heads_shared
    totals = [past + new for past, new in zip(pasts, news, strict=True)]
    cache, tokens = Cache(shared, totals), sum(news)
    query = torch.randn(1, heads, tokens, WIDTH)
    key, value = torch.randn(1, shared, tokens, WIDTH), torch.randn(1, shared, tokens, WIDTH)
    layer = SimpleNamespace(layer_idx=0)

    out, _ = ragged.attend(
        layer, query, key, value, None, cache=cache, scaling=WIDTH**-0.5, **batch_of(cache, pasts, news)
    )

    assert out.shape == (1, tokens, heads, WIDTH)
    start = 0
    for request, (total, new) in enumerate(zip(totals, news, strict=True)):
        rows = slice(start, start + new)
        keys, values = cache.of(request, total)
        assert torch.equal(keys[-new:], key[0, :, rows].transpose(0, 1)), "new keys must be in the cache"
        assert torch.allclose(out[0, rows], alone(query[0, :, rows].transpose(0, 1), keys, values), atol=1e-5)
        start += new


def test_a_new_step_makes_a_new_plan() -> None:
    cache = Cache(2, [5, 9])
    first, second = batch_of(cache, [4, 8], [1, 1]), batch_of(cache, [4, 8], [1, 1])
    plan = ragged.planned(cache, cache, first)
    assert ragged.planned(cache, cache, first) is plan
    assert ragged.planned(cache, cache, second) is not plan
