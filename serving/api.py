"""The HTTP application: routes, what surrounds them, and the document that describes them.

    POST /v1/generate, /v1/improve     the native interface        serving.native
    POST /v1/chat/completions          OpenAI's                    serving.openai
    GET  /v1/models, /v1/models/{id}   with lineage                serving.catalogue
    POST /v1/feedback                  where a store is there      serving.feedback.routes
    GET  /v1/openapi.json                 for callers with the scope ``docs``
    GET  /healthz                      open, says ok or unavailable and nothing else
    GET  /                             the playground, where it is switched on

FastAPI's own pages of documentation are off: they load scripts from elsewhere.
"""

import asyncio

from fastapi import APIRouter, FastAPI, Security
from fastapi.responses import JSONResponse
from fastapi.security import HTTPBearer

from serving import catalogue, native, openai
from serving.errors import FEEDBACK, add_errors
from serving.feedback import routes as feedback
from serving.middleware import surround
from serving.playground import routes as playground
from serving.services import Services

API_VERSION = "1.0.1"
"""Of the interface: the first number changes with what breaks clients, the second with what is new."""
DESCRIPTION = (
    "Drafts of supportive replies to posts, and revisions of helpers' drafts. Drafts go to a human helper who "
    "reads, changes and sends them, never straight to a person at risk. Every answer carries `risk`; where "
    "`resources_required` is true the caller must show local crisis resources."
)

KEY = Security(HTTPBearer(scheme_name="key", description="A key, by `llumi keys create`.", auto_error=False))
"""For the document alone: who may call is settled before a route is reached."""


def create(services: Services) -> FastAPI:
    """The application that one ingress replica runs."""
    document = "/v1/openapi.json" if services.serving.api.openapi else None
    api = FastAPI(
        title="LLUMI",
        version=API_VERSION,
        description=DESCRIPTION,
        docs_url=None,
        redoc_url=None,
        openapi_url=document,
    )
    surround(api, services.serving)
    for router in (native.router(services), openai.router(services), catalogue.router(services)):
        api.include_router(router, dependencies=[KEY])
    if services.feedback is not None:
        route = feedback.router(services.feedback)
        api.include_router(route, tags=["feedback"], responses=FEEDBACK, dependencies=[KEY])
    if services.serving.playground:
        api.include_router(playground_of(services))
    add_health(api, services)
    add_errors(api)
    return api


def playground_of(services: Services) -> APIRouter:
    """The playground under this configuration."""
    serving = services.serving
    return playground.router(
        needs_key=serving.auth != "none",
        max_chars=serving.max_post_chars,
        ratings=services.feedback is not None,
        resources=serving.crisis_resources,
    )


def add_health(api: FastAPI, services: Services) -> None:
    """The one route that anybody may ask: 200 where both models can be asked, else 503."""

    @api.head("/healthz", include_in_schema=False)
    @api.get("/healthz", operation_id="health", responses={503: {"description": "A model is not available."}})
    async def healthz() -> JSONResponse:
        """Whether the service can answer."""
        found = await asyncio.gather(services.gm.health(), services.im.health())
        well = "unavailable" not in found
        return JSONResponse({"status": "ok" if well else "unavailable"}, 200 if well else 503)
