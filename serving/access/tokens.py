"""Tokens of an OpenID Connect provider: checked with the keys that it publishes, by PyJWT.

PyJWKClient caches the provider's keys and fetches them anew for a key id it does not know. Around
it stands what a service under attack or with a provider that is down needs besides: fetches in
threads of their own, one unknown key id after another refused without asking the provider, keys
that are known taken for a while though the provider is not there.
"""

import asyncio
import hashlib
import json
import logging
import threading
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jwt
from jwt import PyJWK, PyJWKClient
from jwt.exceptions import (
    ExpiredSignatureError,
    InvalidTokenError,
    PyJWKClientConnectionError,
    PyJWKClientError,
    PyJWKError,
    PyJWKSetError,
)

from configs.access import SCOPES, AccessSettings, OidcSettings
from serving.access import errors
from serving.access.caller import Caller

FETCH_TIMEOUT_S = 5.0
"""Seconds that the provider has to answer."""
THREADS = 4
"""Tokens checked at once; the event loop's own threads stay free."""
REQUIRED = ["exp", "iss", "aud", "sub"]
"""Claims without which a token is refused: RFC 9068, section 2.2, less those nothing here depends on."""
MAX_TOKEN = 8192
"""Longest token taken, in characters."""

LOG = logging.getLogger("ray.serve")


class ProviderDown(Exception):
    """The provider's keys cannot be fetched, and none that was known fits."""


class Tokens:
    """Callers by their tokens."""

    def __init__(self, settings: AccessSettings):
        if settings.oidc is None:
            raise ValueError("serving.access.oidc is not set")
        self.settings, self.oidc = settings, settings.oidc
        self.threads = ThreadPoolExecutor(THREADS, thread_name_prefix="oidc")
        self.keys = ProviderKeys(settings.oidc)

    async def caller(self, token: str) -> Caller:
        """Who the token was given to; raises ApiError with 401, or 503 where the provider cannot be reached."""
        if len(token) > MAX_TOKEN:
            raise errors.invalid_credentials("token")
        try:
            claims = await asyncio.get_running_loop().run_in_executor(self.threads, self.claims, token)
        except ExpiredSignatureError:
            raise errors.ended_credentials("the token is expired: get a new one", "expired_token") from None
        except ProviderDown:
            raise errors.unknown_now("the service cannot reach its identity provider at the moment") from None
        except (InvalidTokenError, PyJWKClientError, PyJWKError, PyJWKSetError, ValueError, TypeError):
            raise errors.invalid_credentials("token") from None
        name = hashlib.sha256(f"{claims['iss']} {claims['sub']}".encode()).hexdigest()[:12]
        granted = self.granted(claims)
        return Caller(
            id=f"oidc-{name}",
            name=f"oidc-{name}",
            scopes=frozenset(scope for scope in SCOPES if scope in granted),
            requests_per_minute=self.settings.requests_per_minute,
            concurrent=self.settings.concurrent,
        )

    def claims(self, token: str) -> dict[str, Any]:
        """What the token says, once its signature, issuer, audience and times are found right; blocks."""
        key = self.keys.of(jwt.get_unverified_header(token).get("kid"))
        claims: dict[str, Any] = jwt.decode(
            token,
            key,
            algorithms=list(self.oidc.algorithms),
            audience=self.oidc.audience,
            issuer=self.oidc.issuer,
            leeway=self.oidc.leeway_s,
            options={"require": REQUIRED},
        )
        return claims

    def granted(self, claims: dict[str, Any]) -> set[str]:
        """Our scopes among those of the token, without their prefix."""
        given = claims.get(self.oidc.scopes_claim, ())
        names = given.split() if isinstance(given, str) else given if isinstance(given, list) else ()
        prefix = self.oidc.scopes_prefix
        return {n.removeprefix(prefix) for n in names if isinstance(n, str) and n.startswith(prefix)}


class ProviderKeys:
    """The provider's keys by id."""

    def __init__(self, oidc: OidcSettings):
        self.oidc = oidc
        self.lock = threading.Lock()
        self.client: PyJWKClient | None = None
        self.last: dict[str, PyJWK] = {}
        """The keys as they last were."""
        self.confirmed = self.failed = float("-inf")

    def of(self, kid: object) -> PyJWK:
        """The key with that id; raises PyJWKClientError where there is none, ProviderDown."""
        if not isinstance(kid, str):
            raise PyJWKClientError("the token names no key")
        with self.lock:
            if time.monotonic() - self.failed >= self.oidc.cooldown_s:
                try:
                    return self.fetched(kid)
                except (PyJWKClientConnectionError, OSError) as error:
                    self.failed = time.monotonic()
                    LOG.error("the identity provider's keys could not be fetched: %s", type(error).__name__)
            if kid in self.last and time.monotonic() - self.confirmed <= self.oidc.stale_s:
                return self.last[kid]
            raise ProviderDown

    def fetched(self, kid: str) -> PyJWK:
        """The key as the provider gives it, now or within ``lifespan_s``."""
        self.client = self.client or self.made_client()
        key = self.client.get_signing_key(kid)
        self.last = {known.key_id: known for known in self.client.get_signing_keys() if known.key_id}
        self.confirmed = time.monotonic()
        return key

    def made_client(self) -> PyJWKClient:
        """A client for where the provider publishes its keys."""
        oidc = self.oidc
        return PyJWKClient(
            oidc.jwks_url or discovered(oidc.issuer),
            lifespan=oidc.lifespan_s,
            cooldown_duration=oidc.cooldown_s,
            timeout=FETCH_TIMEOUT_S,
        )


def discovered(issuer: str) -> str:
    """``jwks_uri`` by the issuer's discovery document (OpenID Connect Discovery 1.0, section 4)."""
    url = f"{issuer.rstrip('/')}/.well-known/openid-configuration"
    try:
        with urllib.request.urlopen(url, timeout=FETCH_TIMEOUT_S) as response:
            document = json.load(response)
    except ValueError as error:
        raise PyJWKClientConnectionError("the provider's discovery document is no JSON") from error
    found = document.get("jwks_uri") if isinstance(document, dict) and document.get("issuer") == issuer else None
    if not isinstance(found, str):
        raise PyJWKClientConnectionError("the provider's discovery document names another issuer or no jwks_uri")
    return found
