"""Every error of the application in one shape, and which of them the interface's document names."""

from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from serving.bodies import ErrorBody
from serving.middleware import answer
from serving.wire import FIELDS, ApiError, error_body, invalid_body

MEANINGS = {
    400: "The body is no JSON object, or the text does not fit into the model's context.",
    401: "No key, or one that is not valid.",
    403: "The key lacks the scope.",
    404: "There is no such thing.",
    405: "The route takes another method; `Allow` names it.",
    408: "The body did not arrive in time.",
    409: "More than one caller used this request id.",
    413: "The body is too large.",
    422: "A field is missing, unknown, empty, too long or out of its bounds; `param` names it.",
    429: "The key's limit is reached; `Retry-After` says when to try again.",
    500: "The service failed.",
    503: "Overloaded or not there at the moment; `Retry-After` says when to try again.",
    504: "No answer within the time limit.",
}
ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"model": ErrorBody, "description": text} for status, text in MEANINGS.items() if status not in (404, 409)
}
"""What a route that writes may answer beside 200."""
NOT_FOUND: dict[int | str, dict[str, Any]] = {404: {"model": ErrorBody, "description": MEANINGS[404]}}
FEEDBACK: dict[int | str, dict[str, Any]] = {
    **ERRORS,
    **NOT_FOUND,
    409: {"model": ErrorBody, "description": MEANINGS[409]},
}
"""What /v1/feedback may answer beside 200."""
READING: dict[int | str, dict[str, Any]] = {status: ERRORS[status] for status in (400, 401, 403, 405, 429, 500, 503)}
"""What a route that only tells something may answer beside 200."""
TEXTS = {"post", "draft", *FIELDS.values()}
"""Fields of the native interface that are messages in OpenAI's."""
ROUTING = {
    400: ("the body must be a JSON object, sent as application/json", "invalid_json"),
    404: ("there is no such route", "not_found"),
    405: ("the route takes another method", "method"),
}
"""Errors that FastAPI and Starlette raise by themselves."""


def add_errors(api: FastAPI) -> None:
    """Handlers for what routes raise, none of which repeats what the client sent."""

    @api.exception_handler(ApiError)
    async def known(request: Request, error: ApiError) -> JSONResponse:
        return answer(in_chat(error) if of_chat(request) else error)

    @api.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        return answer(invalid_body(error.errors(), 400 if of_chat(request) else 422))

    @api.exception_handler(HTTPException)
    async def by_status(request: Request, error: HTTPException) -> JSONResponse:
        message, code = ROUTING.get(error.status_code, ("the request cannot be served", "http_error"))
        body = error_body(message, "invalid_request_error", None, code)
        return JSONResponse(body, error.status_code, error.headers)


def of_chat(request: Request) -> bool:
    """Whether OpenAI's interface was asked, whose answer to what does not fit is 400."""
    return request.url.path.startswith("/v1/chat/")


def in_chat(error: ApiError) -> ApiError:
    """The same in its words: post and draft are messages there."""
    if error.body["error"]["param"] in TEXTS:
        error.body["error"]["param"] = "messages"
    error.status = 400 if error.status == 422 else error.status
    return error
