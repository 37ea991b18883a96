"""What all tests share: one Ray cluster a session, and the real data where it is at hand."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

os.environ.setdefault("RAY_TRAIN_ENABLE_PRINT_PATCH", "0")
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
os.environ.setdefault("HF_HUB_OFFLINE", "1")


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[None]:
    """The session's one Ray: four logical CPUs, so that two trainers and a data task fit; it serves as ours would."""
    import ray

    with haproxy_in_the_environment():
        ray.init(num_cpus=4, object_store_memory=500_000_000, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


@contextmanager
def haproxy_in_the_environment() -> Iterator[None]:
    """What Ray's processes are started with for HAProxy; other processes that the tests start choose for themselves."""
    from configs.load import load
    from serving import haproxy

    before = dict(os.environ)
    if haproxy.prepare(load("demo").serving):
        os.environ["RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S"] = "1"
    try:
        yield
    finally:
        for name in set(os.environ) - set(before):
            del os.environ[name]


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of real dumps, by ``LLUMI_SHARED``."""
    folder = Path(os.environ.get("LLUMI_SHARED", "../shared")) / "data"
    if not folder.is_dir():
        pytest.skip(f"real dumps are not at {folder}; set LLUMI_SHARED")
    return folder
