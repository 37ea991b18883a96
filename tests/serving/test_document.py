"""The document for ``serve deploy`` and RayService, and the application that it builds."""

import json
from typing import Any

import pytest
import yaml
from pydantic import BaseModel, ValidationError
from ray.serve._private.api import call_user_app_builder_with_args_if_necessary
from ray.serve._private.build_app import build_app
from ray.serve.schema import ServeDeploySchema

from configs.errors import UsageError
from configs.load import load
from configs.settings import Settings
from serving.app import APP, build, build_model
from serving.document import IMPORT_PATH, MODEL_IMPORT_PATH, serve_document
from serving.routes import Routes


@pytest.fixture(scope="module")
def production() -> Settings:
    return load("production")


def unknown_keys(model: type[BaseModel], value: dict[str, Any], at: str = "") -> list[str]:
    """Keys that Serve's schema, which takes anything, does not know."""
    found = [f"{at}{key}" for key in value if key not in model.model_fields]
    for key, field in model.model_fields.items():
        for kind in [field.annotation, *getattr(field.annotation, "__args__", ())]:
            if isinstance(kind, type) and issubclass(kind, BaseModel) and key in value:
                parts = value[key] if isinstance(value[key], list) else [value[key]]
                found += [name for part in parts for name in unknown_keys(kind, part, f"{at}{key}.")]
    return found


def test_serve_knows_every_key_and_value(production: Settings) -> None:
    document = serve_document(production)
    assert unknown_keys(ServeDeploySchema, document) == []
    assert unknown_keys(ServeDeploySchema, {**document, "htpp_options": {}}) == ["htpp_options"]
    schema = ServeDeploySchema.model_validate(document)
    assert schema.http_options.host == "127.0.0.1"
    paths = {part.name: part.import_path for part in schema.applications}
    assert paths == {"llumi-gm": MODEL_IMPORT_PATH, "llumi-im": MODEL_IMPORT_PATH, APP: IMPORT_PATH}


def test_the_document_is_plain_json_and_yaml(production: Settings) -> None:
    document = serve_document(production)
    assert json.loads(json.dumps(document)) == document
    assert yaml.safe_load(yaml.safe_dump(document)) == document


def application(document: dict[str, Any], name: str) -> dict[str, Any]:
    found: dict[str, Any] = next(part for part in document["applications"] if part["name"] == name)
    return found


def test_the_models_are_those_of_the_output(production: Settings) -> None:
    document = serve_document(production)
    for name in ("gm", "im"):
        assert application(document, f"llumi-{name}")["args"]["models"] == {
            name: f"/mnt/llumi/production/models/{name}"
        }


def test_models_may_lie_in_a_store() -> None:
    settings = load("production", ["serving.topology.locations.gm=s3://models/llumi/gm"])
    document = serve_document(settings)
    assert application(document, "llumi-gm")["args"]["models"] == {"gm": "s3://models/llumi/gm"}
    assert application(document, "llumi-im")["args"]["models"] == {"im": "/mnt/llumi/production/models/im"}


def test_all_requests_of_a_model_go_to_its_own_deployment(production: Settings) -> None:
    (ingress,) = application(serve_document(production), APP)["deployments"]
    routes = Routes.model_validate(ingress["user_config"])
    for name in ("gm", "im"):
        (route,) = routes.of(name)
        assert (route.app, route.deployment, route.share) == (f"llumi-{name}", name, 1.0)


def test_one_deployment_holds_both_adapters_where_they_share_the_base() -> None:
    settings = load("production", ["serving.topology.kind=shared", "serving.topology.models.gpus=0.5"])
    document = serve_document(settings)
    assert [part["name"] for part in document["applications"]] == ["llumi-models", APP]
    args = application(document, "llumi-models")["args"]
    assert args["base"] == "mistralai/Mistral-7B-Instruct-v0.2"
    assert set(args["models"]) == {"gm", "im"}
    (deployment,) = build_app(built(document, "llumi-models"), name="llumi-models").deployments
    assert deployment.name == "models"
    assert deployment.ray_actor_options["num_gpus"] == 0.5
    routes = Routes.model_validate(application(document, APP)["deployments"][0]["user_config"])
    assert {(route.app, route.deployment) for route in (*routes.gm, *routes.im)} == {("llumi-models", "models")}


def test_a_change_of_one_model_touches_no_other_application(production: Settings) -> None:
    other = load("production", ["serving.topology.locations.gm=/mnt/other/gm"])
    before, after = serve_document(production), serve_document(other)
    assert application(before, "llumi-gm")["args"] != application(after, "llumi-gm")["args"]
    assert application(before, "llumi-im") == application(after, "llumi-im")
    assert application(before, APP)["args"] == application(after, APP)["args"]


def test_the_address_may_be_left_to_what_stands_around_it(production: Settings) -> None:
    assert serve_document(production, host="0.0.0.0")["http_options"]["host"] == "0.0.0.0"


def test_an_address_open_to_others_needs_access_control_whoever_sets_it(production: Settings) -> None:
    for changes, host in (({"host": "0.0.0.0"}, None), ({}, "0.0.0.0")):
        serving = production.serving.model_copy(update={"auth": "none", **changes})
        with pytest.raises(UsageError, match=r"serving\.auth"):
            serve_document(production.model_copy(update={"serving": serving}), host=host)


def built(document: dict[str, Any], name: str) -> Any:
    """One application, as Serve builds it from the document."""
    builder = {IMPORT_PATH: build, MODEL_IMPORT_PATH: build_model}
    part = application(document, name)
    return call_user_app_builder_with_args_if_necessary(builder[part["import_path"]], part["args"])


def test_the_documents_arguments_build_the_applications_as_serve_would(production: Settings) -> None:
    document = serve_document(production)
    for name in ("ingress", "gm", "im"):
        app = APP if name == "ingress" else f"llumi-{name}"
        (deployment,) = build_app(built(document, app), name=app).deployments
        wanted = getattr(production.serving, name)
        asked = {"num_cpus": wanted.cpus, "label_selector": {"llumi/pool": "serve"}}
        assert deployment.name == name
        assert deployment.ray_actor_options == asked | ({"num_gpus": wanted.gpus} if wanted.gpus else {})
        scaling = deployment._deployment_config.autoscaling_config
        assert (scaling.min_replicas, scaling.max_replicas) == (wanted.min_replicas, wanted.max_replicas)
        assert scaling.target_ongoing_requests == wanted.target_ongoing_requests
        if name != "ingress":
            assert deployment.max_ongoing_requests == wanted.max_ongoing_requests
            assert deployment.max_queued_requests == wanted.max_queued_requests


def test_each_model_scales_on_its_own_and_spreads_over_nodes() -> None:
    changed = ["im.max_replicas=5", "im.min_replicas=3", "im.max_replicas_per_node=1", "gm.min_replicas=0"]
    document = serve_document(load("demo", [f"serving.{part}" for part in changed]))
    (gm,) = build_app(built(document, "llumi-gm"), name="llumi-gm").deployments
    (im,) = build_app(built(document, "llumi-im"), name="llumi-im").deployments
    limits = {d.name: d._deployment_config.autoscaling_config for d in (gm, im)}
    assert (limits["gm"].min_replicas, limits["gm"].max_replicas) == (0, 1)
    assert (limits["im"].min_replicas, limits["im"].max_replicas) == (3, 5)
    assert (gm._replica_config.max_replicas_per_node, im._replica_config.max_replicas_per_node) == (None, 1)


def test_an_ingress_of_which_only_some_is_set_keeps_its_own_defaults(production: Settings) -> None:
    assert production.serving.ingress.max_ongoing_requests == 256
    assert production.serving.gm.max_ongoing_requests == 32


def test_an_unknown_argument_is_refused() -> None:
    with pytest.raises(ValidationError, match="modles"):
        call_user_app_builder_with_args_if_necessary(build_model, {"deployment": "gm", "modles": {"gm": "/a"}})
