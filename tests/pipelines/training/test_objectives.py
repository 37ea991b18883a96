"""The losses, held to formulas written out by hand and to TRL's own numbers."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from trl import DPOConfig

from configs.training import StageSettings
from pipelines.training.dpo import BetaSchedule, DpoTrainer
from pipelines.training.metrics import divergence
from pipelines.training.objectives import BY_PAIR, Objective, Pairs
from tests.pipelines.training.dpo_world import World

BETA, SMOOTHING = 0.3, 0.1


def s(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def log(x: float) -> float:
    return math.log(s(x))


BY_HAND: dict[str, Callable[[float, float, int, int], float]] = {
    "sigmoid": lambda c, r, n, m: -0.9 * log(0.3 * (c - r)) - 0.1 * log(-0.3 * (c - r)),
    "robust": lambda c, r, n, m: (-0.9 * log(0.3 * (c - r)) + 0.1 * log(-0.3 * (c - r))) / 0.8,
    "sigmoid_norm": lambda c, r, n, m: -log(0.3 * (c / n - r / m)),
    "hinge": lambda c, r, n, m: max(0.0, 1 - 0.3 * (c - r)),
    "ipo": lambda c, r, n, m: (c / n - r / m - 1 / 0.6) ** 2,
    "exo_pair": lambda c, r, n, m: (
        s(0.3 * (c - r)) * (log(0.3 * (c - r)) - math.log(0.9))
        + s(0.3 * (r - c)) * (log(0.3 * (r - c)) - math.log(0.1))
    ),
    "nca_pair": lambda c, r, n, m: -log(0.3 * c) - 0.5 * log(-0.3 * c) - 0.5 * log(-0.3 * r),
    "bco_pair": lambda c, r, n, m: -log(0.3 * c) - log(-0.3 * r),
    "sppo_hard": lambda c, r, n, m: (c - 0.5 / 0.3) ** 2 + (r + 0.5 / 0.3) ** 2,
    "apo_zero": lambda c, r, n, m: (1 - s(0.3 * c)) + s(0.3 * r),
    "apo_down": lambda c, r, n, m: s(0.3 * c) + (1 - s(0.3 * (c - r))),
    "discopop": lambda c, r, n, m: (
        -log(0.3 * (c - r)) * (1 - s(0.3 * (c - r) / 0.05)) + math.exp(-0.3 * (c - r)) * s(0.3 * (c - r) / 0.05)
    ),
}
"""Loss of a pair from its log-ratios and its replies' tokens, at BETA and SMOOTHING."""
ROWS = [(0.7, -0.4, 5, 9), (-1.3, 0.2, 12, 3), (2.0, 1.1, 4, 4)]


def pairs() -> Pairs:
    chosen, rejected, n, m = (torch.tensor(column, dtype=torch.float64) for column in zip(*ROWS, strict=True))
    return Pairs(chosen, rejected, n, m, torch.tensor(2.5, dtype=torch.float64))


def stage(**given: Any) -> StageSettings:
    return StageSettings.model_validate(given)


@pytest.mark.parametrize("name", BY_PAIR)
def test_each_loss_is_its_paper_s_formula(name: str) -> None:
    found = BY_PAIR[name](pairs(), BETA, SMOOTHING)
    assert found.tolist() == pytest.approx([BY_HAND[name](*row) for row in ROWS], rel=1e-6)


def test_dpo_s_gradient_is_the_one_of_its_paper_in_float64() -> None:
    """Rafailov et al. 2023, section 4: -beta sigmoid(-beta margin) for the chosen reply, minus it for the other."""
    given = pairs()
    given.chosen.requires_grad_(), given.rejected.requires_grad_()
    BY_PAIR["sigmoid"](given, BETA, 0.0).sum().backward()
    expected = [-BETA * s(-BETA * (c - r)) for c, r, _, _ in ROWS]
    assert given.chosen.grad.tolist() == pytest.approx(expected, rel=1e-12)
    assert given.rejected.grad.tolist() == pytest.approx([-value for value in expected], rel=1e-12)


def test_robust_is_unbiased_under_the_flips_that_it_is_told_of() -> None:
    """Chowdhury et al. 2024, lemma 3.1: the mean over flips of the robust loss is the clean loss."""
    given = pairs()
    turned = Pairs(given.rejected, given.chosen, given.rejected_tokens, given.chosen_tokens, given.sft)
    mean = 0.9 * BY_PAIR["robust"](given, BETA, 0.1) + 0.1 * BY_PAIR["robust"](turned, BETA, 0.1)
    assert torch.allclose(mean, BY_PAIR["sigmoid"](given, BETA, 0.0))


def test_weights_are_1_on_average_and_the_sft_loss_is_added() -> None:
    margins = torch.tensor([1.0, 3.0, 63.0], dtype=torch.float64)
    objective = Objective(stage(weights="margin", rpo_alpha=0.5), 0.0, mean_weight=3.0)
    each = [-log(0.3 * (c - r)) for c, r, _, _ in ROWS]
    expected = sum(w * loss for w, loss in zip((1 / 3, 2 / 3, 2.0), each, strict=True)) / 3 + 0.5 * 2.5
    assert float(objective.loss(pairs(), BETA, margins)) == pytest.approx(expected)


def test_kl_is_schulman_s_estimator_at_each_reply_s_mean() -> None:
    expected = [
        math.exp(x / n) - 1 - x / n for x, n in [(c, n) for c, _, n, _ in ROWS] + [(r, m) for _, r, _, m in ROWS]
    ]
    assert divergence(pairs()).tolist() == pytest.approx(expected)


def test_beta_goes_in_a_straight_line_to_its_end() -> None:
    line = Objective(stage(beta=0.1, beta_to=0.5), 0.0)
    assert [line.beta(step, 5) for step in (0, 1, 4, 9)] == pytest.approx([0.1, 0.2, 0.5, 0.5])
    assert Objective(stage(beta=0.1), 0.0).beta(3, 5) == 0.1


def test_trl_is_told_its_part_and_computes_what_it_can() -> None:
    assert not Objective(stage(loss="robust"), 0.2).ours
    assert Objective(stage(), 0.2).ours and Objective(stage(loss="ipo", weights="margin"), 0.0, 1.0).ours
    told = Objective(stage(loss="hinge", rpo_alpha=0.2), 0.0).arguments()
    assert told["loss_type"] == ["hinge", "sft"] and told["loss_weights"] == [1.0, 0.2]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(tmp_path_factory.mktemp("dpo"))


@pytest.fixture(scope="module")
def trainer(world: World, tmp_path_factory: pytest.TempPathFactory) -> DpoTrainer:
    """Our trainer without DeepSpeed, whose policy has moved away from the reference."""
    from pipelines.training.weights import load_tokenizer, trainable_model

    plan = world.plan("maths")
    rows = [
        Dataset.from_parquet(str(next(f.rglob("*.parquet")))) for f in (world.tokens / "train", world.scored / "train")
    ]
    columns = rows[1].select_columns(["ref_chosen_logps", "ref_rejected_logps"]).to_dict()
    for name, values in columns.items():
        rows[0] = rows[0].add_column(name, values)
    args = DPOConfig(str(tmp_path_factory.mktemp("out")), use_cpu=True, bf16=False, report_to="none", max_length=None)
    model, tokenizer = trainable_model(plan), load_tokenizer(plan.base)
    made = DpoTrainer(model=model, args=args, train_dataset=rows[0], processing_class=tokenizer)
    made.carry("margin")
    with torch.no_grad():
        for name, weight in made.model.named_parameters():
            if "lora_B" in name:
                weight.add_(0.03 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(1)))
    made.state.global_step = 1
    return made


@pytest.mark.parametrize("name", BY_PAIR)
def test_each_loss_is_trl_s_own_number_on_a_batch(name: str, trainer: DpoTrainer) -> None:
    smoothing = SMOOTHING if name in ("robust", "exo_pair") else 0.0
    trainer.objective, trainer.beta, trainer.label_smoothing = None, BETA, smoothing
    trainer.loss_types, trainer.loss_weights = [name, "sft"], [1.0, 0.7]
    batch = next(iter(trainer.get_train_dataloader()))
    with torch.no_grad():
        theirs = trainer.compute_loss(trainer.model, dict(batch))
        own = Objective(stage(loss=name, rpo_alpha=0.7, label_smoothing=smoothing, weights="margin"), smoothing, 1.0)
        trainer.objective = own
        batch["margin"] = torch.ones(len(batch["margin"]))
        ours = trainer.compute_loss(trainer.model, dict(batch))
    assert abs(float(theirs)) > 0.01 and float(ours) == pytest.approx(float(theirs), rel=1e-4)


def test_margins_and_positions_come_with_a_batch_and_never_reach_the_model(trainer: DpoTrainer, world: World) -> None:
    batch = next(iter(trainer.get_train_dataloader()))
    assert batch["margin"].shape[0] * 2 == batch["input_ids"].shape[0]
    trainer.objective = Objective(stage(weights="margin"), 0.0, mean_weight=1.5)
    weighted = float(trainer.compute_loss(trainer.model, dict(batch)))
    batch["margin"] = torch.full_like(batch["margin"], float(batch["margin"].mean()))
    assert weighted != pytest.approx(float(trainer.compute_loss(trainer.model, dict(batch))), abs=1e-6)


def test_the_trainer_takes_its_beta_from_the_step(trainer: DpoTrainer) -> None:
    schedule = BetaSchedule(trainer, Objective(stage(beta=0.2, beta_to=0.1), 0.0))
    trainer.state.max_steps = 3
    schedule.on_step_begin(trainer.args, trainer.state, trainer.control)
    assert trainer.beta == pytest.approx(0.15)


def test_the_reference_s_own_first_batches_give_no_margin_but_under_another_adapter(
    world: World, trainer: DpoTrainer, tmp_path: Path
) -> None:
    from pipelines.generation.scoring import Policies
    from pipelines.training.reference import scored_again

    policies = Policies(str(world.base), {"start": str(world.start)}, world.settings)
    with policies.under("start") as model:
        assert max(map(abs, scored_again(world.tokens, world.scored, model))) < 1e-5
    with torch.no_grad():
        moved = scored_again(world.tokens, world.scored, trainer.model.get_base_model().eval())
    trainer.model.train()
    assert len(moved) == 48 and max(map(abs, moved)) > 1e-2
