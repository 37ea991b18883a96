"""What a caller is told who may not come in: the reason, the header to send, and nothing about other keys."""

from math import ceil

from configs.access import Scope
from serving.wire import ApiError

CHALLENGE = 'Bearer realm="llumi"'
"""RFC 6750, section 3: told with every 401 and 403."""


def missing_credentials() -> ApiError:
    """No Authorization header."""
    return unauthorized("no API key was sent: send the header Authorization: Bearer KEY", "missing_api_key")


def malformed_credentials() -> ApiError:
    """An Authorization header that is not one bearer token, or more than one header."""
    message = "the request must have exactly one Authorization header, of the form: Authorization: Bearer KEY"
    return unauthorized(message, "invalid_authorization")


def invalid_credentials(what: str = "API key") -> ApiError:
    """Credentials that are unknown here."""
    return unauthorized(f"the {what} is not valid", "invalid_api_key", ', error="invalid_token"')


def ended_credentials(what: str, code: str) -> ApiError:
    """Credentials that once were valid; told only to who holds the whole secret."""
    return unauthorized(what, code, ', error="invalid_token"')


def unauthorized(message: str, code: str, reason: str = "") -> ApiError:
    """401; ``reason`` is added to the challenge."""
    headers = {"WWW-Authenticate": CHALLENGE + reason}
    return ApiError(401, message, code=code, kind="authentication_error", param="authorization", headers=headers)


def unknown_now(message: str) -> ApiError:
    """The keys cannot be looked up at the moment: nobody can be let in, and it is our fault."""
    return ApiError(503, message, code="auth_unavailable", kind="server_error", headers={"Retry-After": "5"})


def not_allowed(scope: Scope) -> ApiError:
    """A caller that is known and lacks the scope."""
    headers = {"WWW-Authenticate": CHALLENGE + f', error="insufficient_scope", scope="{scope}"'}
    message = f"this key lacks the scope {scope}"
    return ApiError(403, message, code="insufficient_scope", kind="permission_error", headers=headers)


def no_such_route() -> ApiError:
    """A path that is not in the table."""
    return ApiError(404, "there is no such route", code="not_found")


def wrong_method(allowed: tuple[str, ...]) -> ApiError:
    """A known path, asked in another way."""
    headers = {"Allow": ", ".join(allowed)}
    return ApiError(405, "the route takes another method", code="method", headers=headers)


def too_often(limit: int, retry_after_s: float) -> ApiError:
    """More requests in a minute than the caller has."""
    message = f"this key has {limit} requests a minute and used them"
    return limited(message, "rate_limit_exceeded", retry_after_s)


def too_many(limit: int, retry_after_s: float) -> ApiError:
    """More requests at once than the caller has."""
    message = f"this key has {limit} requests at once and all are in progress"
    return limited(message, "too_many_concurrent_requests", retry_after_s)


def limited(message: str, code: str, retry_after_s: float) -> ApiError:
    """429 with the seconds to wait, whole and at least one."""
    headers = {"Retry-After": str(max(1, ceil(retry_after_s)))}
    return ApiError(429, message, code=code, kind="rate_limit_error", headers=headers)


def too_slow(seconds: float) -> ApiError:
    """A body that did not arrive in time; the connection ends, for the rest of it would be taken for a request."""
    headers = {"Connection": "close"}
    return ApiError(408, f"the body did not arrive within {seconds:g} s", code="body_timeout", headers=headers)
