"""Training on as many workers as there are just then, with the same rows in every optimizer step.

A step takes ``micro_batch * accumulation * max`` rows whatever the number of workers: with
fewer, each adds up more micro-batches before it steps. So a number of workers is used only if
it divides the micro-batches of a step; of three nodes left out of four, two are used. Ray
Train decides how many workers fit; the policy here rounds that down.

Ray 2.60 has no public way to give a trainer a scaling policy: the two names that begin with
an underscore are what its own trainer uses.
"""

from dataclasses import replace
from typing import Any

from ray.train.torch import TorchTrainer
from ray.train.v2._internal.execution.scaling_policy import ElasticScalingPolicy
from ray.train.v2.api.config import ScalingConfig

from configs.errors import TrainingError
from configs.training import StageSettings, TrainingSettings, WorkerRange
from pipelines import pools
from pipelines.training.plan import Plan


def micro_batches(stage: StageSettings, training: TrainingSettings) -> int:
    """Micro-batches of an optimizer step, all workers' together."""
    return stage.accumulation * training.most_workers


def usable(stage: StageSettings, training: TrainingSettings) -> tuple[int, ...]:
    """Numbers of workers that share a step's micro-batches evenly, ascending; never empty."""
    total = micro_batches(stage, training)
    return tuple(n for n in range(training.least_workers, training.most_workers + 1) if total % n == 0)


def fitted(plan: Plan, workers: int) -> Plan:
    """The plan for this many workers: accumulation such that a step's rows stay the same.

    Raises TrainingError where the number does not divide the step's micro-batches.
    """
    total = micro_batches(plan.stage, plan.training)
    if total % workers:
        raise TrainingError(
            f"{plan.name}: a step's {total} micro-batches cannot be shared evenly by {workers} workers; use one of "
            f"{', '.join(map(str, usable(plan.stage, plan.training)))}, or another accumulation"
        )
    return replace(plan, stage=plan.stage.model_copy(update={"accumulation": total // workers}))


class WholeShares(ElasticScalingPolicy):
    """Ray's elastic policy, with numbers of workers that share a step evenly.

    What Ray reserves for a run knows neither labels nor strict spreading: it would start workers
    that then find no node. Under either, the nodes themselves are counted.
    """

    def __init__(self, scaling_config: ScalingConfig, counts: tuple[int, ...]):
        super().__init__(scaling_config)
        self.counts = counts

    def _count_possible_workers(self, reserved_resources: Any) -> int:
        scaling = self.scaling_config
        spread = scaling.placement_strategy == "STRICT_SPREAD"
        if scaling.label_selector or spread:
            each = [self._fitting({"": node["Resources"]}) for node in pools.nodes_of(scaling.label_selector)]
            possible = sum(min(count, 1) if spread else count for count in each)
        else:
            possible = self._fitting(reserved_resources)
        return max((count for count in self.counts if count <= possible), default=0)

    def _fitting(self, resources: Any) -> int:
        """Workers that Ray's own policy finds room for on these nodes."""
        return int(super()._count_possible_workers(resources))


class ElasticTrainer(TorchTrainer):
    """Ray's trainer of torch, with ``WholeShares`` where the number of workers is a range."""

    def __init__(self, *args: Any, plan: Plan, **rest: Any):
        super().__init__(*args, **rest)
        self.plan = plan

    def _initialize_and_run_controller(self, **parts: Any) -> Any:
        if isinstance(self.plan.training.workers, WorkerRange) and self.scaling_config.elasticity_enabled:
            counts = usable(self.plan.stage, self.plan.training)
            parts["scaling_policy"] = WholeShares(self.scaling_config, counts)
        return super()._initialize_and_run_controller(**parts)
