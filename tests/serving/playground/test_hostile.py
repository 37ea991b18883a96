"""What comes from people and models stays text, nothing leaves for elsewhere, nothing stays behind."""

import json
import socket

import pytest
from playwright.sync_api import BrowserContext, Page, expect

from tests.ports import free_port
from tests.serving.playground.conftest import Open
from tests.serving.playground.site import Site, running
from tests.serving.playground.test_page import ask_for_a_draft, ask_for_an_improvement, refuse, reply

MARKUP = (
    "<script>window.broken=1</script><img src=x onerror='window.broken=2'><svg onload='window.broken=3'>"
    "<a href='javascript:window.broken=4'>here</a> {{7*7}} ${window.broken=5} &lt;b&gt;"
)


def unbroken(page: Page) -> bool:
    return page.evaluate(
        "window.broken === undefined && !document.querySelector('main img, main svg, main a, main script')"
    )


def test_markup_of_a_model_or_a_post_is_shown_as_text(opened: Open, site: Site):
    page = opened()
    answer = {
        "request_id": MARKUP, "version": MARKUP, "finish_reason": "stop", "post_cut": True, "refusal": None,
        "risk": {"level": "elevated", "signals": [MARKUP], "action": MARKUP}, "resources_required": True,
    }  # fmt: skip
    drafts = [{"text": MARKUP, "finish_reason": "length"}]
    edits = [
        {"op": "replace", "draft": MARKUP, "revision": f"{MARKUP}!"},
        {"op": "equal", "draft": MARKUP, "revision": MARKUP},
    ]
    improved = {"revision": MARKUP, "edits": edits, "preservation": {"score": 0.5}}
    page.route("**/v1/generate", lambda route: route.fulfill(json=answer | {"drafts": drafts}))
    page.route("**/v1/improve", lambda route: route.fulfill(json=answer | improved))
    ask_for_a_draft(page, MARKUP)
    expect(reply(page)).to_have_value(MARKUP)
    expect(page.locator("#risk")).to_contain_text(MARKUP)
    ask_for_an_improvement(page)
    expect(page.locator("#changes del")).to_contain_text(MARKUP)
    expect(page.locator("#changes ins")).to_contain_text(MARKUP)
    assert unbroken(page)


def test_markup_in_an_error_or_in_the_operators_lines_is_shown_as_text(opened: Open, tmp_path):
    with running(tmp_path, f"serving.crisis_resources={json.dumps([MARKUP])}", "serving.auth=none") as site:
        page = opened(key=None, url=site.url)
        error = json.dumps({"error": {"message": MARKUP, "param": "post", "code": "x", "type": "x"}})
        refuse(page, "**/v1/generate", 422, [{"Content-Type": "application/json"}], body=error)
        ask_for_a_draft(page, "I feel hopeless and I am a burden to everyone.")
        expect(page.locator("#text-problem")).to_contain_text(MARKUP)
        ask_for_a_draft(page, "I feel hopeless and I am a burden to everyone.")
        expect(page.get_by_role("listitem")).to_have_text([MARKUP])
        assert unbroken(page)


@pytest.mark.parametrize(
    "attempt",
    [
        "const s = document.createElement('script'); s.append('window.broken=1'); document.body.append(s)",
        "document.body.setAttribute('onclick', 'window.broken=1'); document.body.click()",
        "document.body.innerHTML = '<img src=x onerror=window.broken=1>'",
        "setTimeout('window.broken=1', 0)",
        "document.querySelector('form').submit()",
    ],
)
def test_the_policy_stops_what_the_page_itself_never_does(profile: BrowserContext, site: Site, attempt: str):
    with profile.new_page() as page:
        page.goto(site.url)
        page.evaluate(f"window.same = true; try {{ {attempt} }} catch (error) {{ window.thrown = error.name }}")
        page.wait_for_timeout(100)
        assert page.evaluate("[window.same, window.broken ?? null]") == [True, None]
        assert page.evaluate("window.thrown ?? 'EvalError'") in ("EvalError", "TypeError")


@pytest.mark.parametrize(
    "way", ["fetch(at, {mode: 'no-cors'})", "new Image().src = at", "navigator.sendBeacon(at, 'words')"]
)
def test_the_policy_lets_nothing_out_to_another_host(profile: BrowserContext, site: Site, way: str):
    with socket.create_server(("127.0.0.1", free_port())) as other, profile.new_page() as page:
        page.goto(site.url)
        page.evaluate(f"(at) => {{ {way} }}", f"http://127.0.0.1:{other.getsockname()[1]}/")
        other.settimeout(0.3)
        with pytest.raises(TimeoutError):
            other.accept()


def test_the_page_cannot_be_framed(profile: BrowserContext, site: Site):
    frame = f"<iframe src='{site.url}'></iframe>"
    with profile.new_page() as page:
        page.route("http://127.0.0.1:1/", lambda route: route.fulfill(body=frame, content_type="text/html"))
        with page.expect_event("requestfailed", lambda request: request.url == site.url):
            page.goto("http://127.0.0.1:1/")
        assert page.frames[1].url == "chrome-error://chromewebdata/"


KEPT = """async () => ({
  local: {...localStorage}, session: {...sessionStorage}, cookie: document.cookie, url: location.href,
  history: history.length, state: history.state, databases: await indexedDB.databases(),
  caches: await caches.keys(), workers: await navigator.serviceWorker.getRegistrations(),
})"""


def test_nothing_is_kept_in_the_browser(opened: Open, site: Site):
    page = opened()
    ask_for_a_draft(page)
    expect(reply(page)).not_to_have_value("")
    ask_for_an_improvement(page)
    expect(page.locator("#changes ins").first).to_be_visible()
    kept = page.evaluate(KEPT)
    assert kept.pop("history") <= 2
    assert kept == {
        "local": {}, "session": {}, "cookie": "", "url": site.url, "state": None,
        "databases": [], "caches": [], "workers": [],
    }  # fmt: skip
    assert page.context.cookies() == []


@pytest.mark.parametrize("way", ["reload", "away and back"])
def test_key_and_texts_are_gone_after_leaving(opened: Open, site: Site, way: str):
    page = opened()
    ask_for_a_draft(page)
    expect(reply(page)).not_to_have_value("")
    page.on("dialog", lambda dialog: dialog.accept())
    if way == "reload":
        page.reload()
    else:
        page.goto(f"{site.url}playground/settings.json")
        page.go_back()
    expect(page.get_by_label("Key of this service")).to_be_visible()
    for field in ("#key", "#title", "#text", "#reply"):
        expect(page.locator(field)).to_have_value("")
    ask_for_a_draft(page)
    expect(page.locator("#key-problem")).to_contain_text("A key is needed.")


def test_leaving_a_written_reply_is_asked_about(opened: Open, site: Site):
    page, asked = opened(), []
    reply(page).press_sequentially("My words.")
    page.on("dialog", lambda dialog: (asked.append(dialog.type), dialog.accept()))
    page.reload()
    assert asked == ["beforeunload"]


def test_the_key_is_sent_in_the_header_alone(opened: Open, site: Site):
    page, key, seen = opened(key=None), site.keys["ordinary"], []
    page.on("request", lambda request: seen.append((request.url, request.post_data, request.all_headers())))
    page.get_by_label("Key of this service").fill(key)
    page.get_by_role("button", name="Use this key").click()
    ask_for_a_draft(page)
    expect(reply(page)).not_to_have_value("")
    carried = {url: headers["authorization"] for url, _, headers in seen if "authorization" in headers}
    assert carried == {f"{site.url}v1/generate": f"Bearer {key}"}
    assert all(key not in url and key not in (body or "") for url, body, _ in seen)
    assert key not in page.content()
