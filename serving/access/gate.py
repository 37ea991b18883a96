"""Who is let in, decided by the request's line and headers alone: no byte of a body is read before.

Deny by default: a path that is not in the table of ``serving.access.scopes`` exists for nobody,
and of what is in it only health and the playground's files are open. WebSockets are refused: the
service has none, and a handshake must not be a second way in.
"""

import re
from collections.abc import Awaitable, Callable
from pathlib import Path

from starlette.types import ASGIApp, Receive, Scope, Send

from configs.errors import UsageError
from configs.serving import ServingSettings
from serving.access import errors
from serving.access.caller import LOCAL, NOBODY, Caller
from serving.access.keyring import Keyring
from serving.access.scopes import Table, path_of
from serving.access.tokens import Tokens
from serving.address import check_exposure
from serving.deployed import deployed_host

BEARER = re.compile(rb"[Bb][Ee][Aa][Rr][Ee][Rr] +([A-Za-z0-9._~+/-]+=*)")
"""RFC 6750, section 2.1; the scheme's case is free (RFC 9110, section 11.1)."""
REFUSED = 1008
"""Close code of a WebSocket against the policy (RFC 6455, section 7.4.1); servers answer 403 to the handshake."""
Authenticate = Callable[[str], Awaitable[Caller]]


class Access:
    """Lets in whom the configuration lets in, and puts the ``Caller`` into the request's state."""

    def __init__(self, app: ASGIApp, table: Table, authenticate: Authenticate | None):
        self.app, self.table, self.authenticate = app, table, authenticate

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or raise ApiError with 401, 403, 404, 405 or 503."""
        if scope["type"] == "http":
            scope["state"]["caller"] = NOBODY
            await self.check(scope)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": REFUSED, "reason": "there are no WebSockets here"})
            return
        elif scope["type"] != "lifespan":
            raise errors.no_such_route()
        await self.app(scope, receive, send)

    async def check(self, scope: Scope) -> None:
        """Find out who calls and whether they may; whoever may not learns nothing about what there is."""
        rule = self.table.find(path_of(scope))
        if rule is None or rule.scope is not None:
            scope["state"]["caller"] = await self.caller(scope)
        if rule is None:
            raise errors.no_such_route()
        if scope["method"] not in rule.methods:
            raise errors.wrong_method(rule.methods)
        if rule.scope is not None and not scope["state"]["caller"].may(rule.scope):
            raise errors.not_allowed(rule.scope)

    async def caller(self, scope: Scope) -> Caller:
        """Who calls, by the one Authorization header there is; raises ApiError with 401."""
        if self.authenticate is None:
            return LOCAL
        given = [value for name, value in scope["headers"] if name == b"authorization"]
        if not given:
            raise errors.missing_credentials()
        match = BEARER.fullmatch(given[0]) if len(given) == 1 else None
        if match is None:
            raise errors.malformed_credentials()
        return await self.authenticate(match[1].decode("ascii"))


def authenticator(serving: ServingSettings) -> Authenticate | None:
    """How callers are recognised; None where nobody is asked who they are.

    Raises UsageError where that cannot be: a document for Serve that somebody wrote by hand gets
    no further than here either.
    """
    if serving.auth == "none":
        check_exposure(serving, deployed_host())
        return None
    if serving.auth == "oidc":
        return Tokens(serving.access).caller
    if serving.access.keys_file is None:
        raise UsageError(
            "serving.access.keys_file must name the file that `llumi keys` writes: a replica knows no output"
        )
    return Keyring(Path(serving.access.keys_file), serving.access).caller
