"""The HTTP surface: routes, and every error as JSON.

    POST /v1/generate  {"post": {"title", "text"}}           -> {"draft", ...}
    POST /v1/improve   {"post": {"title", "text"}, "draft"}  -> {"revision", ...}
    GET  /healthz                                            -> 200 or 503

The interactive documentation is off: it would be open to everybody.
"""

import asyncio
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from configs.prompts import messages
from configs.serving import ServingSettings
from configs.settings import PromptSettings
from pipelines.generation.engine import Messages, Piece
from serving.middleware import answer, surround
from serving.models import Model
from serving.wire import (
    ApiError,
    GenerateRequest,
    GenerateResponse,
    ImproveRequest,
    ImproveResponse,
    draft_text,
    error_body,
    invalid_body,
    post_text,
)


def create(gm: Model, im: Model, prompts: PromptSettings, serving: ServingSettings) -> FastAPI:
    """The application that one ingress replica runs."""
    api = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    surround(api, serving)
    add_routes(api, gm, im, prompts, serving.max_post_chars)
    add_errors(api)
    return api


def add_routes(api: FastAPI, gm: Model, im: Model, prompts: PromptSettings, limit: int) -> None:
    """The three routes."""

    @api.post("/v1/generate")
    async def generate(body: GenerateRequest, request: Request) -> GenerateResponse:
        prompt = messages(prompts.gm, post_text(body.post, limit))
        piece, common = await written(request, gm, prompt)
        return GenerateResponse(draft=piece.text, model="gm", **common)

    @api.post("/v1/improve")
    async def improve(body: ImproveRequest, request: Request) -> ImproveResponse:
        prompt = messages(prompts.im, post_text(body.post, limit), draft_text(body.draft, limit))
        piece, common = await written(request, im, prompt)
        return ImproveResponse(revision=piece.text, model="im", **common)

    @api.get("/healthz")
    async def healthz() -> JSONResponse:
        of_gm, of_im = await asyncio.gather(gm.health(), im.health())
        models = {"gm": of_gm, "im": of_im}
        well = "unavailable" not in models.values()
        return JSONResponse({"status": "ok" if well else "unavailable", "models": models}, 200 if well else 503)


async def written(request: Request, model: Model, prompt: Messages) -> tuple[Piece, dict[str, Any]]:
    """The model's answer, and what both responses say about it."""
    request_id = request.state.request_id
    piece = await model.write(request_id, prompt)
    request.state.usage = piece.usage  # for the access log
    return piece, {
        "request_id": request_id,
        "finish_reason": piece.finish_reason,
        "usage": piece.usage,
    }


def add_errors(api: FastAPI) -> None:
    """Every error in one shape, none with what the client sent."""

    @api.exception_handler(ApiError)
    async def known(request: Request, error: ApiError) -> JSONResponse:
        return answer(error)

    @api.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        return answer(invalid_body(error.errors()))

    @api.exception_handler(HTTPException)
    async def by_status(request: Request, error: HTTPException) -> JSONResponse:
        what = {404: ("there is no such route", "not_found"), 405: ("the route takes another method", "method")}
        message, code = what.get(error.status_code, ("the request cannot be served", "http_error"))
        body = error_body(message, "invalid_request_error", None, code)
        return JSONResponse(body, error.status_code, error.headers)
