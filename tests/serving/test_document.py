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
from serving.app import APP, AppArgs, ModelPaths, build
from serving.document import IMPORT_PATH, serve_document


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
    assert schema.applications[0].import_path == IMPORT_PATH


def test_the_document_is_plain_json_and_yaml(production: Settings) -> None:
    document = serve_document(production)
    assert json.loads(json.dumps(document)) == document
    assert yaml.safe_load(yaml.safe_dump(document)) == document


def test_the_models_are_those_of_the_output(production: Settings) -> None:
    args = serve_document(production)["applications"][0]["args"]
    assert args["models"] == {"gm": "/mnt/llumi/production/models/gm", "im": "/mnt/llumi/production/models/im"}


def test_the_address_may_be_left_to_what_stands_around_it(production: Settings) -> None:
    opened = production.model_copy(update={"serving": production.serving.model_copy(update={"host": "0.0.0.0"})})
    with pytest.raises(UsageError):
        serve_document(opened)
    assert serve_document(production, host="0.0.0.0")["http_options"]["host"] == "0.0.0.0"


def test_the_documents_arguments_build_the_application_as_serve_would(production: Settings) -> None:
    args = serve_document(production)["applications"][0]["args"]
    application = call_user_app_builder_with_args_if_necessary(build, args)
    built = build_app(application, name=APP)
    options = {deployment.name: deployment for deployment in built.deployments}
    assert sorted(options) == ["gm", "im", "ingress"]
    assert built.ingress_deployment_name == "ingress"
    for name in ("gm", "im"):
        wanted = getattr(production.serving, name)
        assert options[name].ray_actor_options == {
            "num_cpus": wanted.cpus,
            "num_gpus": wanted.gpus,
            "label_selector": {"llumi/pool": "serve"},
        }
        scaling = options[name]._deployment_config.autoscaling_config
        assert (scaling.min_replicas, scaling.max_replicas) == (wanted.min_replicas, wanted.max_replicas)
        assert scaling.target_ongoing_requests == wanted.target_ongoing_requests
        assert options[name].max_ongoing_requests == wanted.max_ongoing_requests
        assert options[name].max_queued_requests == wanted.max_queued_requests


def test_each_model_scales_on_its_own() -> None:
    settings = load("demo", ["serving.im.max_replicas=5", "serving.im.min_replicas=3"])
    args = AppArgs(models=ModelPaths(gm="/a", im="/b"), serving=settings.serving)
    built = build_app(build(args), name=APP)
    limits = {d.name: d._deployment_config.autoscaling_config.max_replicas for d in built.deployments}
    assert (limits["gm"], limits["im"]) == (1, 5)


def test_an_unknown_argument_is_refused() -> None:
    with pytest.raises(ValidationError, match="modles"):
        call_user_app_builder_with_args_if_necessary(build, {"modles": {"gm": "/a", "im": "/b"}})
