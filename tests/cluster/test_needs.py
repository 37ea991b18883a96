"""Counting what a cluster can ever hold."""

import pytest

from cluster.needs import GB, Need, Room, capacity, check, data, reading, serving, training
from configs import load
from configs.errors import ClusterError

HEAD = Room({"CPU": 0, "memory": 30 * GB})
GPUS = Room({"CPU": 80, "GPU": 8, "memory": 600 * GB})
TRAIN, SERVE, DATA = ({"llumi/pool": name} for name in ("train", "serve", "data"))


def workers(count: int, placement: str = "PACK") -> Need:
    return Need("training (training.workers)", count, {"CPU": 8, "GPU": 1}, placement)


def test_two_nodes_of_eight_gpus_hold_sixteen_workers():
    train = Room(GPUS.resources, 2, labels=TRAIN)
    check([training(load("production"))], [HEAD, train])


def test_one_node_does_not_and_both_numbers_are_named():
    with pytest.raises(
        ClusterError, match=r"training\.workers\): 16 x \(8 CPU, 1 GPU.*never hold more than 8;.*80 CPU, 8 GPU"
    ):
        check([training(load("production"))], [HEAD, Room(GPUS.resources, labels=TRAIN)])


def test_a_worker_must_fit_on_one_node():
    assert capacity(Need("x", 1, {"CPU": 3}), [Room({"CPU": 2}), Room({"CPU": 2})]) == 0


def test_the_scarcest_resource_decides():
    assert capacity(workers(16), [Room({"CPU": 16, "GPU": 8})]) == 2


def test_strictly_packed_workers_need_one_node_for_all():
    assert capacity(workers(16, "STRICT_PACK"), [GPUS, GPUS]) == 8


def test_strictly_spread_workers_need_a_node_each():
    assert capacity(workers(3, "STRICT_SPREAD"), [GPUS, GPUS]) == 2


def test_a_group_that_grows_without_limit_holds_anything_that_fits_one_node():
    check([workers(1000)], [HEAD, Room(GPUS.resources, None, "train")])
    with pytest.raises(ClusterError):
        check([Need("x", 1, {"GPU": 9})], [Room(GPUS.resources, None, "train")])


def test_an_autoscaled_group_counts_with_its_largest_size():
    assert capacity(workers(100), [Room(GPUS.resources, 3, "train")]) == 24


def test_a_read_task_needs_its_memory_on_one_node():
    with pytest.raises(ClusterError, match=r"reader_memory_gb.*2\.5 GB memory"):
        check([reading(load("demo"))], [Room({"CPU": 4, "memory": 2 * GB})])


def test_fractions_of_a_cpu_add_up():
    assert capacity(Need("x", 10, {"CPU": 0.1}), [Room({"CPU": 1})]) == 10


def test_the_service_needs_the_fewest_replicas_of_each_deployment():
    needs = serving(load("production"))
    assert {need.what: need.count for need in needs} == {"serving.ingress": 2, "serving.gm": 2, "serving.im": 2}
    check(needs, [Room(GPUS.resources, labels=SERVE)])


def test_no_nodes_are_said_so():
    with pytest.raises(ClusterError, match="it has no nodes"):
        check([workers(1)], [])


def test_nodes_of_another_pool_do_not_count():
    served = Room(GPUS.resources, 9, labels=SERVE)
    with pytest.raises(
        ClusterError, match=r"of nodes labelled llumi/pool=train \(cluster\.pools\.training\).*more than 8"
    ):
        check([training(load("production"))], [served, Room(GPUS.resources, labels=TRAIN)])


def test_a_label_that_no_node_has_is_named_with_the_way_to_give_it():
    with pytest.raises(
        ClusterError, match=r"ray start --labels llumi/pool=train` or set cluster\.pools\.training to null"
    ):
        check([training(load("production"))], [HEAD, GPUS, Room({"CPU": 16}, labels=DATA)])


def test_without_pools_any_node_counts():
    settings = load("production", ["cluster.pools={training: null, data: null, serving: null}"])
    check([training(settings), data(settings), *serving(settings)], [GPUS, Room(GPUS.resources, labels=SERVE)])


def test_nodes_that_an_autoscaler_may_add_may_bear_any_label():
    check([training(load("production"))], [Room(GPUS.resources, 2, "train", labels=None)])


def test_data_tasks_need_a_node_of_their_pool():
    check([data(load("production"))], [HEAD, Room({"CPU": 16}, labels=DATA)])
    with pytest.raises(ClusterError, match=r"data tasks: 1 x \(1 CPU.*llumi/pool=data \(cluster\.pools\.data\)"):
        check([data(load("production"))], [HEAD, GPUS])
