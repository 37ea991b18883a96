"""Labels of pools, as Ray is given them and as nodes are looked up by them."""

from collections.abc import Iterator
from typing import Any

import pytest
import ray
import ray.data

from configs import load
from pipelines import pools
from pipelines.corpus.flow import within_a_node
from pipelines.training.fit import scaling

POOLS = "cluster.pools={data: cpu, training: gpu, serving: web}"
GB = 10**9


def node(labels: dict[str, str], alive: bool = True, **resources: float) -> dict[str, Any]:
    return {"Labels": labels, "Alive": alive, "Resources": resources}


NODES = [
    node({}, memory=900.0 * GB),
    node({"llumi/pool": "cpu"}, memory=64.0 * GB),
    node({"llumi/pool": "gpu"}, GPU=8.0, memory=600.0 * GB),
    node({"llumi/pool": "web"}, GPU=4.0),
    node({"llumi/pool": "gpu"}, alive=False, GPU=8.0),
]


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A cluster with a node of each pool, one without a label and one that is gone."""
    context = ray.data.DataContext.get_current()
    before = context.execution_options.label_selector
    monkeypatch.setattr(ray, "nodes", lambda: NODES)
    yield
    context.execution_options.label_selector = before


def test_without_pools_nothing_is_selected():
    settings = load("demo")
    assert [pools.selector(settings, pool) for pool in ("data", "training", "serving")] == [None] * 3
    assert scaling(settings.training, settings.cluster.pools.selector("training")).label_selector is None


def test_what_asks_for_gpus_goes_to_the_training_pool_and_the_rest_to_data():
    settings = load("demo", [POOLS])
    assert pools.for_gpus(settings, 0.5) == {"llumi/pool": "gpu"}
    assert pools.for_gpus(settings, None) == pools.for_gpus(settings, 0) == {"llumi/pool": "cpu"}


def test_workers_are_asked_for_in_their_pool():
    settings = load("demo", [POOLS, "cluster.pools.label=team/what"])
    selected = scaling(settings.training, settings.cluster.pools.selector("training"))
    assert selected.label_selector == {"team/what": "gpu"}


def test_gpus_count_where_they_may_be_used_and_only_of_living_nodes(cluster):
    assert pools.gpus({"llumi/pool": "gpu"}) == 8
    assert pools.gpus({"llumi/pool": "cpu"}) == 0
    assert pools.gpus(None) == 12


def test_a_data_task_asks_for_no_more_memory_than_a_node_of_its_pool_has(cluster):
    assert within_a_node(700.0 * GB) == pytest.approx(700.0 * GB)
    pools.use_for_data(load("demo", [POOLS]))
    assert within_a_node(700.0 * GB) == pytest.approx(0.8 * 64 * GB)
    pools.use_for_data(load("demo"))
    assert within_a_node(700.0 * GB) == pytest.approx(700.0 * GB)
