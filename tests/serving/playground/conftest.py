"""A headless Chromium, and pages of it that reach nothing but the service under test."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")

from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

from tests.serving.playground.site import Site, running

CHROMIUM = Path("/usr/bin/chromium")
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
         "--disable-component-update", "--disable-sync"]  # fmt: skip
"""Without them Chromium looks for its maker's hosts at every start."""

Open = Callable[..., Page]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """One Chromium for the tests of a module; its event loop must not outlive them."""
    if not CHROMIUM.exists():
        pytest.skip(f"no Chromium at {CHROMIUM}: install Debian's package chromium")
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield started
        started.close()


@pytest.fixture(scope="module")
def shared_site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """One service for the tests of a module."""
    with running(tmp_path_factory.mktemp("playground"), 'serving.crisis_resources=["Emergency: 112"]') as site:
        yield site


@pytest.fixture
def site(shared_site: Site) -> Iterator[Site]:
    """The service, its models saying what they say by default."""
    said = dict(shared_site.said)
    yield shared_site
    shared_site.said = said
    shared_site.gm.token_s = shared_site.im.token_s = 0.0


@pytest.fixture(scope="module")
def profile(browser: Browser) -> Iterator[BrowserContext]:
    """A browser's profile that tests share: the page keeps nothing in it."""
    with browser.new_context() as context:
        yield context


@pytest.fixture
def opened(browser: Browser, profile: BrowserContext, site: Site) -> Iterator[Open]:
    """Opens the playground, with a key unless told otherwise; options of a context give it one of its own.

    Afterwards: nothing was asked of another host, the page threw nothing, and its policy was not
    broken by its own doing.
    """
    pages, contexts, requests, complaints = [], [], [], []

    def open_page(*, key: str | None = "ordinary", url: str = site.url, **options: Any) -> Page:
        if options:
            contexts.append(browser.new_context(**options))
        page = (contexts[-1] if options else profile).new_page()
        pages.append(page)
        page.on("request", lambda request: requests.append(request.url))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("console", lambda message: complaints.append(message.text) if "Policy" in message.text else None)
        page.set_default_timeout(10_000)
        page.goto(url)
        if key is not None:
            enter_key(page, site.keys.get(key, key))
        return page

    yield open_page
    for opened_one in [*pages, *contexts]:
        opened_one.close()
    assert not complaints
    assert [url for url in requests if not url.startswith("http://127.0.0.1:")] == []


def enter_key(page: Page, key: str) -> None:
    """As a volunteer does."""
    page.get_by_label("Key of this service").fill(key)
    page.get_by_role("button", name="Use this key").click()
