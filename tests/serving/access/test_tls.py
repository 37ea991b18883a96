"""HTTPS: wrong files are named before anything starts; the service is asked by its own certificate."""

import ssl
import threading
from pathlib import Path

import httpx
import pytest
import uvicorn
from ray.serve.config import HTTPOptions

from configs.access import TlsSettings
from configs.errors import ConfigError, UsageError
from configs.load import load
from configs.serving import ServingSettings
from serving.access.tls import HAPROXY, check_tls, own_context, serve_options
from serving.address import base_url
from serving.document import serve_document
from tests.ports import free_port
from tests.serving.access.certificates import make


def serving(certificate: Path, key: Path) -> ServingSettings:
    return ServingSettings(tls=TlsSettings(certificate=str(certificate), key=str(key)))


def test_without_a_certificate_nothing_is_asked_or_checked() -> None:
    check_tls(ServingSettings())
    assert serve_options(ServingSettings()) == {}
    assert own_context(ServingSettings()) is True


def test_wrong_files_are_named_with_what_is_wrong(tmp_path: Path) -> None:
    good, other = make(tmp_path / "good"), make(tmp_path / "other")
    over, locked = make(tmp_path / "over", days=-1), make(tmp_path / "locked", password=b"secret")
    noise = tmp_path / "noise.pem"
    noise.write_text("no certificate")
    for pair, told in (
        ((tmp_path / "nowhere.pem", good[1]), r"tls\.certificate=.*nowhere\.pem"),
        ((good[0], tmp_path), r"tls\.key=.*cannot be read"),
        ((good[0], other[1]), r"MISMATCH"),
        ((noise, good[1]), r"noise\.pem"),
        ((good[0], noise), r"noise\.pem"),
        (locked, r"has a password"),
        (over, r"ended at .* renew it"),
    ):
        with pytest.raises(UsageError, match=told):
            check_tls(serving(*pair))
    check_tls(serving(*good))


def test_haproxy_and_tls_are_refused_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = make(tmp_path)
    monkeypatch.setenv(HAPROXY, "1")
    with pytest.raises(UsageError, match=r"HAProxy.*gateway"):
        check_tls(serving(*files))
    tls = f"serving.tls={{certificate: {files[0]}, key: {files[1]}}}"
    with pytest.raises(ConfigError, match="haproxy"):
        load("demo", [tls, "serving.topology.haproxy=always"])


def test_the_document_hands_the_certificate_to_serve(tmp_path: Path) -> None:
    certificate, key = make(tmp_path)
    settings = load("demo", [f"serving.tls={{certificate: {certificate}, key: {key}}}"])
    options = serve_document(settings)["http_options"]
    assert options["ssl_certfile"] == str(certificate)
    assert options["ssl_keyfile"] == str(key)
    assert HTTPOptions(**options).ssl_certfile == str(certificate)


def test_the_service_is_reached_by_its_own_certificate_and_no_other(tmp_path: Path) -> None:
    own, other = serving(*make(tmp_path / "own")), serving(*make(tmp_path / "other"))
    port = free_port()

    async def hello(scope, receive, send) -> None:  # type: ignore[no-untyped-def]
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
        await send({"type": "http.response.body", "body": b""})

    # As Serve's proxy starts it.
    config = uvicorn.Config(hello, port=port, log_config=None, lifespan="off", **serve_options(own))  # type: ignore[arg-type]
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    url = base_url("127.0.0.1", port, tls=True)
    try:
        while not server.started:
            assert thread.is_alive()
        assert httpx.get(url, verify=own_context(own), trust_env=False).status_code == 200
        for verify in (own_context(other), True):
            with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
                httpx.get(url, verify=verify, trust_env=False)
        old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        old.check_hostname, old.verify_mode = False, ssl.CERT_NONE
        old.maximum_version = ssl.TLSVersion.TLSv1_1
        with pytest.raises((httpx.ConnectError, httpx.ReadError, ssl.SSLError)):
            httpx.get(url, verify=old, trust_env=False)
    finally:
        server.should_exit = True
        thread.join(10)
