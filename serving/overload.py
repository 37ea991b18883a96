"""How many requests one ingress replica takes at once; more are refused in the API's own form.

Serve bounds them too, but answers in plain text. Refusing costs next to nothing and says when to
come back, so a burst neither fills the memory nor makes everybody wait. /healthz passes always: a
replica that is busy is well.
"""

from starlette.types import ASGIApp, Receive, Scope, Send

from serving.wire import unavailable

HEALTH = "/healthz"


class Overload:
    """Counts the requests in progress, streams until they end, and refuses what is above ``limit`` with 503."""

    def __init__(self, app: ASGIApp, limit: int):
        self.app, self.limit, self.in_progress = app, limit, 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or raise ApiError 503."""
        if scope["type"] != "http" or scope["path"] == HEALTH:
            await self.app(scope, receive, send)
            return
        if self.in_progress >= self.limit:
            raise unavailable("the service has more requests than it can take", "overloaded")
        self.in_progress += 1
        try:
            await self.app(scope, receive, send)
        finally:
            self.in_progress -= 1
