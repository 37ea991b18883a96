"""The steps of a rollout as edits of the document that is deployed; on a real Serve they are in test_chaos."""

import copy
from typing import Any

import pytest

from configs.errors import UsageError
from configs.load import load
from serving import rollout
from serving.app import ModelPaths
from serving.arguments import APP, ModelArgs
from serving.document import serve_document
from serving.rollout import Document, application, canary_app, routes_of

NEW = "/models/new/gm"


@pytest.fixture
def document() -> Document:
    """Both models served, three replicas of gm at most."""
    made = serve_document(load("demo", ["serving.gm.max_replicas=3"]), ModelPaths(gm="/models/gm", im="/models/im"))
    return deployed(made)


def deployed(made: Document) -> Document:
    """As `llumi serve` deploys it."""
    return {"applications": [{"runtime_env": {"env_vars": {"A": "b"}}, **x} for x in made["applications"]]}


def names(document: Document) -> list[str]:
    return [part["name"] for part in document["applications"]]


def fewest(document: Document, app: str) -> int:
    (override,) = application(document, app)["deployments"]
    found: int = override["autoscaling_config"]["min_replicas"]
    return found


def shares(document: Document) -> list[tuple[str, float]]:
    return [(route.app, route.share) for route in routes_of(document).gm]


def test_a_new_version_is_loaded_before_it_gets_its_share(document: Document) -> None:
    loaded, divided = rollout.started(document, "gm", NEW, 0.1)
    assert loaded.wait_for == (canary_app("gm"),)
    assert shares(loaded.document) == [("llumi-gm", 1.0)]
    new = application(loaded.document, canary_app("gm"))
    assert new["runtime_env"] == {"env_vars": {"A": "b"}}
    args = ModelArgs.model_validate(new["args"])
    assert (args.models, args.deployment, args.replicas.min_replicas) == ({"gm": NEW}, "gm", 1)
    assert shares(divided.document) == [("llumi-gm", 0.9), (canary_app("gm"), 0.1)]
    assert routes_of(divided.document).gm[1].info["path"] == NEW


def test_no_step_of_a_share_touches_what_restarts_replicas(document: Document) -> None:
    """Serve restarts an application whose args, import path or environment change."""

    def restarting(of: Document) -> dict[str, Any]:
        keys = ("args", "import_path", "runtime_env")
        return {part["name"]: {key: part[key] for key in keys} for part in of["applications"]}

    steps = rollout.started(document, "gm", NEW, 0.1)
    promoted = rollout.promoted(steps[-1].document, "gm", replicas=2)
    back = rollout.taken_back(promoted[-1].document, "gm")
    for step in (*steps, *promoted, *back):
        assert {name: restarting(step.document)[name] for name in names(document)} == restarting(document)


def test_a_promoted_version_has_the_replicas_before_it_has_the_requests(document: Document) -> None:
    divided = rollout.started(document, "gm", NEW, 0.1)[-1].document
    grown, all_of_it = rollout.promoted(divided, "gm", replicas=3)
    assert fewest(grown.document, canary_app("gm")) == 3
    assert grown.wait_for == (canary_app("gm"),)
    assert shares(grown.document) == [("llumi-gm", 0.9), (canary_app("gm"), 0.1)]
    assert shares(all_of_it.document) == [("llumi-gm", 0.0), (canary_app("gm"), 1.0)]


def test_the_old_version_keeps_its_replicas_until_the_rollout_is_finished(document: Document) -> None:
    """Without requests it would scale down, and be too small for all of them when they come back."""
    divided = rollout.started(document, "gm", NEW, 0.1)[-1].document
    promoted = rollout.promoted(divided, "gm", replicas=3)[-1].document
    back = rollout.taken_back(promoted, "gm")[-1].document
    *before, last = rollout.finished(promoted, "gm")
    for held in (promoted, back, *(step.document for step in before)):
        assert fewest(held, "llumi-gm") == 3
    assert [fewest(ended, "llumi-gm") for ended in (last.document, rollout.finished(back, "gm")[-1].document)] == [1, 1]


def test_no_step_brings_numbers_of_replicas_to_an_application_that_had_none(document: Document) -> None:
    """Serve would start all its replicas anew."""
    bare = copy.deepcopy(document)
    for model in ("gm", "im"):
        del application(bare, f"llumi-{model}")["deployments"]
    for made, has in ((document, True), (bare, False)):
        steps = rollout.started(made, "gm", NEW, 0.1)
        steps += rollout.promoted(steps[-1].document, "gm", 2)
        steps += rollout.finished(steps[-1].document, "gm")
        assert {"deployments" in application(step.document, "llumi-gm") for step in steps} == {has}
        assert all("deployments" in application(step.document, canary_app("gm")) for step in steps[:-1])


def test_taking_back_is_one_step(document: Document) -> None:
    promoted = rollout.promoted(rollout.started(document, "gm", NEW, 0.5)[-1].document, "gm", 1)[-1].document
    (step,) = rollout.taken_back(promoted, "gm")
    assert shares(step.document) == [("llumi-gm", 1.0), (canary_app("gm"), 0.0)]
    assert canary_app("gm") in names(step.document)


def test_a_finished_rollout_leaves_the_document_of_a_service_of_the_new_version(document: Document) -> None:
    promoted = rollout.promoted(rollout.started(document, "gm", NEW, 0.5)[-1].document, "gm", 2)[-1].document
    renewed, settled, alone = rollout.finished(promoted, "gm")
    assert renewed.wait_for == ("llumi-gm",)
    assert application(renewed.document, "llumi-gm")["args"]["models"] == {"gm": NEW}
    assert shares(renewed.document) == [("llumi-gm", 0.0), (canary_app("gm"), 1.0)]
    assert shares(settled.document) == [("llumi-gm", 1.0)]
    assert canary_app("gm") in names(settled.document)
    wanted = serve_document(load("demo", ["serving.gm.max_replicas=3"]), ModelPaths(gm=NEW, im="/models/im"))
    assert alone.document == deployed(wanted)


def test_a_rollout_taken_back_and_finished_leaves_the_document_as_it_was(document: Document) -> None:
    back = rollout.taken_back(rollout.started(document, "gm", NEW, 0.5)[-1].document, "gm")[-1].document
    assert rollout.finished(back, "gm")[-1].document == document


def test_a_version_of_a_shared_base_is_rolled_out_alone() -> None:
    settings = load("demo", ["serving.topology.kind=shared"])
    both = serve_document(settings, ModelPaths(gm="/a/gm", im="/a/im", base="/base"))
    divided = rollout.started(both, "im", "/b/im", 0.2)[-1].document
    args = ModelArgs.model_validate(application(divided, canary_app("im"))["args"])
    assert (args.models, args.base, args.deployment) == ({"im": "/b/im"}, "/base", "im")
    ended = rollout.finished(rollout.promoted(divided, "im", 1)[-1].document, "im")[-1].document
    assert application(ended, "llumi-models")["args"]["models"] == {"gm": "/a/gm", "im": "/b/im"}


def test_steps_out_of_order_are_refused_with_the_way_out(document: Document) -> None:
    with pytest.raises(UsageError, match="llumi rollout start"):
        rollout.promoted(document, "gm", 1)
    with pytest.raises(UsageError, match="already"):
        rollout.started(document, "gm", "/models/gm", 0.1)
    divided = rollout.started(document, "gm", NEW, 0.1)[-1].document
    with pytest.raises(UsageError, match="under way"):
        rollout.started(divided, "gm", "/models/newest", 0.1)
    with pytest.raises(UsageError, match="promote it or take it back"):
        rollout.finished(divided, "gm")
    with pytest.raises(UsageError, match="0 to 1"):
        rollout.shared(divided, "gm", 1.5)
    with pytest.raises(UsageError, match="llumi serve"):
        rollout.standing({"applications": []})


def test_both_models_may_be_rolled_out_at_once(document: Document) -> None:
    one = rollout.started(document, "gm", NEW, 0.1)[-1].document
    two = rollout.started(one, "im", "/models/new/im", 0.3)[-1].document
    routes = rollout.standing(two)
    assert [route.share for route in routes["gm"]] == [0.9, 0.1]
    assert [route.share for route in routes["im"]] == [0.7, 0.3]
    assert application(two, APP)["args"] == application(document, APP)["args"]
