"""One line of JSON a request, in the log of its replica: who asked for what, when, how it ended. No text.

What the route and the middlewares know of a request they leave in its state: ``request_id``,
``caller`` (who has an ``id``), ``usage``, ``model``, ``risk`` (who has a ``level``), ``code`` (of an error).
A path that matched no route is not shown: it is the client's text.
"""

import json
from datetime import UTC, datetime
from typing import Any

from starlette.types import Scope

from serving.watching.metrics import name

GONE = 499
"""Status of a request whose client went away before the answer, as nginx writes it."""


def line(scope: Scope, status: int, seconds: float, first_byte: float | None = None) -> str:
    """The line of one request; ``status`` is 0 where the client went away, ``seconds`` since it came in.

    ``first_byte``: seconds until the first byte of a body was sent.
    """
    state: dict[str, Any] = scope["state"]
    usage, caller, risk = state.get("usage"), state.get("caller"), state.get("risk")
    fields = {
        "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
        "request_id": state["request_id"],
        "key_id": getattr(caller, "id", None),
        "route": route_of(scope),
        "method": name(scope["method"]),
        "status": status or GONE,
        "code": state.get("code"),
        "ms": milliseconds(seconds),
        "first_byte_ms": milliseconds(first_byte),
        "model": state.get("model"),
        "prompt_tokens": usage.prompt_tokens if usage else None,
        "new_tokens": usage.new_tokens if usage else None,
        "risk": getattr(risk, "level", risk),
    }
    return json.dumps(fields)


def route_of(scope: Scope) -> str | None:
    """The template of the route that answered, None where none matched."""
    return getattr(scope.get("route"), "path", None)


def milliseconds(seconds: float | None) -> float | None:
    """To a tenth."""
    return None if seconds is None else round(1000 * seconds, 1)
