"""Metrics, traces and status of the service on real Serve; Prometheus itself reads the dashboard's queries."""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from cluster.status import as_values, show
from serving import service
from serving.app import ModelPaths
from serving.watching import definitions as d
from serving.watching.meters import RayMeters
from serving.watching.metrics import Metrics
from serving.watching.status import exported_by, look, samples
from tests.ports import free_port
from tests.serving.conftest import settings_for
from tests.serving.watching.otlp import Received, attributes, receiving
from tests.serving.watching.test_dashboard import DASHBOARD, names, queries
from tests.serving.watching.test_metrics import count_all

pytestmark = pytest.mark.slow
SECRET = "zebrafish"
POST = {"title": "A hard week", "text": f"I can not sleep and nobody asks why, {SECRET}."}
ACUTE = {"title": "Goodbye", "text": f"I am going to kill myself tonight, {SECRET}. I have the pills here."}


@dataclass
class Watched:
    """The service, what receives its traces, and how it was asked."""

    url: str
    received: Received
    output: Path

    def post(self, route: str, body: Any, **options: Any) -> httpx.Response:
        return httpx.post(f"{self.url}{route}", json=body, timeout=60, trust_env=False, **options)

    def metrics(self) -> str:
        """What the node's agent exports now."""
        import ray

        return "\n".join(exported_by(node) or "" for node in ray.nodes() if node["Alive"])


@pytest.fixture(scope="module")
def watched(ray_cluster: None, models: ModelPaths, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    """The service after a few requests of each kind."""
    output = tmp_path_factory.mktemp("watched")
    with receiving() as received:
        settings = settings_for(free_port(), output, f"serving.watching.traces.endpoint={received.endpoint}")
        found = Watched(service.start(settings, models), received, output)
        header = {"traceparent": f"00-{'ab' * 16}-{'cd' * 8}-01", "x-request-id": "traced-1"}
        assert found.post("/v1/generate", {"post": POST}, headers=header).status_code == 200
        found.post("/v1/improve", {"post": POST, "draft": "Try to sleep more."})
        found.post("/v1/generate", {"post": POST, "stream": True}, headers={"x-request-id": "traced-2"})
        found.post("/v1/generate", {"post": ACUTE})
        assert found.post("/v1/generate", {"post": {"text": SECRET * 5000}}).status_code == 422
        yield found
        service.stop()


def until(condition: Callable[[], Any], seconds: float = 45) -> Any:
    end = time.monotonic() + seconds
    while not (result := condition()):
        assert time.monotonic() < end, "did not come true in time"
        time.sleep(0.5)
    return result


def exported(text: str) -> set[str]:
    return {line.split("{")[0].split(" ")[0] for line in text.splitlines() if line and not line.startswith("#")}


def test_rays_agent_exports_what_the_service_counts(watched: Watched) -> None:
    happened = (d.REQUESTS, d.REQUEST_SECONDS, d.ERRORS, d.FIRST_TOKEN, d.NEW_TOKENS, d.TRIAGED, d.REPLICA_STARTS)
    wanted = {name for metric in happened for name in metric.exported}

    def all_told() -> str | None:
        text = watched.metrics()  # each process reports on its own
        started = {x["model"] for x, _ in samples(text, "ray_llumi_replica_starts_total")}
        written = {x["model"] for x, _ in samples(text, "ray_llumi_new_tokens_total")}
        return text if wanted <= exported(text) and started == written == {"gm", "im"} else None

    text = until(all_told)
    answered = {(x["route"], x["status"]): n for x, n in samples(text, "ray_llumi_requests_total")}
    assert answered["/v1/generate", "200"] >= 3
    assert answered["/v1/generate", "422"] == 1
    started = {x["model"]: n for x, n in samples(text, "ray_llumi_replica_starts_total")}
    assert started == {"gm": 1, "im": 1}
    tokens = {x["model"]: n for x, n in samples(text, "ray_llumi_new_tokens_total")}
    assert tokens["gm"] >= 2
    assert tokens["im"] >= 1
    assert {x["level"] for x, _ in samples(text, "ray_llumi_triage_total")} >= {"none", "acute"}
    assert {x["code"] for x, _ in samples(text, "ray_llumi_errors_total")} == {"too_long"}


def test_every_metric_that_the_dashboard_asks_for_is_exported_by_ray(watched: Watched) -> None:
    count_all(Metrics(RayMeters()))  # what did not happen here: cancellations, rules of the guard, limits
    board = json.loads(DASHBOARD.read_text(encoding="utf-8"))
    until(lambda: names(board) <= exported(watched.metrics()))
    missing = {name for metric in d.ALL for name in metric.exported} - exported(watched.metrics())
    assert missing == set()


def test_a_trace_goes_from_the_client_through_the_ingress_and_the_model_to_the_engine(watched: Watched) -> None:
    def of(trace: str) -> dict[str, tuple[str, Any]]:
        return {x.name: (who, x) for who, x in watched.received.all() if x.trace_id.hex() == trace}

    spans = until(lambda: (found := of("ab" * 16)) and {"POST /v1/generate", "gm", "engine"} <= set(found) and found)
    assert [spans[name][0] for name in ("POST /v1/generate", "gm", "engine")] == [
        "llumi-ingress",
        "llumi-ingress",
        "llumi-gm",
    ]
    assert spans["POST /v1/generate"][1].parent_span_id.hex() == "cd" * 8
    assert spans["gm"][1].parent_span_id == spans["POST /v1/generate"][1].span_id
    assert spans["engine"][1].parent_span_id == spans["gm"][1].span_id
    assert attributes(spans["engine"][1])["llumi.new_tokens"] >= 1
    streamed = next(
        x.trace_id.hex() for _, x in watched.received.all() if attributes(x).get("llumi.request_id") == "traced-2"
    )
    spans = until(lambda: (found := of(streamed)) and "engine" in found and found)
    assert spans["engine"][1].parent_span_id == spans["gm"][1].span_id
    assert not [body for body in watched.received.raw if SECRET.encode() in body]


def test_no_word_is_in_rays_metrics_or_logs(watched: Watched) -> None:
    import ray

    until(lambda: "ray_llumi_triage_total" in watched.metrics())
    assert SECRET not in watched.metrics()
    logs = Path(ray._private.worker._global_node.get_logs_dir_path())
    searched = [path for path in logs.rglob("*") if path.is_file()]
    assert any("traced-1" in path.read_text(errors="replace") for path in searched)
    assert [path.name for path in searched if SECRET in path.read_text(errors="replace")] == []


def test_status_tells_deployments_versions_rates_and_errors(
    watched: Watched, capsys: pytest.CaptureFixture[str]
) -> None:
    found = look(watched.url, 300)
    assert found.well
    values = json.loads(json.dumps(as_values(found)))
    parts = {part["deployment"]: part for part in values["deployments"]}
    assert set(parts) == {"ingress", "gm", "im"}
    assert parts["gm"]["replicas"]["RUNNING"] == 1
    assert [version["share"] for version in parts["gm"]["versions"]] == [1.0]
    assert len(parts["gm"]["versions"][0]["version"]) == 12
    assert parts["gm"]["tokens_per_s"] > 0
    assert parts["gm"]["first_token_s"]["p95"] >= parts["gm"]["first_token_s"]["p50"] > 0
    assert parts["ingress"]["answers_per_s"] > 0
    assert parts["gm"]["queued"] == parts["gm"]["in_progress"] == 0
    assert values["safety"]["risk acute"] == 1
    assert [error["code"] for error in values["errors"]] == ["too_long"]
    show(found)
    shown = capsys.readouterr().out
    for word in ("ok", "ingress", "healthy", "/v1/generate", "too_long", "risk acute 1"):
        assert word in shown
    assert SECRET not in shown


def test_the_command_finds_the_service_on_its_cluster(watched: Watched) -> None:
    import ray
    from ray._raylet import AuthenticationMode, get_authentication_mode

    port = watched.url.rpartition(":")[2]
    address = ray.get_runtime_context().gcs_address
    overrides = [f"output={watched.output}", f"serving.port={port}", f"cluster.address={address}"]
    environment = {"RAY_AUTH_MODE": "token" if get_authentication_mode() == AuthenticationMode.TOKEN else "disabled"}
    options = [part for override in overrides for part in ("--set", override)]
    command = [sys.executable, "-m", "cluster.cli", "status", "demo", "--json", *options]
    ended = subprocess.run(
        command, capture_output=True, text=True, timeout=120, env=os.environ | environment, check=False
    )
    assert ended.returncode == 0, ended.stderr
    assert json.loads(ended.stdout)["health"] == "ok"
    assert "INFO" not in ended.stderr


@pytest.fixture
def prometheus(watched: Watched, tmp_path: Path) -> Iterator[str]:
    """Prometheus itself, scraping this Ray."""
    import ray

    binary = shutil.which("prometheus")
    if binary is None:
        pytest.skip("there is no `prometheus` on PATH (Debian's package prometheus has it)")
    nodes = [f"{node['NodeManagerAddress']}:{node['MetricsExportPort']}" for node in ray.nodes() if node["Alive"]]
    config = tmp_path / "prometheus.yml"
    scraped = {"job_name": "llumi", "scrape_interval": "1s", "static_configs": [{"targets": nodes}]}
    config.write_text(json.dumps({"scrape_configs": [scraped]}), encoding="utf-8")
    port = free_port()
    options = [f"--config.file={config}", f"--storage.tsdb.path={tmp_path}/data"]
    server = subprocess.Popen(
        [binary, *options, f"--web.listen-address=127.0.0.1:{port}"], stderr=subprocess.DEVNULL, cwd=tmp_path
    )
    yield f"http://127.0.0.1:{port}"
    server.terminate()
    server.wait(20)


def test_prometheus_answers_every_query_of_the_dashboard(watched: Watched, prometheus: str) -> None:
    counted = Metrics(RayMeters())
    board = json.loads(DASHBOARD.read_text(encoding="utf-8"))

    def ask(query: str) -> list[Any]:
        answer = httpx.get(f"{prometheus}/api/v1/query", params={"query": query}, trust_env=False).json()
        assert answer["status"] == "success", (query, answer)
        found: list[Any] = answer["data"]["result"]
        return found

    def all_filled() -> bool:
        count_all(counted)  # a rate needs two values
        try:
            return all(ask(query) for query in queries(board))
        except httpx.HTTPError:
            return False

    until(all_filled, 90)
