"""Tokens of a real OpenID Connect provider on this machine: taken, refused, rotated, and what if it is down."""

import asyncio
import base64
import json
import time
from collections.abc import Iterator
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from configs.access import AccessSettings, OidcSettings
from serving.access.caller import Caller
from serving.access.tokens import Tokens
from serving.wire import ApiError
from tests.serving.access.provider import AUDIENCE, Provider
from tests.serving.access.server import running


@pytest.fixture
def provider() -> Iterator[Provider]:
    made = Provider()
    yield made
    made.stop()


def tokens(provider: Provider, **changes: Any) -> Tokens:
    given = {"issuer": provider.issuer, "audience": AUDIENCE, "cooldown_s": 0, "leeway_s": 5, **changes}
    return Tokens(AccessSettings(oidc=OidcSettings(**given)))


def caller(checked: Tokens, token: str) -> Caller:
    return asyncio.run(checked.caller(token))


def refused(checked: Tokens, token: str) -> tuple[int, str]:
    with pytest.raises(ApiError) as caught:
        caller(checked, token)
    assert token not in str(caught.value.body)
    return caught.value.status, caught.value.body["error"]["code"]


INVALID = (401, "invalid_api_key")


def test_a_token_gives_our_scopes_of_those_in_it(provider: Provider) -> None:
    checked = tokens(provider)
    found = caller(checked, provider.token(scope="openid llumi:generate llumi:models llumi:root generate-all acute"))
    assert found.scopes == {"generate", "models"}
    assert caller(checked, provider.token(scope=["llumi:acute", 7, None])).scopes == {"acute"}
    for nothing in (None, 7, {}, "", "generate"):
        assert caller(checked, provider.token(scope=nothing)).scopes == frozenset()
    other = tokens(provider, scopes_claim="roles", scopes_prefix="")
    assert caller(other, provider.token(roles=["improve"])).scopes == {"improve"}


def test_a_caller_is_the_same_each_time_and_nobodys_address(provider: Provider) -> None:
    checked = tokens(provider)
    first, second, other = (caller(checked, provider.token(**c)) for c in ({}, {"jti": "2"}, {"sub": "b@example.org"}))
    assert first.id == second.id != other.id
    assert "ada" not in f"{first.id}{first.name}"


WRONG: dict[str, dict[str, Any]] = {
    "of another issuer": {"iss": "https://elsewhere.example"},
    "of no issuer": {"iss": None},
    "for another audience": {"aud": "another-service"},
    "for no audience": {"aud": None},
    "of nobody": {"sub": None},
    "without an end": {"exp": None},
    "not yet valid": {"nbf": int(time.time()) + 3600},
    "made in the future": {"iat": int(time.time()) + 3600},
    "with an end that is no time": {"exp": "tomorrow"},
}


@pytest.mark.parametrize("case", WRONG)
def test_a_token_that_is_not_for_us_is_refused(provider: Provider, case: str) -> None:
    assert refused(tokens(provider), provider.token(**WRONG[case])) == INVALID


def test_an_expired_token_is_told_so_beyond_the_leeway(provider: Provider) -> None:
    checked = tokens(provider)
    assert refused(checked, provider.token(exp=int(time.time()) - 60)) == (401, "expired_token")
    assert caller(checked, provider.token(exp=int(time.time()) - 2)).scopes


def encoded(part: dict[str, Any]) -> str:
    return base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode()


def forged(provider: Provider) -> dict[str, str]:
    """Tokens that somebody made who does not have the provider's key."""
    header, payload, signature = provider.token().split(".")
    stranger = rsa.generate_private_key(65537, 2048)
    pem = provider.private[provider.kid].public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )  # fmt: skip
    claims = json.loads(base64.urlsafe_b64decode(payload + "=="))
    more = encoded({**claims, "scope": "llumi:acute"})
    import hashlib
    import hmac

    confused = f"{encoded({'alg': 'HS256', 'kid': provider.kid})}.{payload}"
    mac = base64.urlsafe_b64encode(hmac.new(pem, confused.encode(), hashlib.sha256).digest()).rstrip(b"=").decode()
    own = {"alg": "RS256", "kid": provider.kid, "jwk": {"kty": "RSA"}, "jku": "http://127.0.0.1:9/keys"}
    return {
        "signed by a stranger": provider.token(key=stranger, alg="RS256"),
        "signed with no algorithm": f"{encoded({'alg': 'none', 'kid': provider.kid})}.{payload}.",
        "signed with the public key as a secret": f"{confused}.{mac}",
        "with other claims": f"{header}.{more}.{signature}",
        "with no signature": f"{header}.{payload}.",
        "with keys of its own": f"{encoded(own)}.{payload}.{signature}",
        "of a key nobody has": provider.token(kid="unheard-of"),
        "of no key": f"{encoded({'alg': 'RS256'})}.{payload}.{signature}",
        "whose key is no name": f"{encoded({'alg': 'RS256', 'kid': {'a': 1}})}.{payload}.{signature}",
        "that is none": "no-token",
        "of dots": "..",
        "that is empty inside": "e30.e30.e30",
        "that never ends": "A" * 9000,
        "an API key": "llumi_" + "0" * 12 + "_" + "A" * 43,
    }


def test_a_forged_token_is_refused(provider: Provider) -> None:
    checked = tokens(provider)
    for case, token in forged(provider).items():
        assert refused(checked, token) == INVALID, case
    assert caller(checked, provider.token()).scopes


def test_what_a_token_says_of_its_algorithm_widens_nothing(provider: Provider) -> None:
    only_ec = tokens(provider, algorithms=("ES256",))
    assert refused(only_ec, provider.token()) == INVALID
    provider.rotate("elliptic", kind="ES256")
    assert caller(only_ec, provider.token()).scopes


def test_rotated_keys_are_taken_at_once_and_old_ones_no_more(provider: Provider) -> None:
    checked = tokens(provider)
    old = provider.token()
    assert caller(checked, old).scopes
    provider.rotate("second", keep=True)
    assert caller(checked, provider.token()).scopes
    assert caller(checked, old).scopes  # both are published
    provider.rotate("third")
    assert caller(checked, provider.token()).scopes
    assert refused(checked, old) == INVALID


def test_unknown_keys_do_not_make_us_ask_the_provider_again_and_again(provider: Provider) -> None:
    checked = tokens(provider, cooldown_s=60)
    assert caller(checked, provider.token()).scopes
    asked = len(provider.asked)
    for number in range(20):
        assert refused(checked, provider.token(kid=f"made-up-{number}")) == INVALID
    assert len(provider.asked) - asked <= 1


def test_known_keys_are_taken_while_the_provider_is_down_and_only_so_long(provider: Provider) -> None:
    checked = tokens(provider, lifespan_s=0.01, cooldown_s=0.01)
    strict = tokens(provider, lifespan_s=0.01, cooldown_s=0.01, stale_s=0)
    token = provider.token()
    assert caller(checked, token).scopes == caller(strict, token).scopes
    provider.stop()
    time.sleep(0.05)
    assert caller(checked, token).scopes
    assert refused(strict, token) == (503, "auth_unavailable")
    assert refused(checked, provider.token(kid="new")) == (503, "auth_unavailable")
    assert refused(tokens(provider), token) == (503, "auth_unavailable")


@pytest.mark.parametrize("answer", ["<html>", "[]", '{"keys": []}', '{"keys": [{"kty": "RSA"}]}', '{"error": 1}'])
def test_a_provider_that_talks_nonsense_lets_nobody_in(provider: Provider, answer: str) -> None:
    provider.broken = answer
    status, code = refused(tokens(provider), provider.token())
    assert (status, code) in {INVALID, (503, "auth_unavailable")}


def test_the_service_takes_tokens_over_http(provider: Provider, tmp_path) -> None:  # type: ignore[no-untyped-def]
    oidc = f"serving.access.oidc={{issuer: '{provider.issuer}', audience: {AUDIENCE}, cooldown_s: 0}}"
    with running(tmp_path, "serving.auth=oidc", oidc) as server:
        assert server.draft(provider.token()).status_code == 200
        assert server.draft(provider.token(scope="llumi:models")).status_code == 403
        expired = server.draft(provider.token(exp=int(time.time()) - 600))
        assert (expired.status_code, expired.json()["error"]["code"]) == (401, "expired_token")
        assert 'error="invalid_token"' in expired.headers["www-authenticate"]
        provider.rotate("next")
        assert server.draft(provider.token()).status_code == 200
