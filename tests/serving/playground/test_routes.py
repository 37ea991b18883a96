"""The playground's files over HTTP, without a browser."""

import re
from html.parser import HTMLParser
from pathlib import Path

import httpx
import pytest

from serving.playground.routes import FILES, HEADERS, PATHS
from tests.serving.playground.site import running

PAGE = Path(__file__).parents[3] / "serving" / "playground" / "page"


@pytest.fixture(scope="module")
def client(tmp_path_factory):
    with running(tmp_path_factory.mktemp("routes")) as site, httpx.Client(base_url=site.url, trust_env=False) as client:
        yield client


def test_it_is_off_unless_switched_on(tmp_path):
    with running(tmp_path, "serving.playground=false") as site:
        for path in PATHS:
            assert httpx.get(site.url.rstrip("/") + path, trust_env=False).status_code in (401, 404)


@pytest.mark.parametrize("path", PATHS)
def test_each_file_comes_without_a_key_and_with_its_policy(client, path):
    answer = client.get(path)
    assert answer.status_code == 200
    assert answer.content
    for name, value in HEADERS.items():
        assert answer.headers[name] == value
    assert "set-cookie" not in answer.headers
    head = client.head(path)
    assert (head.status_code, head.content) == (200, b"")


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "PATCH"])
def test_the_files_are_for_reading_only(client, method):
    assert client.request(method, "/").status_code in (401, 404, 405)


@pytest.mark.parametrize(
    "path",
    ["/playground", "/playground/", "/playground/index.html", "/playground/../routes.py", "/playground/..%2froutes.py",
     "/playground/%2e%2e/routes.py", "//playground/page.js", "/playground/page.js/", "/playground//page.js",
     "/page.js"],
)  # fmt: skip
def test_nothing_else_lies_beside_the_files(client, path):
    assert client.get(path).status_code in (401, 404)


def test_what_the_page_is_told_is_no_secret(client):
    told = client.get("/playground/settings.json").json()
    assert told == {"needs_key": True, "max_chars": 20_000, "ratings": False, "resources": []}


def test_every_file_of_the_page_is_served():
    assert {file.name for file in PAGE.iterdir()} == set(FILES)


class Markup(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.tags, self.inline, self.inside = [], "", None
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self.inside = tag

    def handle_endtag(self, tag):
        self.inside = None

    def handle_data(self, data):
        if self.inside in ("script", "style"):
            self.inline += data.strip()


def test_the_page_needs_no_exception_from_its_policy():
    markup = Markup((PAGE / "index.html").read_text())
    assert not markup.inline
    for tag, attributes in markup.tags:
        assert not [name for name in attributes if name.startswith("on") or name == "style"], tag
        for link in (attributes.get(name) for name in ("href", "src", "action", "formaction")):
            assert link is None or re.fullmatch(r"(?!//)[\w#./-]+", link), link


def test_no_script_can_turn_text_into_markup_or_keep_anything():
    ways = r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|srcdoc|\beval\b|new Function|DOMParser|localStorage"
    kept = (
        r"sessionStorage|indexedDB|document\.cookie|caches\.|pushState|replaceState|location\b|serviceWorker|https?://"
    )
    for file in PAGE.glob("*.js"):
        assert not re.search(f"{ways}|{kept}", file.read_text()), file.name


def test_every_field_has_a_label_and_keeps_out_of_the_browsers_memory():
    tags = Markup((PAGE / "index.html").read_text()).tags
    labelled = {attributes["for"] for tag, attributes in tags if tag == "label"}
    fields = [attributes for tag, attributes in tags if tag in ("input", "textarea")]
    assert len(fields) == 4
    for field in fields:
        assert field["id"] in labelled
        assert (field["autocomplete"], field["spellcheck"]) == ("off", "false")  # spell checkers may ask a server
