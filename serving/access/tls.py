"""HTTPS by Serve's own proxies: the certificate checked before anything starts, and handed to Serve.

Serve 2.60 gives ``ssl_certfile`` and ``ssl_keyfile`` to its Python proxy, and that is all that it
can do: its HAProxy listens without TLS whatever the options say and could not speak to replicas
that have it, so HAProxy and TLS exclude each other here. A client's certificate would be asked for
by nobody (``ssl_ca_certs`` without ``CERT_REQUIRED``), so there is no setting that pretends it. Nor
does the Python proxy limit how large headers are or how long they take, as HAProxy does here: where
strangers reach the address, end TLS at a gateway in front.
"""

import os
import ssl
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509

from configs.access import TlsSettings
from configs.errors import UsageError
from configs.serving import ServingSettings

HAPROXY = "RAY_SERVE_ENABLE_HA_PROXY"
"""Variable by which Serve starts HAProxy in the place of its Python proxy."""


def serve_options(serving: ServingSettings) -> dict[str, str]:
    """What Serve's ``http_options`` need for HTTPS; nothing where it is not configured."""
    if serving.tls is None:
        return {}
    return {"ssl_keyfile": serving.tls.key, "ssl_certfile": serving.tls.certificate}


def check_tls(serving: ServingSettings) -> None:
    """Raises UsageError where HTTPS is configured and could not be served."""
    if serving.tls is None:
        return
    if os.environ.get(HAPROXY, "0") == "1":
        raise UsageError(
            f"serving.tls cannot be had with HAProxy, which Ray Serve starts without TLS: unset {HAPROXY}, "
            "or end TLS at a gateway in front"
        )
    check_files(serving.tls)


def check_files(tls: TlsSettings) -> None:
    """Raises UsageError for files that are not there, do not belong together, or a certificate that is over."""
    for setting, path in (("certificate", tls.certificate), ("key", tls.key)):
        try:
            Path(path).read_bytes()
        except OSError as error:
            raise UsageError(f"serving.tls.{setting}={path} cannot be read: {error.strerror}") from None
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(tls.certificate, tls.key, password=refuse)
    except (ssl.SSLError, PasswordAsked) as error:
        why = "the key has a password" if isinstance(error, PasswordAsked) else error.reason or "not PEM"
        raise UsageError(
            f"serving.tls: {tls.certificate} and {tls.key} are no certificate with its private key ({why}): "
            "give PEM files that belong together, the key without a password"
        ) from None
    ends = x509.load_pem_x509_certificates(Path(tls.certificate).read_bytes())[0].not_valid_after_utc
    if ends <= datetime.now(UTC):
        raise UsageError(f"serving.tls.certificate={tls.certificate} ended at {ends:%Y-%m-%d %H:%M} UTC: renew it")


class PasswordAsked(Exception):
    """The key is encrypted."""


def refuse() -> str:
    """Called by OpenSSL for a key's password, which would otherwise ask the terminal."""
    raise PasswordAsked


def own_context(serving: ServingSettings) -> ssl.SSLContext | bool:
    """How this machine checks the service that it just started: by its very certificate, whatever names it holds.

    For httpx' ``verify``; True where there is no TLS.
    """
    if serving.tls is None:
        return True
    context = ssl.create_default_context(cafile=serving.tls.certificate)
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    context.check_hostname = False  # it is reached at 127.0.0.1
    return context
