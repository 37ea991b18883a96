"""An OpenID Connect provider on this machine: publishes its keys over HTTP, rotates them, gives out tokens."""

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from jwt.algorithms import ECAlgorithm, RSAAlgorithm

AUDIENCE = "llumi"
CURVE = ec.SECP256R1()


class Provider:
    """A real server with real keys; ``asked`` tells how often its keys were fetched."""

    def __init__(self) -> None:
        self.private: dict[str, Any] = {}
        self.asked: list[str] = []
        self.broken: str | None = None
        """What it answers in the place of its keys."""
        self.rotate("first")
        provider = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                provider.asked.append(self.path)
                body = provider.answer(self.path).encode()
                self.send_response(200 if body else 404)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                """Silent."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.issuer = f"http://127.0.0.1:{self.server.server_address[1]}/realms/helpers"
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()

    def answer(self, path: str) -> str:
        if path.endswith("/.well-known/openid-configuration"):
            return json.dumps({"issuer": self.issuer, "jwks_uri": f"{self.issuer}/keys"})
        if path.endswith("/keys"):
            return self.broken or json.dumps({"keys": [self.published(kid) for kid in self.private]})
        return ""

    def rotate(self, kid: str, *, keep: bool = False, kind: str = "RS256") -> None:
        """Sign with a new key from now on."""
        if not keep:
            self.private.clear()
        private = rsa.generate_private_key(65537, 2048) if kind == "RS256" else ec.generate_private_key(CURVE)
        self.private[kid] = private
        self.kid, self.kind = kid, kind

    def published(self, kid: str) -> dict[str, Any]:
        public = self.private[kid].public_key()
        algorithm, name = (RSAAlgorithm, "RS256") if isinstance(public, rsa.RSAPublicKey) else (ECAlgorithm, "ES256")
        return {**json.loads(algorithm.to_jwk(public)), "kid": kid, "use": "sig", "alg": name}

    def token(self, *, kid: str | None = None, key: Any = None, alg: str | None = None, **claims: Any) -> str:
        """A token for an hour; a claim given as None is left out."""
        now = int(time.time())
        payload = {
            "iss": self.issuer, "aud": AUDIENCE, "sub": "ada@example.org", "iat": now, "exp": now + 3600,
            "scope": "openid llumi:generate llumi:models", **claims,
        }  # fmt: skip
        payload = {name: value for name, value in payload.items() if value is not None}
        headers = {"kid": kid or self.kid}
        return jwt.encode(payload, key or self.private[self.kid], algorithm=alg or self.kind, headers=headers)

    def stop(self) -> None:
        """Go away: connections are refused."""
        self.server.shutdown()
        self.server.server_close()
