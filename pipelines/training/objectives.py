"""What DPO minimises: TRL's losses as they are, and what TRL 1.16 does not have.

TRL's trainer computes its losses itself and averages them over a batch. Two things need the
value of each pair, and are therefore computed here from the same log-ratios: weights by the
pairs' margins, and ``sigmoid`` with label smoothing, which TRL 1.16 leaves out (it smooths
``robust``, ``exo_pair`` and ``aot`` only). ``BY_PAIR`` states each such loss in a line; a test
holds every one of them to TRL's own number. The rest is TRL's: the other losses, and the SFT
loss mixed in (``loss_type: [.., sft]``, Pang et al. 2024, eq. 2).

Notation: c and r are the log-ratios log pi(y|x) - log pi_ref(y|x) of the chosen and the rejected
reply, in nats, summed over the reply's tokens; b is beta, e label smoothing.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from configs.errors import TrainingError
from configs.training import StageSettings
from pipelines.training.tokens import REFERENCE_COLUMNS


@dataclass(frozen=True)
class Pairs:
    """A batch of pairs under policy and reference; each tensor is [pairs]."""

    chosen: Tensor
    """Log-ratios of the chosen replies, in nats."""
    rejected: Tensor
    """Log-ratios of the rejected replies, in nats."""
    chosen_tokens: Tensor
    """Tokens of the chosen replies."""
    rejected_tokens: Tensor
    """Tokens of the rejected replies."""
    sft: Tensor
    """SFT loss on the chosen replies: the batch's mean over their tokens, in nats; a single number."""

    @classmethod
    def of(cls, log_probs: Tensor, inputs: Mapping[str, Tensor]) -> "Pairs":
        """From TRL's batch [2 x pairs, tokens], chosen ones first, and its log-probabilities (0 on prompts)."""
        labelled = inputs["completion_mask"][:, 1:]
        log_probs = log_probs[:, -labelled.size(1) :]
        chosen, rejected = log_probs.sum(1).chunk(2)
        tokens = labelled.sum(1).chunk(2)
        first, second = (inputs[name] for name in REFERENCE_COLUMNS)
        learned = log_probs.chunk(2)[0].sum() / tokens[0].sum().clamp(min=1)
        return cls(chosen - first, rejected - second, tokens[0], tokens[1], -learned)

    @property
    def margin(self) -> Tensor:
        """How much more the policy prefers the chosen reply than the reference does, in nats."""
        return self.chosen - self.rejected

    @property
    def margin_by_token(self) -> Tensor:
        """``margin`` with each reply's part divided by its tokens, in nats a token."""
        return self.chosen / self.chosen_tokens.clamp(min=1) - self.rejected / self.rejected_tokens.clamp(min=1)


Loss = Callable[[Pairs, float, float], Tensor]
"""Loss of each pair [pairs], from the pairs, beta and label smoothing."""


def sigmoid(pairs: Pairs, b: float, e: float) -> Tensor:
    """Rafailov et al. 2023, eq. 7; with e > 0 conservative DPO (Mitchell 2023, "A note on DPO with noisy preferences").

    Conservative DPO is not unbiased as ``robust`` is: it stops at the margin that e of wrong labels implies.
    """
    return -(1 - e) * logsigmoid(b * pairs.margin) - e * logsigmoid(-b * pairs.margin)


def robust(pairs: Pairs, b: float, e: float) -> Tensor:
    """Chowdhury et al. 2024 ("Provably robust DPO"), eq. 12: unbiased where a share e of labels is flipped."""
    return (-(1 - e) * logsigmoid(b * pairs.margin) + e * logsigmoid(-b * pairs.margin)) / (1 - 2 * e)


def sigmoid_norm(pairs: Pairs, b: float, e: float) -> Tensor:
    """``sigmoid`` by token: Meng et al. 2024 (SimPO) keep no reference, TRL and Lambert et al. 2024 (Tulu 3) do."""
    return -logsigmoid(b * pairs.margin_by_token)


def hinge(pairs: Pairs, b: float, e: float) -> Tensor:
    """Zhao et al. 2023 (SLiC-HF) on log-ratios, as in Liu et al. 2024 (RSO)."""
    return torch.relu(1 - b * pairs.margin)


def ipo(pairs: Pairs, b: float, e: float) -> Tensor:
    """Azar et al. 2023, eq. 17, by token as TRL has it from its authors; b is their tau."""
    return (pairs.margin_by_token - 1 / (2 * b)) ** 2


def exo_pair(pairs: Pairs, b: float, e: float) -> Tensor:
    """Ji et al. 2024 (EXO), eq. 16: KL of the model's choice of two from the label's, smoothed by e."""
    p = torch.sigmoid(b * pairs.margin)
    kept, flipped = (torch.log(torch.tensor(share, device=p.device)) for share in (1 - e, e))
    first = p * (logsigmoid(b * pairs.margin) - kept)
    return first + (1 - p) * (logsigmoid(-b * pairs.margin) - flipped)


def nca_pair(pairs: Pairs, b: float, e: float) -> Tensor:
    """Chen et al. 2024 (noise contrastive alignment), two replies."""
    return -logsigmoid(b * pairs.chosen) - 0.5 * (logsigmoid(-b * pairs.chosen) + logsigmoid(-b * pairs.rejected))


def bco_pair(pairs: Pairs, b: float, e: float) -> Tensor:
    """Jung et al. 2024 (binary classifier optimisation), without its reward shift."""
    return -logsigmoid(b * pairs.chosen) - logsigmoid(-b * pairs.rejected)


def sppo_hard(pairs: Pairs, b: float, e: float) -> Tensor:
    """Wu et al. 2024 (SPPO), eq. 4.7 with the winner's probability 1."""
    return (pairs.chosen - 0.5 / b) ** 2 + (pairs.rejected + 0.5 / b) ** 2


def apo_zero(pairs: Pairs, b: float, e: float) -> Tensor:
    """D'Oosterlinck et al. 2024 (APO), eq. 7: for chosen replies better than the model's own."""
    return 1 - torch.sigmoid(b * pairs.chosen) + torch.sigmoid(b * pairs.rejected)


def apo_down(pairs: Pairs, b: float, e: float) -> Tensor:
    """D'Oosterlinck et al. 2024 (APO), eq. 8: for chosen replies worse than the model's own."""
    return torch.sigmoid(b * pairs.chosen) + 1 - torch.sigmoid(b * pairs.margin)


def discopop(pairs: Pairs, b: float, e: float) -> Tensor:
    """Lu et al. 2024 (DiscoPOP), eq. 5, at its paper's temperature 0.05."""
    logits = b * pairs.margin
    mix = torch.sigmoid(logits / 0.05)
    return -logsigmoid(logits) * (1 - mix) + torch.exp(-logits) * mix


LOSSES = (
    sigmoid,
    sigmoid_norm,
    robust,
    hinge,
    ipo,
    exo_pair,
    nca_pair,
    bco_pair,
    sppo_hard,
    apo_zero,
    apo_down,
    discopop,
)
BY_PAIR: Mapping[str, Loss] = {loss.__name__: loss for loss in LOSSES}
"""The losses that are means over pairs, by TRL's name."""


@dataclass(frozen=True)
class Objective:
    """A stage's objective, as its settings and its rows make it."""

    stage: StageSettings
    smoothing: float
    """Label smoothing, estimated where the settings say so."""
    mean_weight: float | None = None
    """Mean of log2(1 + margin) over the training pairs; None where pairs are not weighted."""

    @property
    def ours(self) -> bool:
        """Whether the loss is computed here and not by TRL."""
        return self.stage.weights != "none" or (self.stage.loss == "sigmoid" and self.smoothing > 0)

    def arguments(self) -> dict[str, Any]:
        """The part of it that TRL's DPOConfig takes."""
        mixed = self.stage.rpo_alpha > 0
        return {
            "beta": self.stage.beta,
            "label_smoothing": self.smoothing,
            "loss_type": [self.stage.loss, "sft"] if mixed else [self.stage.loss],
            "loss_weights": [1.0, self.stage.rpo_alpha] if mixed else None,
        }

    def loss(self, pairs: Pairs, beta: float, margins: Tensor | None) -> Tensor:
        """Our own loss of a batch: the mean over its pairs, each times its weight, and the SFT loss.

        A pair's weight is log2(1 + margin), 1 on average over the training split: margins are net votes,
        which are products of how many came by, and of a few pairs they are a hundred times the median.
        """
        each = BY_PAIR[self.stage.loss](pairs, beta, self.smoothing)
        if self.mean_weight is not None:
            if margins is None:
                raise TrainingError("weights: margin, but the pairs' margins did not come with their tokens")
            each = each * (torch.log2(1 + margins) / self.mean_weight)
        return each.mean() + self.stage.rpo_alpha * pairs.sft

    def beta(self, step: int, steps: int) -> float:
        """Beta in the optimizer step after ``step`` ones: from ``beta`` in the first to ``beta_to`` in the last."""
        if self.stage.beta_to is None:
            return self.stage.beta
        share = min(1.0, step / max(1, steps - 1))
        return self.stage.beta + share * (self.stage.beta_to - self.stage.beta)
