"""What is drawn for a row follows its softmax, its nucleus and its seed, and nothing else."""

import pytest
import torch
from scipy.stats import chisquare
from transformers import TemperatureLogitsWarper, TopPLogitsWarper

from pipelines.generation.sampler import draw, gumbel, mixed, signed

VOCABULARY, DRAWS = 400, 20_000


@pytest.fixture(scope="module")
def logits() -> torch.Tensor:
    return 2 * torch.randn(1, VOCABULARY, generator=torch.Generator().manual_seed(3))


def drawn(logits: torch.Tensor, temperature: float, top_p: float, **options: int) -> torch.Tensor:
    keys = [mixed(seed) for seed in range(DRAWS)]
    return draw(logits.expand(DRAWS, -1), [temperature] * DRAWS, [top_p] * DRAWS, keys, **options)


def expected(logits: torch.Tensor, temperature: float, top_p: float) -> torch.Tensor:
    """The distribution that transformers' own processors leave."""
    none: torch.Tensor = torch.empty(0)
    scores = TemperatureLogitsWarper(temperature)(none, logits.clone())
    return (TopPLogitsWarper(top_p)(none, scores) if top_p < 1 else scores).softmax(-1)[0]


@pytest.mark.parametrize(("temperature", "top_p"), [(1.0, 1.0), (0.7, 1.0), (0.7, 0.9), (1.8, 0.95), (1.0, 0.3)])
@pytest.mark.parametrize("first_look", [1, 8, VOCABULARY])
def test_tokens_are_drawn_as_transformers_processors_leave_them(
    logits: torch.Tensor, temperature: float, top_p: float, first_look: int
) -> None:
    shares = expected(logits, temperature, top_p)
    counts = drawn(logits, temperature, top_p, first_look=first_look).bincount(minlength=VOCABULARY)
    assert not counts[shares == 0].any(), "nothing outside the nucleus"
    seen = shares * DRAWS > 5
    rest = torch.tensor([counts[~seen].sum().item(), (shares * DRAWS)[~seen].sum().item()])
    observed, wanted = counts[seen].double(), (shares * DRAWS)[seen].double()
    if rest[1] > 5:
        observed, wanted = torch.cat([observed, rest[:1].double()]), torch.cat([wanted, rest[1:].double()])
    assert chisquare(observed.numpy(), (wanted * observed.sum() / wanted.sum()).numpy()).pvalue > 1e-4


def test_how_far_a_nucleus_was_looked_for_changes_no_draw(logits: torch.Tensor) -> None:
    assert torch.equal(drawn(logits, 1.3, 0.97, first_look=1), drawn(logits, 1.3, 0.97, first_look=VOCABULARY))


def test_a_row_draws_the_same_alone_and_among_others(logits: torch.Tensor) -> None:
    rows = torch.cat([logits * scale for scale in (0.2, 0.5, 1.0, 3.0)] * 3)
    temperatures, top_ps = [0.5, 1.0, 1.9] * 4, [0.2, 1.0, 0.99, 0.9] * 3
    keys = [mixed(number) for number in range(12)]
    together = draw(rows, temperatures, top_ps, keys)
    alone = [int(draw(rows[i : i + 1], temperatures[i : i + 1], top_ps[i : i + 1], keys[i : i + 1])) for i in range(12)]
    assert together.tolist() == alone


def test_rounding_as_batches_do_changes_next_to_no_draw(logits: torch.Tensor) -> None:
    noise = 1e-6 * torch.randn(1, VOCABULARY, generator=torch.Generator().manual_seed(4))

    def changed(top_p: float) -> int:
        return int((drawn(logits, 0.7, top_p) != drawn(logits + noise, 0.7, top_p)).sum())

    assert changed(1.0) + changed(0.95) <= 4  # of 40,000


def test_noise_follows_the_gumbel_distribution_and_differs_by_key_and_token() -> None:
    from scipy.stats import gumbel_r, kstest

    keys = torch.tensor([signed(mixed(seed)) for seed in range(50)])
    noise = gumbel(keys, torch.arange(400).expand(50, -1))
    assert kstest(noise.flatten().numpy(), gumbel_r.cdf).pvalue > 1e-3
    assert len(noise.unique()) == noise.numel()
    neighbours = torch.corrcoef(torch.stack([noise[:, :-1].flatten(), noise[:, 1:].flatten()]))[0, 1]
    assert abs(neighbours) < 0.03


def test_the_generator_is_splitmix64() -> None:
    # First outputs for the seed 1234567, as in the reference implementation by Sebastiano Vigna.
    golden, state = 0x9E3779B97F4A7C15, 1234567
    outputs = [mixed((state + (i + 1) * golden) % 2**64) for i in range(3)]
    assert outputs == [6457827717110365317, 3203168211198807973, 9817491932198370423]
