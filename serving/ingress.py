"""The deployment ``ingress``: HTTP in front of GM and IM."""

import asyncio
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from ray import serve

from serving import sources
from serving.api import create
from serving.arguments import AppArgs, replicas_of
from serving.feedback.store import FeedbackStore
from serving.models import Model
from serving.retrieval import Retrieval
from serving.routes import Route, Routes
from serving.services import Services
from serving.watching.recent import Seen


@serve.deployment(logging_config={"enable_access_log": False})
@serve.ingress()
class Ingress:
    """Builds the application in the replica; which versions of the models it asks can change while it runs."""

    def __init__(self, args: AppArgs):
        from serving.watching import traces

        self.args = args
        traces.setup(args.serving.watching.traces, "ingress")
        self.models = {name: self._model(name) for name in ("gm", "im")}

    def _model(self, name: str) -> Model:
        serving = self.args.serving
        replicas = replicas_of(serving)
        on_demand = replicas.get(name, replicas.get("models", serving.gm)).min_replicas == 0
        return Model(name, timeout_s=serving.request_timeout_s, on_demand=on_demand)

    async def reconfigure(self, user_config: dict[str, Any]) -> None:
        """Called by Serve with the routes, first and whenever they change."""
        routes = Routes.model_validate(user_config)
        for name, model in self.models.items():
            model.route(await asyncio.to_thread(described, routes.of(name)))

    async def seen(self, seconds: float) -> Seen:
        """What this replica counted in the last ``seconds``; ``llumi status`` asks for it."""
        from serving.watching.metrics import metrics

        return metrics().seen(seconds)

    async def standing(self) -> dict[str, list[dict[str, Any]]]:
        """Each model's versions as this replica gives requests to them; ``llumi status`` asks for it."""
        return {
            name: [
                {"app": route.app, "deployment": route.deployment, "share": route.share}
                | {key: route.info.get(key) for key in ("version", "path")}
                for route in model.routes
            ]
            for name, model in self.models.items()
        }

    def __serve_build_asgi_app__(self) -> FastAPI:
        """Called by Serve once the constructor has returned."""
        serving = self.args.serving
        services = Services.of(
            self.models["gm"],
            self.models["im"],
            serving=serving,
            generation=self.args.generation,
            prompts=self.args.prompts,
            retrieval=self._retrieval(),
            feedback=FeedbackStore.of(serving.feedback),
        )
        return create(services)

    def _retrieval(self) -> Retrieval | None:
        index = self.args.index
        if index is None:
            return None
        return Retrieval.open(Path(index.folder), index.retrieval, self.args.serving.api, index.tokenizer)


def described(routes: tuple[Route, ...]) -> list[Route]:
    """The routes with all that can be known here of the models behind them."""
    return [route.model_copy(update={"info": {**sources.about(route.info["path"]), **route.info}}) for route in routes]
