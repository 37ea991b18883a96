"""Training that goes wrong stops before it is saved, and names its rows by their ids."""

import json
import math
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from datasets import Dataset
from transformers import TrainerControl, TrainerState, TrainingArguments

from configs.errors import TrainingError
from configs.training import DivergenceSettings
from pipelines.training.watch import STOPPED, Divergence, Watch
from tests.pipelines.training.faults import alone, plan_at

SECRET = "words of a post"
ROWS = Dataset.from_dict(
    {
        "post_id": [f"p{k}" for k in range(9)],
        "comment_id": [f"c{k}" for k in range(9)],
        "text": [SECRET] * 9,
    }
)


def diverged(losses: list[float], **settings: float) -> list[bool]:
    watch = Divergence(DivergenceSettings.model_validate({"factor": 3, "steps": 2, "window": 10, **settings}))
    return [watch.after(loss) for loss in losses]


def test_a_loss_that_stays_high_is_divergence() -> None:
    assert diverged([2.0, 2.0, 2.0, 6.1, 6.1]) == [False, False, False, False, True]


def test_one_high_loss_is_not() -> None:
    assert not any(diverged([2.0, 2.0, 6.1, 2.0, 6.1, 2.0]))


def test_high_losses_do_not_raise_the_median_they_are_measured_by() -> None:
    assert diverged([2.0] * 3 + [7.0] * 20, steps=20)[-1]


def test_pairs_that_are_all_but_learnt_may_jump() -> None:
    assert not any(diverged([0.001] * 10 + [1.5] * 5))
    assert diverged([0.001] * 10 + [2.2] * 2)[-1]


def test_a_factor_of_zero_never_stops() -> None:
    assert not any(diverged([1.0, 100.0, 1000.0, 1e9], factor=0))


@pytest.fixture
def watch(tmp_path: Path) -> Iterator[Watch]:
    with alone():
        yield Watch(plan_at(tmp_path, divergence={"factor": 3, "steps": 2}), ROWS)


def step(watch: Watch, tmp_path: Path, *micro_batches: tuple[float, list[int]]) -> TrainerControl:
    """One optimizer step of these losses and rows."""
    for loss, rows in micro_batches:
        watch.saw(torch.tensor(loss), rows)
    state = TrainerState(global_step=7, max_steps=9)
    return watch.on_step_end(TrainingArguments(str(tmp_path), use_cpu=True), state, TrainerControl())


@pytest.mark.parametrize("loss", [math.nan, math.inf, -math.inf])
def test_a_loss_that_is_no_number_names_the_rows_of_its_micro_batch(watch: Watch, tmp_path: Path, loss: float) -> None:
    with pytest.raises(
        TrainingError, match=r"at step 7, on the rows p4/c4, p5/c5; no checkpoint.*learning_rate"
    ) as met:
        step(watch, tmp_path, (1.0, [0, 1]), (loss, [4, 5]), (1.0, [2, 3]))
    record = (Path(watch.plan.storage) / STOPPED).read_text()
    assert json.loads(record)["batches"] == [["p4/c4", "p5/c5"]]
    assert SECRET not in record + str(met.value)


def test_divergence_names_the_rows_of_the_whole_step(watch: Watch, tmp_path: Path) -> None:
    step(watch, tmp_path, (1.0, [0, 1]))
    step(watch, tmp_path, (4.0, [2, 3]))
    told = r"loss is 5, for 2 steps over 3 times its running median 1 at step 7, on the rows p4/c4, p5/c5, p6/c6, p7/c7"
    with pytest.raises(TrainingError, match=told):
        step(watch, tmp_path, (2.0, [4, 5]), (3.0, [6, 7]))


def test_a_gradient_that_is_no_number_stops_training_though_the_loss_is_one(watch: Watch, tmp_path: Path) -> None:
    class Engine:
        def get_global_grad_norm(self) -> float:
            return math.nan

    class Trainer:
        model_wrapped = Engine()

    watch.trainer = Trainer()
    with pytest.raises(TrainingError, match=r"the gradient's norm nan at step 7, on the rows p0/c0"):
        step(watch, tmp_path, (1.0, [0]))


def test_steps_that_go_well_are_left_alone(watch: Watch, tmp_path: Path) -> None:
    assert not step(watch, tmp_path, (1.0, [0, 1])).should_save
