"""Starting Ray here, joining one elsewhere, and refusing at once what cannot work."""

import io
import json
import logging
import subprocess
import sys

import pytest

from cluster import session
from configs import load
from configs.errors import ClusterError

PROBE = """
import json, os, ray
from cluster import needs, session
from configs import load
from configs.errors import ClusterError

settings = load("demo", ["cluster.object_store_gb=0.1"])
session.prepare_environment()
session.connect(settings, [needs.reading(settings), needs.training(settings)])

@ray.remote
def seen():
    import configs
    return os.environ["RAY_TRAIN_ENABLE_PRINT_PATCH"]

try:
    session.connect(settings, [needs.training(load("production"))])
    refused = ""
except ClusterError as error:
    refused = str(error)
print(json.dumps({
    "cpus": ray.cluster_resources()["CPU"],
    "wanted": session.logical_cpus(settings),
    "dashboard": ray._private.worker._global_node.webui_url,
    "seen": ray.get(seen.remote()),
    "refused": refused,
}))
session.disconnect()
print(ray.is_initialized())
"""


def test_a_ray_started_here_has_room_for_training_and_ends_with_us():
    shown = subprocess.run([sys.executable, "-c", PROBE], capture_output=True, text=True, check=True, timeout=120)
    first, second = shown.stdout.splitlines()
    found = json.loads(first)
    assert found["cpus"] == found["wanted"]
    assert not found["dashboard"]
    assert found["seen"] == "0"
    assert "16 x (8 CPU, 1 GPU" in found["refused"]
    assert second == "False"


def test_two_workers_and_a_data_task_fit_on_two_cores(monkeypatch):
    monkeypatch.setattr(session, "machine_cpus", lambda: 2)
    assert session.logical_cpus(load("demo")) == 3


def test_a_larger_machine_is_used_as_it_is_and_the_setting_wins(monkeypatch):
    monkeypatch.setattr(session, "machine_cpus", lambda: 32)
    assert session.logical_cpus(load("demo")) == 32
    assert session.logical_cpus(load("demo", ["cluster.cpus=5"])) == 5


def test_the_quota_of_a_container_counts(tmp_path, monkeypatch):
    quota = tmp_path / "cpu.max"
    monkeypatch.setattr(session, "QUOTA", quota)
    monkeypatch.setattr(session, "cores", lambda: 64)
    assert session.machine_cpus() == 64
    for text, cpus in (("max 100000", 64), ("250000 100000", 2), ("50000 100000", 1)):
        quota.write_text(text, encoding="ascii")
        assert session.machine_cpus() == cpus


def test_an_address_that_does_not_answer_is_refused_at_once():
    with pytest.raises(ClusterError, match=r"127\.0\.0\.1:1 does not answer: Connection refused"):
        session.reachable("127.0.0.1:1")


def test_ray_client_is_refused_with_the_way_out():
    with pytest.raises(ClusterError, match="use `llumi submit`"):
        session.join("ray://head:10001", debug=False)


def test_a_job_runs_on_its_own_cluster_whatever_the_configuration_says(monkeypatch):
    settings = load("demo", ["cluster.address=elsewhere:6379"])
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    assert session.address_of(settings) == "elsewhere:6379"
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")
    assert session.address_of(settings) == "10.0.0.1:6379"


def test_without_an_address_ray_is_started_here(monkeypatch):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    assert session.address_of(load("demo")) is None


def test_only_what_writes_to_the_console_is_hushed():
    elsewhere, console = logging.StreamHandler(io.StringIO()), logging.StreamHandler(sys.stderr)
    logger = logging.getLogger("ray")
    before = [(handler, handler.level) for handler in logger.handlers]
    try:
        logger.addHandler(elsewhere)
        logger.addHandler(console)
        session.hush()
        assert (elsewhere.level, console.level) == (logging.NOTSET, logging.CRITICAL)
    finally:
        logger.removeHandler(elsewhere)
        logger.removeHandler(console)
        for handler, level in before:
            handler.setLevel(level)


def test_what_workers_get_holds_no_secret(monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "secret")
    monkeypatch.setenv("RAY_AUTH_TOKEN", "secret")
    assert "secret" not in json.dumps(session.options(debug=False))


def test_a_refused_token_names_the_mode_and_where_the_token_came_from_but_not_the_token(monkeypatch):
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    assert "RAY_AUTH_MODE is not set here, with no token; set RAY_AUTH_MODE=token" in str(session.refused("h:6379"))
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("RAY_AUTH_TOKEN", "secret")
    told = str(session.refused("h:6379"))
    assert "cluster at h:6379 refuses us: RAY_AUTH_MODE is token here, with RAY_AUTH_TOKEN;" in told
    assert "secret" not in told
