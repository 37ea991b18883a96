"""The rows of a step are the same, whatever the number of workers that share them."""

from dataclasses import replace
from pathlib import Path

import pytest
import ray

from configs import load
from configs.errors import ConfigError, TrainingError
from configs.training import StageSettings, WorkerRange
from pipelines.training.elastic import WholeShares, fitted, usable
from pipelines.training.fit import scaling
from tests.pipelines.training.faults import plan_at

RANGE = WorkerRange(min=1, max=6)


@pytest.mark.parametrize(("accumulation", "counts"), [(1, (1, 2, 3, 6)), (2, (1, 2, 3, 4, 6))])
def test_numbers_of_workers_that_share_a_step_evenly_are_usable(
    tmp_path: Path, accumulation: int, counts: tuple[int, ...]
) -> None:
    plan = replace(plan_at(tmp_path, workers=RANGE), stage=StageSettings(accumulation=accumulation))
    assert usable(plan.stage, plan.training) == counts
    for workers in counts:
        assert fitted(plan, workers).stage.accumulation * workers == accumulation * 6


def test_a_number_that_does_not_is_refused_with_those_that_do(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"6 micro-batches.*by 4 workers; use one of 1, 2, 3, 6"):
        fitted(plan_at(tmp_path, workers=RANGE), 4)


@pytest.mark.parametrize(("nodes", "workers"), [(0, 0), (1, 1), (5, 3), (6, 6), (9, 6)])
def test_ray_is_asked_for_no_more_workers_than_share_a_step(tmp_path: Path, nodes: int, workers: int) -> None:
    plan = plan_at(tmp_path, workers=RANGE)
    policy = WholeShares(scaling(plan.training, {}), usable(plan.stage, plan.training))
    assert policy._count_possible_workers({str(k): {"CPU": 1.0} for k in range(nodes)}) == workers


@pytest.mark.parametrize(
    ("labels", "placement", "workers"),
    [({}, "STRICT_SPREAD", 3), ({"p": "a"}, "PACK", 4), ({"p": "a"}, "STRICT_SPREAD", 2)],
)
def test_only_nodes_that_workers_may_run_on_are_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, labels: dict[str, str], placement: str, workers: int
) -> None:
    given = [("a", True), ("a", True), ("b", True), ("a", False)]
    nodes = [{"Labels": {"p": pool}, "Alive": alive, "Resources": {"CPU": 2.0}} for pool, alive in given]
    monkeypatch.setattr(ray, "nodes", lambda: nodes)
    plan = plan_at(tmp_path, workers=WorkerRange(min=1, max=12), placement=placement)
    policy = WholeShares(scaling(plan.training, labels), usable(plan.stage, plan.training))
    assert policy._count_possible_workers({"n": {"CPU": 12.0}}) == workers


def test_a_fixed_number_is_no_range_for_ray(tmp_path: Path) -> None:
    assert scaling(plan_at(tmp_path, workers=3).training, {}).num_workers == 3
    assert scaling(plan_at(tmp_path, workers=RANGE).training, {}).num_workers == (1, 6)


def test_a_least_number_that_could_never_train_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"workers\.min 3 cannot share the 4 micro-batches of a step of base"):
        load("demo", ["training.workers={min: 3, max: 4}"])
