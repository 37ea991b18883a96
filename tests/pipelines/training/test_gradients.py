"""DPO's loss and gradients against a reference in float64 that is written down from the papers, with numpy alone."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from trl import DPOConfig

from configs.training import StageSettings
from pipelines.training.dpo import DpoTrainer
from pipelines.training.objectives import Objective
from pipelines.training.weights import load_model, load_tokenizer
from tests.pipelines.training import steps

OBJECTIVES = [("sigmoid", beta, e) for beta in (0.05, 0.1, 0.5) for e in (0.0, 0.2)]
OBJECTIVES += [("robust", 0.1, 0.0), ("robust", 0.1, 0.3), ("ipo", 0.1, 0.0), ("sigmoid_norm", 0.5, 0.0)]
PLAIN: dict[str, Any] = {
    "per_device_train_batch_size": steps.ROWS,
    "max_steps": 1,
    "use_cpu": True,
    "bf16": False,
    "report_to": "none",
    "max_length": None,
    "gradient_checkpointing": False,
}


@dataclass(frozen=True)
class Batch:
    """What the trainer saw, and what it made of it."""

    ids: np.ndarray
    """Token ids [2 x pairs, tokens], chosen ones first."""
    learned: np.ndarray
    """Whether a token belongs to a reply [2 x pairs, tokens]."""
    reference: np.ndarray
    """The reference's log-probabilities [2 x pairs]."""
    hidden: np.ndarray
    """What the head is given [2 x pairs, tokens, width]."""
    head: np.ndarray
    """The head's weights [vocabulary, width]."""
    loss: float
    to_hidden: np.ndarray
    """Gradient at ``hidden``."""
    to_head: np.ndarray
    """Gradient at ``head``."""


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return steps.tiny_base(tmp_path_factory.mktemp("base"), tied=False)


def seen(base: Path, folder: Path, loss: str, beta: float, smoothing: float) -> Batch:
    """One batch through the trainer, its reference some nats off the model, which is in float64.

    TRL computes log-probabilities in float32 even so: hence the test's tolerance.
    """
    model = load_model(str(base)).double()
    stage = StageSettings(loss=loss, beta=beta, label_smoothing=smoothing, micro_batch=steps.ROWS)
    objective = Objective(stage, smoothing)
    rows = steps.pairs(model)
    trainer = DpoTrainer(
        model=model,
        args=DPOConfig(output_dir=str(folder), **PLAIN, **objective.arguments()),
        train_dataset=rows,
        processing_class=load_tokenizer(str(base)),
    )
    trainer.pursue(objective)
    trainer.state.global_step = 1
    inputs = next(iter(trainer.get_train_dataloader()))
    moved = torch.linspace(-9.0, 6.0, steps.ROWS, dtype=torch.float64)
    inputs["ref_chosen_logps"] = inputs["ref_chosen_logps"].double() + moved
    inputs["ref_rejected_logps"] = inputs["ref_rejected_logps"].double() - moved.flip(0) / 3
    kept: list[torch.Tensor] = []

    def keep(_: Any, __: Any, output: Any) -> None:
        output.last_hidden_state.retain_grad()
        kept.append(output.last_hidden_state)

    model.model.register_forward_hook(keep)
    model.train()
    value = trainer.compute_loss(model, dict(inputs))
    value.backward()
    (hidden,) = kept
    head = model.lm_head.weight
    return Batch(
        ids=inputs["input_ids"].numpy(),
        learned=inputs["completion_mask"].numpy().astype(bool),
        reference=torch.cat([inputs["ref_chosen_logps"], inputs["ref_rejected_logps"]]).numpy(),
        hidden=hidden.detach().numpy(),
        head=head.detach().numpy(),
        loss=value.item(),
        to_hidden=hidden.grad.numpy(),
        to_head=head.grad.numpy(),
    )


def by_hand(batch: Batch, loss: str, beta: float, smoothing: float) -> tuple[float, np.ndarray, np.ndarray]:
    """Loss, and its gradients at hidden states and head, through the gradient at the logits."""
    rows = len(batch.ids)
    logps, lengths = np.zeros(rows), np.zeros(rows)
    for row in range(rows):
        for place in np.flatnonzero(batch.learned[row]):
            logits = batch.head @ batch.hidden[row, place - 1]
            logps[row] += logits[batch.ids[row, place]] - logsumexp(logits)
            lengths[row] += 1
    ratios = logps - batch.reference
    each, slopes = [], np.zeros(rows)
    for pair in range(rows // 2):
        first, second = pair, pair + rows // 2
        value, to_first, to_second = LOSSES[loss](ratios[[first, second]], lengths[[first, second]], beta, smoothing)
        each.append(value)
        slopes[first], slopes[second] = to_first / (rows // 2), to_second / (rows // 2)
    to_hidden, to_head = np.zeros_like(batch.hidden), np.zeros_like(batch.head)
    for row in range(rows):
        for place in np.flatnonzero(batch.learned[row]):
            hidden = batch.hidden[row, place - 1]
            logits = batch.head @ hidden
            to_logits = -slopes[row] * np.exp(logits - logsumexp(logits))  # d logp / d logits = onehot - softmax
            to_logits[batch.ids[row, place]] += slopes[row]
            to_hidden[row, place - 1] += to_logits @ batch.head
            to_head += np.outer(to_logits, hidden)
    return float(np.mean(each)), to_hidden, to_head


def logsumexp(values: np.ndarray) -> float:
    top = values.max()
    return float(top + np.log(np.exp(values - top).sum()))


def sigma(value: float) -> float:
    return float(1 / (1 + np.exp(-value)))


def smoothed(ratios: np.ndarray, _: np.ndarray, beta: float, e: float) -> tuple[float, float, float]:
    """Rafailov et al. 2023, eq. 7, and Mitchell 2023 where e > 0."""
    margin = beta * (ratios[0] - ratios[1])
    slope = beta * (-(1 - e) * sigma(-margin) + e * sigma(margin))
    return -(1 - e) * np.log(sigma(margin)) - e * np.log(sigma(-margin)), slope, -slope


def unbiased(ratios: np.ndarray, _: np.ndarray, beta: float, e: float) -> tuple[float, float, float]:
    """Chowdhury et al. 2024, eq. 12."""
    margin = beta * (ratios[0] - ratios[1])
    slope = beta * (-(1 - e) * sigma(-margin) - e * sigma(margin)) / (1 - 2 * e)
    return (-(1 - e) * np.log(sigma(margin)) + e * np.log(sigma(-margin))) / (1 - 2 * e), slope, -slope


def squared(ratios: np.ndarray, lengths: np.ndarray, beta: float, _: float) -> tuple[float, float, float]:
    """Azar et al. 2023, eq. 17, by token."""
    gap = ratios[0] / lengths[0] - ratios[1] / lengths[1] - 1 / (2 * beta)
    return gap**2, 2 * gap / lengths[0], -2 * gap / lengths[1]


def by_token(ratios: np.ndarray, lengths: np.ndarray, beta: float, _: float) -> tuple[float, float, float]:
    """Rafailov et al. 2023, eq. 7, of log-ratios by token."""
    slope = -beta * sigma(-beta * (ratios[0] / lengths[0] - ratios[1] / lengths[1]))
    value = -np.log(sigma(beta * (ratios[0] / lengths[0] - ratios[1] / lengths[1])))
    return value, slope / lengths[0], -slope / lengths[1]


LOSSES = {"sigmoid": smoothed, "robust": unbiased, "ipo": squared, "sigmoid_norm": by_token}


@pytest.mark.parametrize(("loss", "beta", "smoothing"), OBJECTIVES)
def test_dpo_s_loss_and_gradients_are_those_of_the_formula(
    loss: str, beta: float, smoothing: float, base: Path, tmp_path: Path
) -> None:
    batch = seen(base, tmp_path, loss, beta, smoothing)
    value, to_hidden, to_head = by_hand(batch, loss, beta, smoothing)
    assert batch.loss == pytest.approx(value, rel=1e-6)
    for found, expected in ((batch.to_head, to_head), (batch.to_hidden, to_hidden)):
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6 * abs(expected).max())
