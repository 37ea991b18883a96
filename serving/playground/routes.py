"""The playground's files over HTTP: an exact list of paths, read once, nothing else reachable.

The files are the same for everybody and hold no secret, so they are open where the playground is
switched on; everything that the page then asks of ``/v1`` goes through access control like any
other client. The page may load from its own origin only and inserts text as text: the
Content-Security-Policy refuses inline script, foreign hosts, framing, and (Trusted Types) every
way from a string to markup. Nothing is kept by browsers or proxies between.
"""

import json
from collections.abc import Awaitable, Callable, Sequence
from importlib.resources import files

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

PAGE = "index.html"
FILES = {
    "index.html": "text/html",
    "page.css": "text/css",
    "icon.svg": "image/svg+xml",
    "page.js": "text/javascript",
    "work.js": "text/javascript",
    "service.js": "text/javascript",
    "dom.js": "text/javascript",
    "key.js": "text/javascript",
    "risk.js": "text/javascript",
    "changes.js": "text/javascript",
    "rating.js": "text/javascript",
}
"""The files and what they are."""
PATHS = ("/", *(f"/playground/{name}" for name in FILES if name != PAGE), "/playground/settings.json")
"""Every path of the playground; GET and HEAD of these need no key."""
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
        "require-trusted-types-for 'script'; trusted-types 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
"""Sent with every file."""


def router(*, needs_key: bool, max_chars: int, ratings: bool, resources: Sequence[str] = ()) -> APIRouter:
    """The playground's routes.

    ``needs_key`` says whether the page asks for a key, ``max_chars`` is the longest post or reply
    taken, in characters, ``ratings`` whether /v1/feedback takes some, ``resources`` are the lines
    shown where an answer says ``resources_required``.
    """
    routes = APIRouter()
    settings = {"needs_key": needs_key, "max_chars": max_chars, "ratings": ratings, "resources": list(resources)}
    contents = {"/playground/settings.json": (json.dumps(settings).encode(), "application/json")}
    for name, media_type in FILES.items():
        path = "/" if name == PAGE else f"/playground/{name}"
        contents[path] = ((files("serving.playground") / "page" / name).read_bytes(), media_type)
    for path, (content, media_type) in contents.items():
        routes.add_route(path, sender(content, media_type), methods=["GET"], include_in_schema=False)
    return routes


def sender(content: bytes, media_type: str) -> Callable[[Request], Awaitable[Response]]:
    """A route that answers with one file."""

    async def send(request: Request) -> Response:
        return Response(content, media_type=media_type, headers=HEADERS)

    return send
