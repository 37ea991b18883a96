"""Requests that schemathesis makes from the OpenAPI document: answers are what it says, and none is a 5xx."""

from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    response_schema_conformance,
    status_code_conformance,
)

from configs.store import StoreSettings
from serving.feedback.store import FeedbackStore
from tests.serving.running import Site, running

CHECKS: list[Any] = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
    negative_data_rejection,
]
ROUTES = [
    ("/v1/generate", "POST"),
    ("/v1/improve", "POST"),
    ("/v1/chat/completions", "POST"),
    ("/v1/feedback", "POST"),
    ("/v1/models", "GET"),
    ("/v1/models/{model}", "GET"),
    ("/healthz", "GET"),
]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("schema")
    store = FeedbackStore.of(StoreSettings().resolved(str(folder)))
    assert store is not None
    try:
        with running(folder, "serving.api.max_drafts=16", feedback=store) as site:
            yield site
    finally:
        store.close()


@pytest.fixture(scope="module")
def document(site: Site) -> Any:
    """Without keys, which nobody is asked for here: whom a wrong one keeps out is tested elsewhere."""
    described = site.get("/v1/openapi.json").json()
    for operations in described["paths"].values():
        for operation in operations.values():
            operation.pop("security", None)
    schema = schemathesis.openapi.from_dict(described)
    schema.config.update(base_url=site.url)
    return schema


def test_every_route_of_the_document_is_tried(document: Any) -> None:
    assert sorted(ROUTES) == sorted((one.ok().path, one.ok().method.upper()) for one in document.get_all_operations())


@pytest.mark.parametrize(("path", "method"), ROUTES)
def test_answers_are_what_the_document_says(document: Any, path: str, method: str) -> None:
    try_out(document[path][method], GenerationMode.POSITIVE)


@pytest.mark.parametrize(("path", "method"), [route for route in ROUTES if route[1] == "POST"])
def test_what_the_document_rules_out_is_refused(document: Any, path: str, method: str) -> None:
    try_out(document[path][method], GenerationMode.NEGATIVE)


def try_out(operation: Any, mode: GenerationMode) -> None:
    """Send what schemathesis makes of an operation, the same in every run."""

    @settings(
        max_examples=80,
        deadline=None,
        database=None,
        derandomize=True,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate],
    )
    @given(case=operation.as_strategy(generation_mode=mode))
    def tried(case: Any) -> None:
        case.call_and_validate(checks=CHECKS)

    tried()
