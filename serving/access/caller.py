"""Who is calling: what the middleware found out, and routes may rely on."""

from dataclasses import dataclass

from configs.access import ORDINARY, Scope


@dataclass(frozen=True)
class Caller:
    """One caller, in ``scope["state"]["caller"]`` of every request that reached a route.

    ``id`` is what logs and the feedback store keep: of a key the public half of it, of a token a
    hash of its subject, never a name or address of a person.
    """

    id: str
    name: str
    """As whoever made the key wrote it; for people who look at ``llumi keys list``, not for logs."""
    scopes: frozenset[Scope]
    requests_per_minute: int | None = None
    """Most requests in any minute; None = without limit."""
    concurrent: int | None = None
    """Most requests at once; None = without limit."""

    def may(self, scope: Scope) -> bool:
        """Whether the scope was granted."""
        return scope in self.scopes


LOCAL = Caller("local", "local", frozenset(ORDINARY))
"""Everybody, where ``serving.auth`` is none: whoever wants drafts to posts at acute risk makes a key for it."""
NOBODY = Caller("-", "-", frozenset())
"""Whoever asks for what is open: health, and the playground's files where it is switched on."""
