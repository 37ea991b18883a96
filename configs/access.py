"""Settings of access: who may call the service, how often, and over which transport."""

import re
from typing import Literal, get_args

from pydantic import Field, field_validator

from configs.base import Section

Auth = Literal["keys", "oidc", "none"]
Scope = Literal["generate", "improve", "chat", "feedback", "models", "acute", "docs"]
"""What a caller may be allowed: a route or a few of them, and ``acute`` for drafts to posts at acute risk."""
SCOPES: tuple[Scope, ...] = get_args(Scope)
ORDINARY: tuple[Scope, ...] = tuple(scope for scope in SCOPES if scope != "acute")
"""What a key may do unless it is made otherwise: everything but ``acute``, which somebody has to decide on."""
Algorithm = Literal["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"]
"""Signatures of tokens: those with a public key only, so that nobody who can check one can make one."""
COUNTERS = re.compile(r"ray|memory|rediss?://([^\s@:/]+@)?[^\s@:/]+(:\d+)?(/\d+)?")


class OidcSettings(Section):
    """Tokens (JWT) of an OpenID Connect provider, checked against the keys that it publishes (JWKS)."""

    issuer: str = Field(min_length=1)
    """``iss`` of the tokens, letter by letter; its discovery document names the keys unless ``jwks_url`` does."""
    audience: str = Field(min_length=1)
    """``aud`` of the tokens: the name that the provider knows this service by."""
    jwks_url: str | None = None
    """Where the provider publishes its keys; none = as its /.well-known/openid-configuration says."""
    algorithms: tuple[Algorithm, ...] = Field(("RS256", "ES256"), min_length=1)
    """Signature algorithms taken; what a token says about itself does not widen them."""
    scopes_claim: str = Field("scope", min_length=1)
    """Claim that holds the scopes: a text with spaces between them, or a list."""
    scopes_prefix: str = "llumi:"
    """What stands before our scopes there, as in ``llumi:generate``; others are passed over."""
    leeway_s: float = Field(30, ge=0, le=300)
    """Seconds that the provider's clock may differ from ours."""
    lifespan_s: float = Field(300, gt=0)
    """Seconds after which the provider's keys are fetched anew."""
    cooldown_s: float = Field(10, ge=0)
    """Fewest seconds between two fetches for the sake of an unknown key: how long a new one may go unrecognised."""
    stale_s: float = Field(3600, ge=0)
    """Seconds that a known key goes on being taken while the provider cannot be reached."""

    @field_validator("issuer", "jwks_url")
    @classmethod
    def http(cls, value: str | None) -> str | None:
        """An address of the web: anything else would let a setting read files."""
        if value is not None and not value.startswith(("http://", "https://")):
            raise ValueError("give an address that starts with https://")
        return value


class TlsSettings(Section):
    """HTTPS at Serve's Python proxies, in the place of HAProxy; the files must lie at one place on every node."""

    certificate: str = Field(min_length=1)
    """File with the certificate in PEM, followed by those between it and its root."""
    key: str = Field(min_length=1)
    """File with the certificate's private key in PEM, without a password."""


class AccessSettings(Section):
    """Keys, tokens and what one caller may take of the service."""

    keys_file: str | None = None
    """File of the API keys' hashes; none = ``serving/keys.json`` under ``output``. Every ingress node reads it."""
    oidc: OidcSettings | None = None
    """The OpenID Connect provider, for ``serving.auth: oidc``."""
    requests_per_minute: int | None = Field(120, ge=1)
    """Most requests of one caller in any minute, unless its key says otherwise; null = without limit."""
    concurrent: int | None = Field(16, ge=1)
    """Most requests of one caller at once, unless its key says otherwise; null = without limit."""
    counters: str = "ray"
    """Where requests are counted for all ingress replicas: ``ray`` (a named actor), ``redis://...``, ``memory``."""
    counters_password_file: str | None = None
    """File with Redis' password: in the address it would stand in every document that is deployed."""
    body_timeout_s: float = Field(20, gt=0)
    """Seconds that a client has to send its whole body before 408 is answered."""

    @field_validator("counters")
    @classmethod
    def known(cls, value: str) -> str:
        """One of the places there are."""
        if not COUNTERS.fullmatch(value):
            raise ValueError(
                "choose ray, memory or redis://USER@HOST:PORT/DB; a password belongs into counters_password_file"
            )
        return value
