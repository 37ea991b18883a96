"""The service through real HTTP, on real Serve."""

import json
import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from configs.errors import EngineError, ModelNotFound, PortInUse, StageOrderError, UsageError
from configs.settings import Settings
from serving import service
from serving.app import ModelPaths
from tests.ports import free_port
from tests.serving.conftest import settings_for

SECRET = "zebrafish"
"""A word that is sent in every request and must turn up nowhere."""
POST = {"title": "A hard week", "text": f"I can not sleep and nobody asks why, {SECRET}."}


@dataclass
class Running:
    """The service under test."""

    url: str
    settings: Settings

    def post(self, route: str, body: Any = None, **options: Any) -> httpx.Response:
        return httpx.post(f"{self.url}{route}", json=body, timeout=60, trust_env=False, **options)

    def get(self, route: str) -> httpx.Response:
        return httpx.get(f"{self.url}{route}", timeout=60, trust_env=False)


def test_a_port_in_use_is_named_before_anything_starts(ray_cluster: None, models: ModelPaths, tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(PortInUse) as caught:
            service.start(settings_for(port, tmp_path), models)
    assert str(port) in str(caught.value)
    assert "--set serving.port=" in str(caught.value)
    assert not service.is_running()


def test_an_address_open_to_others_is_refused(models: ModelPaths, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"serving\.auth=keys"):
        service.start(settings_for(free_port(), tmp_path, "serving.host=0.0.0.0"), models)


def test_models_that_were_not_made_are_asked_for_by_command(tmp_path: Path) -> None:
    with pytest.raises(StageOrderError, match="llumi run"):
        service.start(settings_for(free_port(), tmp_path))


def test_a_model_that_is_not_there_is_named(tmp_path: Path) -> None:
    nowhere = str(tmp_path / "nowhere")
    with pytest.raises(ModelNotFound, match="nowhere"):
        service.start(settings_for(free_port(), tmp_path), ModelPaths(gm=nowhere, im=nowhere))


@pytest.mark.slow
def test_a_model_that_cannot_be_loaded_fails_the_start_with_its_reason(
    ray_cluster: None, models: ModelPaths, tmp_path: Path
) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(models.gm, broken)
    (broken / "model.safetensors").write_bytes(b"cut off")
    with pytest.raises(EngineError, match="gm") as caught:
        service.start(settings_for(free_port(), tmp_path), ModelPaths(gm=str(broken), im=models.im))
    assert "broken" in str(caught.value)
    assert len(str(caught.value)) < 1000
    service.stop()


@pytest.fixture(scope="module")
def running(ray_cluster: None, models: ModelPaths, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """The service with two replicas of gm."""
    gm = ("min_replicas=2", "max_replicas=2", "max_ongoing_requests=4", "max_queued_requests=6")
    settings = settings_for(
        free_port(),
        tmp_path_factory.mktemp("service"),
        *(f"serving.gm.{part}" for part in gm),
        "serving.request_timeout_s=5",
        "serving.api.max_new_tokens=7000",
    )
    url = service.start(settings, models)
    yield Running(url, settings)
    service.stop()
    assert not service.is_running()


def test_a_post_gets_a_draft(running: Running) -> None:
    response = running.post("/v1/generate", {"post": POST})
    answer = response.json()
    assert response.status_code == 200, answer
    assert [isinstance(draft["text"], str) for draft in answer["drafts"]] == [True]
    assert answer["usage"]["prompt_tokens"] > 100
    assert 1 <= answer["usage"]["new_tokens"] <= 16


def test_a_draft_gets_a_revision(running: Running) -> None:
    response = running.post("/v1/improve", {"post": POST, "draft": "Try to sleep more."})
    answer = response.json()
    assert response.status_code == 200, answer
    assert isinstance(answer["revision"], str)
    longer = running.post("/v1/improve", {"post": POST, "draft": "Try to sleep more. " * 20}).json()
    assert longer["usage"]["prompt_tokens"] > answer["usage"]["prompt_tokens"] + 20


def test_a_draft_is_streamed_from_the_replica_to_the_client(running: Running) -> None:
    body = {"post": POST, "stream": True, "temperature": 0, "seed": 1}
    with httpx.stream("POST", f"{running.url}/v1/generate", json=body, timeout=60, trust_env=False) as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        lines = response.read().decode().split("\n")
    whole = running.post("/v1/generate", {"post": POST, "temperature": 0, "seed": 1}).json()
    assert [line for line in lines if line.startswith("event: ")][-1] == "event: end"
    end = json.loads([line for line in lines if line.startswith("data: ")][-1].removeprefix("data: "))
    assert end["drafts"] == whole["drafts"]


def test_every_answer_carries_an_id_and_a_given_one_is_kept(running: Running) -> None:
    first, second = (running.post("/v1/generate", {"post": POST}) for _ in range(2))
    assert first.json()["request_id"] == first.headers["x-request-id"]
    assert first.json()["request_id"] != second.json()["request_id"]
    given = [running.post("/v1/generate", {"post": POST}, headers={"x-request-id": "my-id-1"}) for _ in range(2)]
    assert [answer.json()["request_id"] for answer in given] == ["my-id-1"] * 2
    assert [answer.headers["x-request-id"] for answer in given] == ["my-id-1"] * 2


def test_health_speaks_for_both_models(running: Running) -> None:
    response = running.get("/healthz")
    assert (response.status_code, response.json()) == (200, {"status": "ok"})


def test_both_models_are_listed_with_what_they_were_made_from(running: Running) -> None:
    listed = {model["id"]: model for model in running.get("/v1/models").json()["data"]}
    assert set(listed) == {"llumi-gm", "llumi-im"}
    assert listed["llumi-gm"]["status"] == "ok"
    answer = running.post("/v1/generate", {"post": POST}).json()
    assert answer["version"] == listed["llumi-gm"]["version"]


def test_bad_input_is_answered_behind_the_proxy_as_without_it(running: Running) -> None:
    def chunks() -> Iterator[bytes]:
        for _ in range(40):
            yield b"x" * 50_000

    sent: list[tuple[dict[str, Any], int, str]] = [
        ({"json": [SECRET]}, 400, "invalid_json"),
        ({"json": {"post": {**POST, SECRET: 1}}}, 422, "unknown_field"),
        ({"json": {"post": {"text": "q7" * 9000}}}, 400, "context_length_exceeded"),
        ({"content": b"x" * 1_100_000}, 413, "body_too_large"),
        ({"content": chunks()}, 413, "body_too_large"),
    ]
    for request, status, code in sent:
        response = httpx.post(f"{running.url}/v1/generate", timeout=60, trust_env=False, **request)
        assert (response.status_code, response.json()["error"]["code"]) == (status, code)
        assert SECRET not in response.text


def test_nothing_of_the_service_listens_on_another_interface(running: Running) -> None:
    """HAProxy, ingress and model replicas; Ray's own ports are Ray's affair and the network's."""
    ours = ("ServeReplica", "haproxy", "ProxyActor", "HAProxyManager")
    found = set()
    for process in psutil.Process().children(recursive=True):
        title = " ".join(process.cmdline())
        if any(name in title for name in ours):
            listening = (c for c in process.net_connections("tcp") if c.status == psutil.CONN_LISTEN)
            found |= {(title.split("::")[-1][:40], c.laddr.ip, c.laddr.port) for c in listening}
    http = {(ip, port) for _, ip, port in found}
    assert ("127.0.0.1", running.settings.serving.port) in http
    open_to_all = {(name, ip, port) for name, ip, port in found if ip not in ("127.0.0.1", "::1")}
    assert not [one for one in open_to_all if speaks_http(one[2])], open_to_all


def speaks_http(port: int) -> bool:
    """Whether something on the port answers HTTP."""
    try:
        httpx.get(f"http://127.0.0.1:{port}/", timeout=5, trust_env=False)
    except httpx.HTTPError:
        return False
    return True


def test_no_replica_of_a_model_can_be_asked_past_the_ingress(running: Running) -> None:
    asked = 0
    for process in replicas("gm") + replicas("im"):
        for connection in process.net_connections("tcp"):
            if connection.status == psutil.CONN_LISTEN and speaks_http(connection.laddr.port):
                asked += 1
                url = f"http://127.0.0.1:{connection.laddr.port}"
                for path in ("/", "/v1/generate", "/write", "/llumi-gm"):
                    response = httpx.post(f"{url}{path}", json={"post": POST}, timeout=20, trust_env=False)
                    assert response.status_code >= 400
                    assert "drafts" not in response.text and SECRET not in response.text
    assert asked > 0 or not replicas("haproxy")


def test_each_request_leaves_one_line_and_no_word_of_it(running: Running) -> None:
    import ray

    running.post("/v1/generate", {"post": POST}, headers={"x-request-id": "logged-1"})
    running.post("/v1/generate", {"post": {"text": SECRET * 3000}}, headers={"x-request-id": "logged-2"})
    running.post("/v1/generate", {"post": {"text": SECRET * 2000}}, headers={"x-request-id": "logged-3"})
    logs = Path(ray._private.worker._global_node.get_logs_dir_path())

    def lines() -> list[dict[str, Any]]:
        found = [
            json.loads(line[line.index("{") :])
            for path in logs.glob("serve/*ingress*.log")
            for line in path.read_text().splitlines()
            if '"request_id": "logged-' in line
        ]
        return sorted(found, key=lambda line: line["request_id"])

    until(lambda: len(lines()) == 3)
    answered, refused, too_long = lines()
    assert (answered["route"], answered["method"], answered["status"]) == ("/v1/generate", "POST", 200)
    assert answered["new_tokens"] >= 1
    assert (refused["status"], refused["new_tokens"]) == (422, None)
    assert too_long["status"] == 400
    for path in logs.rglob("*"):
        if path.is_file():
            assert SECRET not in path.read_text(errors="replace"), f"{path} repeats what was sent"


def test_a_service_that_runs_elsewhere_is_not_moved(running: Running, models: ModelPaths, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="already runs"):
        service.start(settings_for(free_port(), tmp_path), models)


def test_a_replica_killed_under_load_loses_no_request(running: Running) -> None:
    answers: list[tuple[int, str | None]] = []
    stop = threading.Event()

    def ask() -> None:
        with httpx.Client(timeout=60, trust_env=False) as client:
            while not stop.is_set():
                answer = client.post(f"{running.url}/v1/generate", json={"post": POST})
                answers.append((answer.status_code, answer.json().get("error", {}).get("message")))

    with ThreadPoolExecutor(5) as pool:  # one replica and the queue hold them: nothing is refused as overload
        clients = [pool.submit(ask) for _ in range(5)]
        time.sleep(1.5)
        before = replicas("gm")
        before[0].kill()
        time.sleep(2.5)
        stop.set()
        for client in clients:
            client.result()
    assert len(before) == 2
    assert len(answers) > 20
    assert set(answers) == {(200, None)}
    until(lambda: len(replicas("gm")) == 2, 60)
    assert before[0].pid not in {process.pid for process in replicas("gm")}


ENDLESS = {"post": POST, "max_tokens": 7000, "temperature": 0}
"""Asked greedily the model does not end by itself."""


def test_a_request_that_takes_too_long_is_given_up_and_leaves_the_engine(running: Running) -> None:
    started = time.monotonic()
    response = running.post("/v1/generate", ENDLESS)
    assert (response.status_code, response.json()["error"]["code"]) == (504, "timeout")
    assert time.monotonic() - started > running.settings.serving.request_timeout_s - 0.5
    until(lambda: all(map(idle, replicas("gm"))))


def test_a_client_that_leaves_frees_the_engine(running: Running) -> None:
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(f"{running.url}/v1/generate", json=ENDLESS, timeout=1, trust_env=False)
    until(lambda: all(map(idle, replicas("gm"))))
    body = {**ENDLESS, "stream": True}
    with httpx.stream("POST", f"{running.url}/v1/generate", json=body, timeout=60, trust_env=False) as response:
        assert next(response.iter_lines()) == "event: start"
    until(lambda: all(map(idle, replicas("gm"))))


def test_what_is_above_the_queue_is_refused_at_once(running: Running) -> None:
    with ThreadPoolExecutor(32) as pool:
        answers = list(pool.map(lambda _: running.post("/v1/generate", ENDLESS), range(32)))
    refused = [answer for answer in answers if answer.status_code == 503]
    assert {answer.status_code for answer in answers} == {503, 504}
    assert len(refused) >= 8
    assert {answer.json()["error"]["code"] for answer in refused} == {"overloaded"}
    assert all(int(answer.headers["retry-after"]) >= 1 for answer in refused)
    assert max(answer.elapsed.total_seconds() for answer in refused) < running.settings.serving.request_timeout_s
    assert running.get("/healthz").status_code == 200


def replicas(deployment: str) -> list[psutil.Process]:
    """Processes of a deployment's replicas, among those that this test session started."""
    found = []
    for process in psutil.Process().children(recursive=True):
        try:
            title = " ".join(process.cmdline())
        except psutil.NoSuchProcess:
            continue
        if f"ServeReplica:llumi-{deployment}:{deployment}" in title and process.status() != psutil.STATUS_ZOMBIE:
            found.append(process)
    return sorted(found, key=lambda process: process.pid)


def idle(process: psutil.Process) -> bool:
    """Whether a replica computes next to nothing for a moment: its engine holds no request."""
    return process.cpu_percent(interval=0.5) < 30


def until(condition: Callable[[], bool], seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "did not come true in time"
        time.sleep(0.1)
