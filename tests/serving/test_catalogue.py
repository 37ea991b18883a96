"""What /v1/models says of the models, and the document that describes the interface."""

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest

from configs.access import ORDINARY
from configs.store import StoreSettings
from pipelines.manifest import fingerprint, writing
from serving import sources
from serving.access import keys
from serving.api import API_VERSION
from serving.feedback.store import FeedbackStore
from tests.serving.running import POST, running

DOCUMENT = Path(__file__).parents[2] / "docs" / "openapi.json"


def run_of_models(root: Path, beta: float = 0.1) -> Path:
    """A run's manifests from tokens to a merged model, and an evaluation of its adapter; returns the model's folder."""
    adapter = root / "adapters" / "gm" / "dpo1"
    with writing(root / "pairs", stage="pairs", settings={"pairs": {"rule": "matched"}}, inputs={}) as draft:
        draft.count("gm", read=10, kept=7, dropped={"over_cap": 3})
    with writing(
        adapter, stage="train/gm/dpo1", settings={"training": {"beta": beta}}, inputs=inputs(pairs=root / "pairs")
    ):
        pass
    merged = root / "models" / "gm"
    with writing(merged, stage="merge/gm", settings={"bf16": False}, inputs=inputs(adapter=adapter)) as draft:
        (draft.path / "config.json").write_text("{}")
    measured = {"accuracy": 0.62, "low": 0.55, "high": 0.69, "n": 200}
    with writing(
        root / "evaluation",
        stage="evaluation",
        settings={"evaluation": {"confidence": 0.9}},
        inputs={"adapters/gm/dpo1": fingerprint(adapter)},
    ) as draft:
        draft.figures["rewards"] = {"gm": {"dpo1": measured}}
    return merged


def inputs(**folders: Path) -> dict[str, str]:
    return {name: fingerprint(folder) for name, folder in folders.items()}


def test_a_model_tells_its_data_settings_adapters_and_figures_and_no_path(tmp_path: Path) -> None:
    info = sources.about(str(run_of_models(tmp_path / "run")))
    with running(tmp_path, info=info) as site:
        model = site.get("/v1/models/llumi-gm").json()
        answer = site.post("/v1/generate", {"post": POST}).json()
    assert model["version"] == answer["version"] == info["version"]
    assert model["manifest"].startswith(model["version"])
    assert model["created"] > 1_700_000_000
    lineage = model["lineage"]
    assert list(lineage["made_from"]) == ["train/gm/dpo1", "pairs"]
    assert lineage["made_from"]["pairs"]["rows"] == {"gm": {"read": 10, "kept": 7}}
    assert lineage["made_from"]["pairs"]["settings"] == {"pairs": {"rule": "matched"}}
    assert lineage["made_from"]["train/gm/dpo1"]["settings"] == {"training": {"beta": 0.1}}
    assert lineage["not_there_any_more"] == []
    (metric,) = lineage["metrics"]
    assert (metric["name"], metric["value"], metric["n"]) == ("accuracy", 0.62, 200)
    assert metric["method"].startswith("90%")
    assert str(tmp_path) not in json.dumps(model)


def test_what_is_not_there_any_more_is_named(tmp_path: Path) -> None:
    merged = run_of_models(tmp_path / "run")
    (tmp_path / "run" / "pairs" / "manifest.json").unlink()
    with running(tmp_path, info=sources.about(str(merged))) as site:
        lineage = site.get("/v1/models/llumi-gm").json()["lineage"]
    assert lineage["not_there_any_more"] == ["train/gm/dpo1: pairs"]


def test_a_model_is_told_by_what_made_it_though_its_folder_holds_another_by_now(tmp_path: Path) -> None:
    info = sources.about(str(run_of_models(tmp_path / "run")))
    with running(tmp_path, info=info) as site:
        evaluated = tmp_path / "run" / "evaluation" / "manifest.json"
        kept = evaluated.read_text()
        evaluated.unlink()
        assert site.get("/v1/models/llumi-gm").json()["lineage"]["metrics"] == []
        evaluated.write_text(kept)
        assert site.get("/v1/models/llumi-gm").json()["lineage"]["metrics"] != []
        run_of_models(tmp_path / "run", beta=0.2)
        lineage = site.get("/v1/models/llumi-gm").json()["lineage"]
    assert (lineage["made_from"], lineage["metrics"]) == ({}, [])
    assert lineage["not_there_any_more"] == ["adapter"]


def test_an_exported_model_tells_what_its_lineage_says(tmp_path: Path) -> None:
    exported = tmp_path / "exported"
    exported.mkdir()
    (exported / "lineage.json").write_text('{"llumi_export": 1, "model": "gm", "metrics": {"figures": []}}')
    with running(tmp_path, info=sources.about(str(exported))) as site:
        assert site.get("/v1/models/llumi-gm").json()["lineage"]["llumi_export"] == 1


def test_the_document_is_for_callers_with_the_scope_docs(tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    without = keys.create(file, "without", tuple(scope for scope in ORDINARY if scope != "docs"))[0]
    allowed = keys.create(file, "allowed", ("docs",))[0]
    options = ["serving.auth=keys", f"serving.access.keys_file={file}", "serving.access.counters=memory"]
    with running(tmp_path, *options) as site:
        statuses = {
            key: site.get("/v1/openapi.json", headers={"authorization": f"Bearer {key}"} if key else {}).status_code
            for key in ("", without, allowed)
        }
        assert list(statuses.values()) == [401, 403, 200]
        assert site.get("/docs", headers={"authorization": f"Bearer {allowed}"}).status_code == 404
    with running(tmp_path, "serving.api.openapi=false") as site:
        assert site.get("/v1/openapi.json").status_code == 404


@pytest.fixture(scope="module")
def document(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("document")
    store = FeedbackStore.of(StoreSettings().resolved(str(folder)))
    try:
        with running(folder, feedback=store) as site:
            found: dict[str, Any] = site.get("/v1/openapi.json").json()
    finally:
        if store is not None:
            store.close()
    return found


def test_the_document_names_every_route_and_the_errors_of_each(document: dict[str, Any]) -> None:
    assert document["info"]["version"] == API_VERSION
    assert set(document["paths"]) == {
        "/v1/generate", "/v1/improve", "/v1/chat/completions", "/v1/models", "/v1/models/{model}",
        "/v1/feedback", "/healthz",
    }  # fmt: skip
    for path, operations in document["paths"].items():
        for operation in operations.values():
            if path != "/healthz":
                assert operation["security"] == [{"key": []}]
                assert {"200", "401", "403", "429", "503"} <= set(operation["responses"])
            for status, response in operation["responses"].items():
                if int(status) >= 400 and path != "/healthz":
                    schema = response["content"]["application/json"]["schema"]
                    assert schema == {"$ref": "#/components/schemas/ErrorBody"}


def test_the_interface_changes_only_with_its_version(document: dict[str, Any]) -> None:
    """Where this fails on purpose, raise API_VERSION and write the file again: see the message."""
    if os.environ.get("LLUMI_WRITE_OPENAPI"):
        DOCUMENT.write_text(json.dumps(document, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    kept = json.loads(DOCUMENT.read_text(encoding="utf-8"))
    assert kept == document, (
        "the interface has changed: raise serving.api.API_VERSION (its first number where clients break), then "
        "LLUMI_WRITE_OPENAPI=1 pytest tests/serving/test_catalogue.py writes docs/openapi.json again"
    )


def test_the_examples_of_the_documentation_are_answered(tmp_path: Path) -> None:
    text = (DOCUMENT.parent / "api.md").read_text(encoding="utf-8")
    shown = re.findall(r"localhost:8000(\S+) .*?-d '(.*?)'\n", text, re.DOTALL)
    assert [route for route, _ in shown] == ["/v1/generate", "/v1/improve"]
    with running(tmp_path) as site:
        for route, body in shown:
            assert site.post(route, json.loads(body)).status_code == 200


def test_the_documentation_names_every_route(document: dict[str, Any]) -> None:
    text = (DOCUMENT.parent / "api.md").read_text(encoding="utf-8").replace("{id}", "{model}")
    assert not [path for path in document["paths"] if path not in text]
