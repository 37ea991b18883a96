"""A new version of a model beside the one that runs: by share, to all, and back at once.

    start     load the new version in an application of its own, then give it a share of the requests
    share     move the share
    promote   give it all requests; the old version stays loaded
    back      give it none, at once; it stays loaded
    finish    settle: the version that has the requests becomes the model's own, the other goes

Every step is an edit of the document that the Serve which runs was deployed from, so that a step
outlives whoever took it, and a half-done rollout is seen in the document. Shares are the ingress'
``user_config``, which Serve hands to its replicas without restarting anything; a version that gets
no more requests is taken down only once every ingress replica knows, and drains. A share of 0 to
1 is of requests by their id, so all drafts of a request are of one version.
"""

import copy
from dataclasses import dataclass
from typing import Any

from configs.errors import EngineError, UsageError
from configs.topology import DeploymentSettings
from configs.training import MODELS, ModelName
from serving.arguments import APP, AppArgs, ModelArgs, app_of
from serving.document import model_application, scaled
from serving.routes import Route, Routes

Document = dict[str, Any]


@dataclass(frozen=True)
class Step:
    """One document to apply, and the applications that must run before the next one."""

    document: Document
    wait_for: tuple[str, ...]


def canary_app(model: ModelName) -> str:
    """Name of the application that holds a model's new version."""
    return f"{app_of(model)}-canary"


def started(document: Document, model: ModelName, location: str, share: float) -> list[Step]:
    """Load ``location`` beside the model that runs, then give it ``share`` of the requests.

    Raises UsageError where a rollout of the model is under way, or the location is what runs already.
    """
    routes = routes_of(document)
    own = routes.of(model)[0]
    if len(routes.of(model)) > 1:
        raise UsageError(f"a rollout of {model} is under way: finish it, or take it back and finish it, first")
    if own.info.get("path") == location:
        raise UsageError(f"{model} is served from {location} already; roll out another folder")
    loaded, app = copy.deepcopy(document), canary_app(model)
    replicas = AppArgs.model_validate(application(document, APP)["args"]).serving.topology.canary
    loaded["applications"].append(canary(application(document, own.app), model, location, replicas))
    info = {**{key: value for key, value in own.info.items() if key == "base"}, "path": location}
    new = Route(app=app, deployment=model, share=0.0, info=info)
    with_route = routed(loaded, model, (own, new))
    return [Step(loaded, (app,)), Step(shared(with_route, model, share), (APP,))]


def shared(document: Document, model: ModelName, share: float) -> Document:
    """The document with ``share`` of the model's requests to its new version."""
    own, new = both(document, model)
    if not 0 <= share <= 1:
        raise UsageError(f"a share is from 0 to 1, not {share:g}")
    return routed(document, model, (with_share(own, 1.0 - share), with_share(new, share)))


def promoted(document: Document, model: ModelName, replicas: int) -> list[Step]:
    """Have the new version at as many ``replicas`` as the old one runs, then give it all requests.

    The old one keeps its own for as long as it may be needed again: without requests it would scale down.
    """
    own, new = both(document, model)
    grown = copy.deepcopy(document)
    for part in (application(grown, new.app), application(grown, own.app)):
        if "deployments" in part:  # else every replica would start anew
            part["deployments"] = scaled(args_of(part), fewest=replicas)
    return [Step(grown, (new.app,)), Step(shared(grown, model, 1.0), (APP,))]


def taken_back(document: Document, model: ModelName) -> list[Step]:
    """Give the new version no more requests."""
    return [Step(shared(document, model, 0.0), (APP,))]


def finished(document: Document, model: ModelName) -> list[Step]:
    """Settle on the version that has all requests; raises UsageError where they are still divided."""
    own, new = both(document, model)
    if new.share not in (0.0, 1.0):
        raise UsageError(
            f"{new.share:.0%} of {model}'s requests go to its new version: promote it or take it back first"
        )
    steps, settled = [], copy.deepcopy(document)
    if new.share == 1.0:
        application(settled, own.app)["args"]["models"][model] = new.info["path"]
        steps.append(Step(copy.deepcopy(settled), (own.app,)))
        own = own.model_copy(update={"info": new.info})
    settled = routed(settled, model, (with_share(own, 1.0),))
    steps.append(Step(copy.deepcopy(settled), (APP,)))
    part = application(settled, own.app)
    if "deployments" in part:
        part["deployments"] = scaled(args_of(part))
    settled["applications"] = [part for part in settled["applications"] if part["name"] != new.app]
    steps.append(Step(settled, (APP,)))
    return steps


def without(document: Document, model: ModelName) -> Document:
    """The document without a new version that did not come up."""
    kept = routed(document, model, (with_share(routes_of(document).of(model)[0], 1.0),))
    kept["applications"] = [part for part in kept["applications"] if part["name"] != canary_app(model)]
    return kept


def standing(document: Document) -> dict[ModelName, tuple[Route, ...]]:
    """Each model's versions."""
    routes = routes_of(document)
    return {model: routes.of(model) for model in MODELS}


def routes_of(document: Document) -> Routes:
    """The routes in the document; raises UsageError where it is not one of ours."""
    for part in application(document, APP).get("deployments", []):
        if part["name"] == "ingress" and part.get("user_config"):
            return Routes.model_validate(part["user_config"])
    raise UsageError("the service that runs was deployed without routes; start it again with `llumi serve`")


def both(document: Document, model: ModelName) -> tuple[Route, Route]:
    """A model's own version and its new one; raises UsageError where no rollout is under way."""
    routes = routes_of(document).of(model)
    if len(routes) < 2:
        raise UsageError(f"no rollout of {model} is under way: begin with `llumi rollout start CONFIG --model {model}`")
    return routes[0], routes[1]


def routed(document: Document, model: ModelName, routes: tuple[Route, ...]) -> Document:
    """The document with these routes of one model."""
    changed = copy.deepcopy(document)
    ingress = next(part for part in application(changed, APP)["deployments"] if part["name"] == "ingress")
    ingress["user_config"] = {**ingress["user_config"], model: [route.model_dump(mode="json") for route in routes]}
    return changed


def with_share(route: Route, share: float) -> Route:
    """The route with another share, free of what binary fractions leave over."""
    return route.model_copy(update={"share": round(share, 6)})


def application(document: Document, name: str) -> dict[str, Any]:
    """One application of the document; raises UsageError where it is not there."""
    for part in document["applications"]:
        if part["name"] == name:
            found: dict[str, Any] = part
            return found
    raise UsageError(f"no service of LLUMI runs there: the application {name} is missing; start it with `llumi serve`")


def args_of(part: dict[str, Any]) -> ModelArgs:
    """What an application of models was built from."""
    return ModelArgs.model_validate(part["args"])


def canary(own: dict[str, Any], model: ModelName, location: str, replicas: DeploymentSettings | None) -> dict[str, Any]:
    """The application of a new version: as the model's own, from ``location``, beginning with one replica."""
    args = args_of(own)
    replicas = replicas or args.replicas.model_copy(update={"min_replicas": 1})
    new = args.model_copy(update={"deployment": model, "models": {model: location}, "replicas": replicas})
    environment = {"runtime_env": own["runtime_env"]} if "runtime_env" in own else {}
    return {**model_application(new, canary_app(model)), **environment}


def run(steps: list[Step], model: ModelName, before: Document, timeout_s: float) -> None:
    """Apply one step after the other; a new version that does not come up is taken away again."""
    from serving.service import apply

    for step in steps:
        try:
            apply(step.document, step.wait_for, timeout_s)
        except EngineError as error:
            if canary_app(model) not in step.wait_for or len(routes_of(before).of(model)) > 1:
                raise
            apply(without(step.document, model), (APP,), timeout_s)
            raise EngineError(f"the new version did not come up and was taken away, {model} runs on: {error}") from None
