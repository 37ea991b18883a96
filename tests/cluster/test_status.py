"""`llumi status`: what the tables and the JSON say of what replicas told."""

import json
from pathlib import Path
from typing import Any

import pytest

from cluster import rollout, status
from cluster.cli import main
from configs.load import load
from serving.watching.meters import PlainMeters
from serving.watching.metrics import Metrics
from serving.watching.recent import Seen
from serving.watching.status import DeploymentStatus, ErrorStatus, ServiceStatus, Version, errors, last_line


def told_by_ingress() -> Seen:
    counted = Metrics(PlainMeters())
    for code in (200, 200, 503):
        counted.began()
        counted.request("/v1/generate", code, 1.5)
    counted.began()
    counted.error("overloaded")
    counted.triage("acute", "im", "0c1d2e3f4a5b")
    counted.answered("im", "0c1d2e3f4a5b", ("medication",))
    return counted.seen(300)


def told_by_model() -> Seen:
    counted = Metrics(PlainMeters())
    for _ in range(2):
        counted.first_token("gm", 0.2)
        counted.tokens("gm", 100, 60, 1.2)
    counted.answering("gm", +1)
    return counted.seen(300)


@pytest.fixture
def service() -> ServiceStatus:
    ingress = DeploymentStatus("llumi", "ingress", "HEALTHY", "", {"RUNNING": 1}, [], 0, 1, told_by_ingress())
    versions = [Version("gm", "4f1c09aa3b21", "/models/gm", 0.9)]
    gm = DeploymentStatus(
        "llumi-gm", "gm", "UPSCALING", "no room", {"RUNNING": 1, "STARTING": 1}, versions, 3, 1, told_by_model()
    )
    canary = DeploymentStatus(
        "llumi-gm-canary", "gm", "HEALTHY", "", {"RUNNING": 1}, [Version("gm", None, "/new", 0.1)], None, 0, Seen()
    )
    found = [ingress, gm, canary]
    return ServiceStatus("http://127.0.0.1:8000", "ok", 1_790_000_000.0, 300, found, errors(found))


def lines(service: ServiceStatus, capsys: pytest.CaptureFixture[str]) -> list[list[str]]:
    status.show(service)
    return [line.split() for line in capsys.readouterr().out.splitlines()]


def test_each_deployment_is_a_line_with_its_replicas_version_queue_and_rates(
    service: ServiceStatus, capsys: pytest.CaptureFixture[str]
) -> None:
    shown = {line[0]: line[1:] for line in lines(service, capsys) if line}
    seconds = service.deployments[1].seen.seconds
    assert shown["gm"][:9] == ["upscaling", "1", "+", "1", "starting", "gm", "4f1c09aa3b21", "(90%)", "1"]
    assert shown["gm"][9:12] == ["3", f"{2 / seconds:.2f}", f"{120 / seconds:.1f}"]
    assert shown["gm"][12:] == ["175", "ms", "/", "242", "ms"]  # within the bucket from 0.1 to 0.25 s
    assert shown["ingress"][:4] == ["healthy", "1", "1", "0"]


def test_what_nobody_told_is_unknown_and_not_nothing(
    service: ServiceStatus, capsys: pytest.CaptureFixture[str]
) -> None:
    canary = next(line for line in lines(service, capsys) if line and line[0] == "llumi-gm-canary/gm")
    assert canary[1:] == ["healthy", "1", "gm", "?", "(10%)", "?", "?", "?", "?", "-", "/", "-"]
    values = status.as_values(service)["deployments"][2]
    assert (values["queued"], values["in_progress"], values["tokens_per_s"]) == (None, None, None)


def test_errors_are_told_by_name_with_their_age_and_safety_by_rule(
    service: ServiceStatus, capsys: pytest.CaptureFixture[str]
) -> None:
    status.show(service)
    shown = capsys.readouterr().out
    assert "overloaded" in shown
    assert "0 s ago" in shown
    assert "safety: risk acute 1, answers im 1, guard medication 1" in shown
    assert "gm: no room" in shown
    route = next(line.split() for line in shown.splitlines() if line.startswith("/v1/generate"))
    assert route[1:4] == ["3", "0", "1"]


def test_versions_of_a_model_are_told_apart_while_one_is_rolled_out(service: ServiceStatus) -> None:
    counted = Metrics(PlainMeters())
    for version, broken in (("old", ()), ("old", ("emoji.any",)), ("new", ("emoji.any",))):
        counted.answered("gm", version, broken)
    counted.refused("guard", "gm", "new")
    service.deployments[0].seen = counted.seen(300)
    assert status.as_values(service)["safety"] == {
        "answers gm (gm new)": 1,
        "answers gm (gm old)": 2,
        "guard emoji.any (gm new)": 1,
        "guard emoji.any (gm old)": 1,
        "refused guard (gm new)": 1,
    }
    service.deployments.pop()  # the other version has gone
    assert status.as_values(service)["safety"]["guard emoji.any"] == 2


def test_the_same_is_there_as_json(service: ServiceStatus) -> None:
    values = json.loads(json.dumps(status.as_values(service)))
    assert values["requests"] == [
        {"route": "/v1/generate", "status": 200, "count": 2},
        {"route": "/v1/generate", "status": 503, "count": 1},
    ]
    assert values["errors"][0]["code"] == "overloaded"
    assert values["deployments"][1]["versions"][0]["version"] == "4f1c09aa3b21"
    assert values["well"] is False


def test_a_service_is_well_where_it_answers_and_every_deployment_is_healthy(service: ServiceStatus) -> None:
    assert not service.well
    service.deployments[1].status = "HEALTHY"
    assert service.well
    service.health = "unavailable"
    assert not service.well


def test_of_a_trace_only_the_line_that_names_the_error_is_shown() -> None:
    assert (
        last_line("Traceback ...\n  File x\nEngineError: the model is cut off\n") == "EngineError: the model is cut off"
    )
    assert last_line("") == ""


def test_times_read_well() -> None:
    assert [status.duration(value) for value in (5, 90, 7200, 200_000)] == ["5 s", "2 min", "2 h", "2 d"]
    assert [status.seconds(value) for value in (None, 0.0123, 2.34)] == ["-", "12 ms", "2.3 s"]
    assert ErrorStatus("timeout", 1, 3.0).code == "timeout"


def test_where_no_service_runs_the_way_to_one_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["status", "tiny", "--set", f"output={tmp_path}"])
    assert ended.value.code == 2
    assert "llumi serve" in capsys.readouterr().err


def test_the_exit_code_says_whether_the_service_is_well(
    service: ServiceStatus, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from contextlib import nullcontext

    import serving.watching.status as watching

    asked: list[Any] = []
    monkeypatch.setattr(rollout, "joined", lambda settings, debug: nullcontext())
    monkeypatch.setattr(watching, "check_deployed", lambda: None)
    monkeypatch.setattr(watching, "look", lambda *given: asked.append(given) or service)
    settings = load("tiny", [f"output={tmp_path}", "serving.port=8123"])
    assert status.status(settings, window_s=60, as_json=True, debug=False) == 1
    service.deployments[1].status = "HEALTHY"
    assert status.status(settings, window_s=60, as_json=True, debug=False) == 0
    assert asked[0][:2] == ("http://127.0.0.1:8123", 60)
