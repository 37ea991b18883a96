"""What a client may do wrong: the right status, the field's name, and none of its words."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from serving.bodies import GenerateRequest, ImproveRequest
from serving.chat import ChatRequest
from tests.serving.running import DRAFT, POST, Site, running
from tests.serving.test_openai import ASK

SECRET = "zebrafish"
"""A word that is sent in every request and must turn up in no answer."""
JSON = {"content-type": "application/json"}
DEEP = "[" * 100_000 + "]" * 100_000


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with running(tmp_path_factory.mktemp("bad"), "serving.max_body_bytes=1000000") as site:
        yield site


def raw(content: str | bytes) -> dict[str, Any]:
    return {"content": content, "headers": JSON}


def body(**fields: Any) -> dict[str, Any]:
    return {"json": {"post": POST, **fields}}


GENERATE, IMPROVE = "/v1/generate", "/v1/improve"
BAD: dict[str, tuple[str, dict[str, Any], int, str | None, str]] = {
    "no JSON": (GENERATE, raw(f"{{{SECRET}"), 400, None, "invalid_json"),
    "not an object": (GENERATE, {"json": [SECRET]}, 400, None, "invalid_json"),
    "a string": (GENERATE, {"json": SECRET}, 400, None, "invalid_json"),
    "null": (GENERATE, raw("null"), 400, None, "invalid_json"),
    "no body": (GENERATE, {}, 400, None, "invalid_json"),
    "invalid UTF-8": (GENERATE, raw(b'{"post": {"text": "\xff\xfe zebrafish"}}'), 400, None, "invalid_json"),
    "UTF-16": (GENERATE, raw(json.dumps({"post": POST}).encode("utf-16")[:-1]), 400, None, "invalid_json"),
    "a form": (GENERATE, {"data": {"post": SECRET}}, 400, None, "invalid_json"),
    "no content type": (GENERATE, {"content": json.dumps({"post": POST})}, 400, None, "invalid_json"),
    "deep nesting": (GENERATE, raw(DEEP), 400, None, "invalid_json"),
    "a number of many digits": (GENERATE, raw(f'{{"n": {"9" * 5000}}}'), 400, None, "invalid_json"),
    "half a surrogate pair": (
        GENERATE,
        raw('{"post": {"text": "zebrafish \\ud83d"}}'),
        422,
        "post.text",
        "string_unicode",
    ),
    "no post": (GENERATE, {"json": {}}, 422, "post", "missing"),
    "post is text": (GENERATE, {"json": {"post": SECRET}}, 422, "post", "model_attributes_type"),
    "title is a number": (GENERATE, {"json": {"post": {"title": 7}}}, 422, "post.title", "string_type"),
    "unknown field": (GENERATE, body(**{SECRET: 1}), 422, None, "unknown_field"),
    "unknown field of the post": (GENERATE, {"json": {"post": {**POST, SECRET: 1}}}, 422, "post", "unknown_field"),
    "empty post": (GENERATE, {"json": {"post": {"title": " ", "text": "\n\t"}}}, 422, "post", "empty"),
    "only delimiters": (GENERATE, {"json": {"post": {"text": "</post><post>"}}}, 422, "post", "empty"),
    "long post": (GENERATE, {"json": {"post": {"text": SECRET * 3000}}}, 422, "post", "too_long"),
    "many tokens": (GENERATE, {"json": {"post": {"text": "q 7 " * 2000}}}, 400, "post", "context_length_exceeded"),
    "no drafts": (GENERATE, body(n=0), 422, "n", "greater_than_equal"),
    "many drafts": (GENERATE, body(n=5), 422, "n", "too_large"),
    "half a draft": (GENERATE, body(n=1.5), 422, "n", "int_type"),
    "a number as text": (GENERATE, body(n="2"), 422, "n", "int_type"),
    "temperature below zero": (GENERATE, body(temperature=-0.1), 422, "temperature", "greater_than_equal"),
    "a hot temperature": (GENERATE, body(temperature=1e308), 422, "temperature", "less_than_equal"),
    "no number": (GENERATE, raw('{"post": {"text": "a"}, "temperature": NaN}'), 422, "temperature", "finite_number"),
    "infinity": (GENERATE, raw('{"post": {"text": "a"}, "top_p": Infinity}'), 422, "top_p", "finite_number"),
    "an empty nucleus": (GENERATE, body(top_p=0), 422, "top_p", "greater_than"),
    "no tokens": (GENERATE, body(max_tokens=0), 422, "max_tokens", "greater_than_equal"),
    "absurdly many tokens": (GENERATE, body(max_tokens=10**9), 422, "max_tokens", "too_large"),
    "more than any integer": (GENERATE, body(max_tokens=10**30), 422, "max_tokens", "less_than_equal"),
    "a seed of 65 bits": (GENERATE, body(seed=2**64), 422, "seed", "less_than"),
    "an empty stop text": (GENERATE, body(stop=""), 422, "stop", "string_too_short"),
    "a long stop text": (GENERATE, body(stop=[SECRET * 20]), 422, "stop.0", "string_too_long"),
    "stream is text": (GENERATE, body(stream="yes"), 422, "stream", "bool_type"),
    "no draft": (IMPROVE, body(), 422, "draft", "missing"),
    "empty draft": (IMPROVE, body(draft=" "), 422, "draft", "empty"),
    "null draft": (IMPROVE, body(draft=None), 422, "draft", "string_type"),
    "long draft": (IMPROVE, body(draft=SECRET * 3000), 422, "draft", "too_long"),
    "n revisions": (IMPROVE, body(draft=DRAFT, n=2), 422, "n", "unknown_field"),
    "metadata": (
        "/v1/chat/completions",
        {"json": {"model": "llumi-gm", "messages": ASK, "metadata": {SECRET: 1}}},
        400,
        "metadata",
        "string_type",
    ),
    "large body": (GENERATE, raw(b"x" * 1_100_000), 413, None, "body_too_large"),
    "bad id": (
        GENERATE,
        {"json": {"post": POST}, "headers": {"x-request-id": "a b"}},
        400,
        "x-request-id",
        "invalid_request_id",
    ),
    "no such route": (f"/v1/{SECRET}", {}, 404, None, "not_found"),
    "interactive documentation": ("/docs", {}, 404, None, "not_found"),
    "a slash too many": ("/v1/generate/", {"json": {"post": POST}}, 404, None, "not_found"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_answered_by_field_and_never_repeated(site: Site, case: str) -> None:
    route, request, status, param, code = BAD[case]
    response = site.client.post(route, **request)
    error = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert (response.status_code, error["param"], error["code"]) == (status, param, code)
    assert SECRET not in response.text
    assert error["message"]


def test_a_route_asked_in_another_way_names_the_way(site: Site) -> None:
    response = site.get(GENERATE)
    assert (response.status_code, response.headers["allow"]) == (405, "POST")


def test_what_is_odd_but_valid_is_answered(site: Site) -> None:
    for post in ({"text": "a\x00b\x1b[31m"}, {"text": "😀" * 50}, {"title": "é" * 200}, {"text": "\u202eabc\u2066"}):
        assert site.post(GENERATE, {"post": post}).status_code == 200
    for fields in ({"temperature": 0}, {"temperature": 2}, {"top_p": 1e-9}, {"seed": -(2**63)}, {"stop": []}, {"n": 4}):
        assert site.post(GENERATE, {"post": POST, **fields}).status_code == 200


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
FIELDS = st.sampled_from(sorted(GenerateRequest.model_fields | ImproveRequest.model_fields | ChatRequest.model_fields))
WORDS = st.text(max_size=40) | st.sampled_from(["a" * 500, "</post> [INST] <s>", "\x00", "I want to die", "\n \n"])
POSTS = st.fixed_dictionaries({"text": WORDS.map(lambda text: f"So: {text}")}, optional={"title": WORDS, "id": WORDS})
OPTIONS: dict[str, st.SearchStrategy[Any]] = {
    "stream": st.booleans(),
    "max_tokens": st.integers(1, 40),
    "temperature": st.floats(0, 2),
    "top_p": st.floats(0.01, 1),
    "stop": st.text(min_size=1, max_size=5) | st.lists(st.text(min_size=1, max_size=5), max_size=4),
    "seed": st.integers(-(2**63), 2**63 - 1),
}
N = {"n": st.integers(1, 4), "logprobs": st.booleans()}
METADATA = {"metadata": st.fixed_dictionaries({}, optional={"post_id": WORDS, "about": WORDS})}


def messages(body: dict[str, Any]) -> dict[str, Any]:
    """A body of /v1/improve as one of OpenAI's."""
    texts = {"user": body.pop("post")["text"], "assistant": body.pop("draft")}
    roles = ["user", "assistant"] if body["model"] == "llumi-im" else ["user"]
    return {**body, "messages": [{"role": role, "content": texts[role]} for role in roles]}


MODEL = {"model": st.sampled_from(["llumi-gm", "llumi-im"])}
HELPERS = {"post": POSTS, "draft": WORDS.map(lambda text: f"Well, {text}")}
RIGHT: dict[str, st.SearchStrategy[dict[str, Any]]] = {
    "/v1/generate": st.fixed_dictionaries({"post": POSTS}, optional={**OPTIONS, **N, "show_examples": st.booleans()}),
    "/v1/improve": st.fixed_dictionaries(
        HELPERS, optional={name: values for name, values in OPTIONS.items() if name != "stream"}
    ),
    "/v1/chat/completions": st.fixed_dictionaries({**HELPERS, **MODEL}, optional={**OPTIONS, **N, **METADATA}).map(
        messages
    ),
}
ROUTES = st.sampled_from(sorted(RIGHT))


@st.composite
def requests(draw: st.DrawFn) -> tuple[str, Any]:
    """A route with a body that fits it, in which then up to two fields are something else."""
    route = draw(ROUTES)
    if draw(st.integers(0, 19)) == 0:
        return route, draw(ANYTHING)
    body = draw(RIGHT[route])
    for _ in range(draw(st.integers(0, 2))):
        inside = draw(st.sampled_from([body, *(value for value in body.values() if isinstance(value, dict))]))
        inside[draw(FIELDS | st.sampled_from(sorted(inside) or ["post"]) | st.text(max_size=8))] = draw(ANYTHING)
    return route, body


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(requests())
def test_no_body_makes_the_service_fail(site: Site, request_: tuple[str, Any]) -> None:
    route, sent = request_
    content = json.dumps(sent).encode()
    response = site.client.post(route, content=content, headers=JSON)
    assert response.status_code in (200, 400, 404, 422), response.text
    if response.status_code != 200:
        assert set(response.json()["error"]) == {"message", "type", "param", "code"}
    elif "event-stream" in response.headers["content-type"]:
        assert response.text.endswith("data: [DONE]\n\n") or "event: end" in response.text
    else:
        assert "risk" in response.json()


@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@given(ROUTES, st.binary(max_size=200))
def test_no_bytes_make_the_service_fail(site: Site, route: str, content: bytes) -> None:
    assert site.client.post(route, content=content, headers=JSON).status_code in (400, 422)
