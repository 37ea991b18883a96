"""/v1/models: the two models as OpenAI's clients list them, and what each was made from.

The lineage comes from the manifest that lies beside the weights (or the ``lineage.json`` of an
export): code, settings, inputs, figures. It says nothing of where files lie on the servers.
"""

import asyncio
from datetime import datetime
from typing import Any, Literal

from fastapi import APIRouter
from pydantic import BaseModel, Field

from configs.training import ModelName
from serving.errors import ERRORS, NOT_FOUND, READING
from serving.lineage import lineage
from serving.services import Services
from serving.wire import ApiError

NAMES: dict[str, ModelName] = {"llumi-gm": "gm", "llumi-im": "im"}
"""Our models by the names that OpenAI's clients use."""
PURPOSE = {"gm": "drafts a reply to a post", "im": "revises a helper's draft of a reply to a post"}


class ModelBody(BaseModel):
    """One model."""

    id: str
    object: Literal["model"] = "model"
    created: int = Field(description="Seconds since 1970, UTC; 0 where it is not known.")
    owned_by: Literal["llumi"] = "llumi"
    purpose: str
    status: str = Field(description="ok, on demand (sleeps until it is asked) or unavailable.")
    version: str | None = Field(description="As answers carry it; that of most requests while one is rolled out.")
    manifest: str | None = Field(description="SHA-256 of the manifest of what is served.")
    lineage: dict[str, Any] | None = Field(description="What it was made from; null where that is not known.")


class ModelsBody(BaseModel):
    """Both models."""

    object: Literal["list"] = "list"
    data: list[ModelBody]


def router(services: Services) -> APIRouter:
    """The list and each entry."""
    routes = APIRouter(tags=["models"])

    @routes.head("/v1/models", include_in_schema=False)
    @routes.get("/v1/models", responses=READING, operation_id="list_models")
    async def models() -> ModelsBody:
        """Both models with their lineage."""
        return ModelsBody(data=list(await asyncio.gather(*(described(services, name) for name in NAMES))))

    @routes.head("/v1/models/{model}", include_in_schema=False)
    @routes.get(
        "/v1/models/{model}", responses={**READING, **NOT_FOUND, 422: ERRORS[422]}, operation_id="retrieve_model"
    )
    async def model(model: str) -> ModelBody:
        """One model with its lineage."""
        return await described(services, model)

    return routes


async def described(services: Services, model: str) -> ModelBody:
    """One model's entry."""
    name = known(model)
    served = services.model(name)
    status, info = await asyncio.gather(served.health(), served.info())
    made = info.get("made")
    return ModelBody(
        id=model,
        created=seconds(made.get("created")) if made else 0,
        purpose=PURPOSE[name],
        status=status,
        version=info.get("version"),
        manifest=info.get("manifest"),
        lineage=await asyncio.to_thread(lineage, info),
    )


def known(model: str) -> ModelName:
    """Ours by OpenAI's name; raises ApiError 404 for another."""
    if model not in NAMES:
        message = f"there is no such model; here are {' and '.join(NAMES)}"
        raise ApiError(404, message, code="model_not_found", param="model")
    return NAMES[model]


def seconds(created: Any) -> int:
    """ISO 8601 as seconds since 1970; 0 for what is none."""
    try:
        return int(datetime.fromisoformat(created).timestamp())
    except (TypeError, ValueError):
        return 0
