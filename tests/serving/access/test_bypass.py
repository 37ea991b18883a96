"""Nobody gets in without a key: whatever the verb, the spelling of the path, the headers or the protocol."""

import re

import pytest

from serving.access.scopes import ROUTES, Table
from tests.serving.access.server import POST, Server, error_of

HOST = "Host: 127.0.0.1"
VERBS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT", "PROPFIND", "get", "X"]
GUARDED = [rule for rule in ROUTES if rule.scope is not None]


def filled(path: str) -> str:
    return re.sub(r"{\w+}", "llumi-gm", path)


@pytest.mark.parametrize("rule", GUARDED, ids=lambda rule: rule.path)
def test_no_verb_opens_a_route(server: Server, rule) -> None:  # type: ignore[no-untyped-def]
    before = len(server.engine.seen)
    for verb in VERBS:
        status, answer = server.raw(f"{verb} {filled(rule.path)} HTTP/1.1", HOST, "Content-Length: 0")
        assert status in (401, 400), verb  # 400: the server's own parser refuses the verb
        assert b"www-authenticate: Bearer" in answer or status == 400, verb
    assert len(server.engine.seen) == before


SPELLINGS = [
    "//v1/generate",
    "/v1//generate",
    "/v1/generate/",
    "/v1/generate//",
    "/v1/generate/.",
    "/v1/./generate",
    "/healthz/../v1/generate",
    "/healthz/..%2fv1/generate",
    "/healthz%2f..%2fv1%2fgenerate",
    "/playground/../v1/generate",
    "/playground/page.js/../../v1/generate",
    "/playground/page.js/%2e%2e/%2e%2e/v1/generate",
    "/%2e%2e/v1/generate",
    "/v1%2fgenerate",
    "/v1/%67enerate",
    "/%76%31/generate",
    "/v1/generate%00",
    "/v1/generate%20",
    "/v1/generate;x=/healthz",
    "/v1/generate?x=/healthz",
    "/v1/generate#/healthz",
    "/healthz;/v1/generate",
    "/healthz\\..\\v1\\generate",
    "/V1/GENERATE",
    "/v1/generate.json",
    "/v1/g%C3%A9n%C3%A9rate",
    "/v1/%ff%fe",
    "http://127.0.0.1/v1/generate",
    "http://127.0.0.1/healthz/../v1/generate",
    "/v1/models/../generate",
    "/v1/models/%2e%2e%2fgenerate",
    "*",
]


@pytest.mark.parametrize("path", SPELLINGS)
def test_no_spelling_of_a_path_gets_past_the_gate(server: Server, path: str) -> None:
    before = len(server.engine.seen)
    for verb in ("GET", "POST"):
        status, _ = server.raw(f"{verb} {path} HTTP/1.1", HOST, "Content-Length: 0")
        assert status in (401, 400), verb
    assert len(server.engine.seen) == before


def test_one_spelling_means_the_same_to_the_gate_and_to_the_router(server: Server) -> None:
    only_models = server.key("models")
    for path in SPELLINGS:
        status, answer = server.raw(
            f"POST {path} HTTP/1.1", HOST, f"Authorization: Bearer {only_models}", "Content-Length: 0"
        )
        assert status in (400, 403, 404, 405), path
        if status == 403:
            assert error_of(answer)["code"] == "insufficient_scope"


BODY = b'{"post": {"text": "I can not sleep."}}'
SAME = {
    "/v1%2fgenerate",
    "/v1/%67enerate",
    "/%76%31/generate",
    "/v1/generate?x=/healthz",
    "/v1/generate#/healthz",
    "http://127.0.0.1/v1/generate",
}
"""Spellings that are the route, letter by letter, once they are decoded."""


@pytest.mark.parametrize("path", SPELLINGS)
def test_a_spelling_is_the_route_itself_or_no_route_at_all(server: Server, path: str) -> None:
    head = [f"POST {path} HTTP/1.1", HOST, f"Authorization: Bearer {server.key()}", f"Content-Length: {len(BODY)}"]
    before = len(server.engine.seen)
    status, _ = server.raw(*head, "Content-Type: application/json", body=BODY)
    assert status == 200 if path in SAME else status in (400, 404, 405)
    assert len(server.engine.seen) == before + (path in SAME)


CREDENTIALS = {
    "none": [],
    "an empty one": ["Authorization:"],
    "a scheme alone": ["Authorization: Bearer"],
    "another scheme": ["Authorization: Basic {key}"],
    "no scheme": ["Authorization: {key}"],
    "two, the right one first": ["Authorization: Bearer {key}", "Authorization: Bearer wrong"],
    "two, the right one last": ["Authorization: Bearer wrong", "Authorization: Bearer {key}"],
    "the same twice": ["Authorization: Bearer {key}", "Authorization: Bearer {key}"],
    "two in one": ["Authorization: Bearer {key}, Bearer {key}"],
    "another header": ["X-Api-Key: {key}"],
    "a cookie": ["Cookie: authorization=Bearer {key}"],
    "a proxy's": ["Proxy-Authorization: Bearer {key}"],
    "who one claims to be": ["X-Forwarded-User: admin", "X-Forwarded-For: 127.0.0.1", "Forwarded: for=127.0.0.1"],
    "with a space behind": ["Authorization: Bearer {key} x"],
    "one letter short": ["Authorization: Bearer {short}"],
    "one letter too many": ["Authorization: Bearer {key}A"],
    "in other letters": ["Authorization: Bearer {upper}"],
    "of the id alone": ["Authorization: Bearer {id}"],
    "very long": ["Authorization: Bearer " + "A" * 20_000],
    "not ASCII": ["Authorization: Bearer \xe9\xff"],
    "folded": ["Authorization: Bearer", " {key}"],
}


@pytest.mark.parametrize("case", CREDENTIALS)
def test_only_one_right_bearer_key_opens(server: Server, case: str) -> None:
    key = server.key()
    made = {"key": key, "short": key[:-1], "upper": key.upper(), "id": key.rpartition("_")[0]}
    lines = [line.format(**made) for line in CREDENTIALS[case]]
    head = ["POST /v1/generate HTTP/1.1", HOST, "Content-Type: application/json", f"Content-Length: {len(BODY)}"]
    before = len(server.engine.seen)
    status, answer = server.raw(*head, *lines, body=BODY)
    assert status in (401, 400, 431)
    assert key not in answer.decode("latin-1")
    assert len(server.engine.seen) == before
    right = server.raw(*head, f"Authorization: bEaReR   {key}", body=BODY)
    assert right[0] == 200


def test_a_key_in_the_address_is_not_taken(server: Server) -> None:
    key = server.key()
    for query in (f"?api_key={key}", f"?access_token={key}", f"?authorization=Bearer%20{key}"):
        answer = server.ask("POST", f"/v1/generate{query}", json={"post": POST})
        assert (answer.status_code, answer.json()["error"]["code"]) == (401, "missing_api_key")


def test_a_path_that_is_not_in_the_table_exists_for_nobody(server: Server) -> None:
    key = server.key()
    for path in ("/docs", "/redoc", "/metrics", "/-/routes", "/-/healthz", "/stats", "/favicon.ico", "/playground/",
                 "/playground/routes.py", "/playground/..%2froutes.py", "/v1", "/.env", "/healthz/x"):  # fmt: skip
        assert server.ask("GET", path).status_code == 401, path
        assert server.ask("GET", path, key).status_code == 404, path


def test_the_table_names_every_route_of_the_application_and_nothing_else(server: Server, tmp_path) -> None:  # type: ignore[no-untyped-def]
    from configs.load import load
    from serving import api
    from serving.services import Services
    from tests.pipelines.generation.scripted import ScriptedEngine
    from tests.serving.local import LocalModel

    settings = load("demo", ["serving.playground=true", f"serving.access.keys_file={tmp_path / 'keys.json'}"])
    model = LocalModel("gm", ScriptedEngine())
    store = object()  # its routes are there, nothing is asked of it
    app = api.create(Services.of(model, model, serving=settings.serving, feedback=store))
    table = Table.of(settings.serving)
    routes: dict[str, set[str]] = {}
    for route in app.routes:
        routes.setdefault(re.sub(r"{\w+(:\w+)?}", "{}", route.path), set()).update(route.methods)  # type: ignore[attr-defined]
    rules = {re.sub(r"{\w+}", "{}", r.path): set(r.methods) for r in (*table.fixed.values(), *table.patterns)}
    assert rules == routes


def test_a_websocket_is_refused_before_it_opens(server: Server) -> None:
    key = server.key()
    upgrade = ["Upgrade: websocket", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", "Sec-WebSocket-Version: 13"]
    for path in ("/v1/generate", "/healthz", "/", "/v1/chat/completions", "/ws"):
        for auth in ([], [f"Authorization: Bearer {key}"]):
            with server.connect() as connection:
                lines = [f"GET {path} HTTP/1.1", HOST, "Connection: Upgrade", *upgrade, *auth, "", ""]
                connection.sendall("\r\n".join(lines).encode())
                answer = connection.recv(4096)
            assert answer.startswith(b"HTTP/1.1 403"), path


def test_no_other_protocol_is_switched_to(server: Server) -> None:
    for protocol in ("h2c", "TLS/1.0", "foo"):
        settings = ["Connection: Upgrade, HTTP2-Settings", f"Upgrade: {protocol}", "HTTP2-Settings: AAMAAABk"]
        with server.connect() as connection:
            lines = ["POST /v1/generate HTTP/1.1", HOST, *settings, "Content-Length: 0", "", ""]
            connection.sendall("\r\n".join(lines).encode())
            assert connection.recv(4096).startswith(b"HTTP/1.1 401"), protocol
    with server.connect() as connection:
        connection.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
        assert b"200" not in connection.recv(4096).split(b"\r\n")[0]


SMUGGLED = b"POST /v1/generate HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n"
FRAMINGS = {
    "two lengths": ["Content-Length: 0", f"Content-Length: {len(SMUGGLED)}"],
    "a list of lengths": [f"Content-Length: 0, {len(SMUGGLED)}"],
    "a negative length": ["Content-Length: -1"],
    "a length in hex": ["Content-Length: 0x10"],
    "a length and chunks": [f"Content-Length: {len(SMUGGLED)}", "Transfer-Encoding: chunked"],
    "an unknown coding": ["Transfer-Encoding: xchunked"],
    "a coding with a space": ["Transfer-Encoding : chunked"],
}


@pytest.mark.parametrize("case", FRAMINGS)
def test_no_request_hides_in_the_body_of_an_open_one(server: Server, case: str) -> None:
    before = len(server.engine.seen)
    _, answer = server.raw("GET /healthz HTTP/1.1", HOST, *FRAMINGS[case], body=b"0\r\n\r\n" + SMUGGLED)
    statuses = re.findall(rb"HTTP/1\.1 (\d+)", answer)
    assert set(statuses) <= {b"200", b"400", b"401", b"501", b"413"}
    assert len(server.engine.seen) == before


def test_pipelined_requests_are_asked_one_by_one(server: Server) -> None:
    key = server.key()
    length = f"Content-Length: {len(BODY)}"
    common = ["POST /v1/generate HTTP/1.1", HOST, "Content-Type: application/json", length]
    with server.connect() as connection:
        first = "\r\n".join([*common, f"Authorization: Bearer {key}", "", ""]).encode() + BODY
        second = "\r\n".join([*common, "Connection: close", "", ""]).encode() + BODY
        connection.sendall(first + second)
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
    assert re.findall(rb"HTTP/1\.1 (\d+)", answer) == [b"200", b"401"]


def test_a_page_of_another_origin_is_told_nothing(server: Server) -> None:
    key = server.key()
    origin = {"Origin": "https://elsewhere.example", "Access-Control-Request-Method": "POST"}
    answers = [
        server.ask("OPTIONS", "/v1/generate", headers=origin),
        server.ask("OPTIONS", "/v1/generate", key, headers=origin),
        server.draft(key, headers=origin),
        server.ask("GET", "/healthz", headers=origin),
    ]
    assert [answer.status_code for answer in answers] == [401, 405, 200, 200]
    for answer in answers:
        assert not [name for name in answer.headers if name.startswith("access-control-")]


def test_what_is_open_tells_nothing_and_takes_no_key(server: Server) -> None:
    health = server.ask("GET", "/healthz")
    assert (health.status_code, health.json()) == (200, {"status": "ok"})
    assert server.ask("GET", "/").status_code == 200
    assert server.ask("GET", "/playground/page.js").status_code == 200
    assert server.ask("POST", "/healthz").status_code == 405
    assert server.ask("GET", "/healthz", "wrong").status_code == 200
