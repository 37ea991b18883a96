"""With a keyboard, a screen reader, a phone, enlarged, in the dark: WCAG 2.2 AA, by axe and by use."""

from typing import Any

import pytest
from playwright.sync_api import Page, expect

from tests.serving.playground.conftest import Open
from tests.serving.playground.site import DRAFT, REVISION, Site
from tests.serving.playground.test_page import (
    ACUTE,
    ELEVATED,
    ask_for_a_draft,
    ask_for_an_improvement,
    focused,
    reply,
)

axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe-playwright-python is not installed")

PHONE: dict[str, Any] = {"viewport": {"width": 320, "height": 640}}
LOOKS: dict[str, dict[str, Any]] = {
    "light": {},
    "dark": {"color_scheme": "dark"},
    "phone": PHONE,
    "forced colours": {"forced_colors": "active"},
}
TOUCH = 24
"""Least width and height of a control, in CSS pixels (WCAG 2.5.8)."""


def check(page: Page) -> None:
    """No rule of axe is broken, and nothing sticks out to the side."""
    result = axe.Axe().run(page)
    assert not result.violations_count, result.generate_report()
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "the page scrolls sideways"


@pytest.mark.parametrize("look", LOOKS)
def test_no_state_of_the_page_breaks_a_rule(opened: Open, look: str):
    page = opened(key=None, **LOOKS[look])
    check(page)
    ask_for_a_draft(page)
    expect(page.locator("#key-problem")).not_to_be_empty()
    check(page)
    page.close()
    page = opened(**LOOKS[look])
    ask_for_a_draft(page, ELEVATED)
    expect(reply(page)).to_have_value(DRAFT)
    ask_for_an_improvement(page)
    expect(page.locator("#changes ins").first).to_be_visible()
    check(page)
    ask_for_a_draft(page, ACUTE)
    expect(page.get_by_role("region", name="Acute risk")).to_be_visible()
    check(page)


def test_the_whole_way_goes_by_keyboard(opened: Open, site: Site):
    page = opened(key=None)

    def go_to(name: str) -> None:
        for _ in range(30):
            if focused(page) == name:
                return
            page.keyboard.press("Tab")
        raise AssertionError(f"{name} was not reached by Tab")

    page.keyboard.press("Tab")
    assert focused(page) == "Skip to the post"
    go_to("key")
    page.keyboard.type(site.keys["ordinary"])
    page.keyboard.press("Enter")
    assert focused(page) == "key-state"
    go_to("text")
    page.keyboard.type("A long week. I am tired.")
    go_to("Write a draft")
    page.keyboard.press("Space")
    expect(reply(page)).to_have_value(DRAFT)
    assert focused(page) == "reply"
    page.keyboard.press("Control+End")
    page.keyboard.type(" Mine.")
    go_to("Ask for an improvement")
    page.keyboard.press("Enter")
    expect(page.locator("#revision")).to_be_visible()
    assert focused(page) == "revision-heading"
    go_to("take")
    page.keyboard.press("Enter")
    expect(reply(page)).to_have_value(REVISION)
    assert focused(page) == "reply"


def test_tab_goes_through_the_page_in_its_order_and_out_again(opened: Open):
    page = opened()
    ask_for_a_draft(page, ELEVATED)
    expect(reply(page)).to_have_value(DRAFT)
    ask_for_an_improvement(page)
    expect(page.locator("#revision")).to_be_visible()
    page.evaluate("document.activeElement.blur(); window.scrollTo(0, 0)")
    page.locator("h1").click()
    order: list[str] = []
    for _ in range(40):
        page.keyboard.press("Tab")
        if focused(page) in order or page.evaluate("document.activeElement === document.body"):
            break
        order.append(focused(page))
        outline = page.evaluate(
            "(({outlineStyle, outlineWidth}) => [outlineStyle, outlineWidth])(getComputedStyle(document.activeElement))"
        )
        assert outline == ["solid", "3px"], f"{order[-1]} shows no focus"
        assert page.evaluate(
            "(({top, bottom}) => bottom > 0 && top < innerHeight)(document.activeElement.getBoundingClientRect())"
        )
    assert order == [
        "forget-key", "title", "text", "Write a draft", "clear", "reply", "Ask for an improvement", "copy",
        "take", "leave",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "options", [PHONE, {"viewport": {"width": 640, "height": 400}}], ids=["phone", "200 % of 1280"]
)
def test_controls_are_large_enough_and_inside_the_page(opened: Open, options: dict[str, Any]):
    page = opened(**options)
    ask_for_a_draft(page, ELEVATED)
    expect(reply(page)).to_have_value(DRAFT)
    for control in page.locator("button:visible, input:visible, textarea:visible, summary:visible").all():
        box = control.bounding_box()
        assert box
        assert min(box["width"], box["height"]) >= TOUCH
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= options["viewport"]["width"]


def test_letters_at_twice_their_size_stay_readable(opened: Open):
    page = opened(viewport={"width": 1280, "height": 800})
    page.evaluate("document.documentElement.style.fontSize = '200%'")
    ask_for_a_draft(page, ELEVATED)
    expect(reply(page)).to_have_value(DRAFT)
    check(page)
    size = page.evaluate("getComputedStyle(document.querySelector('button.main')).fontSize")
    assert size == "32px"


def test_a_screen_reader_hears_what_changed(opened: Open):
    page = opened()
    ask_for_a_draft(page, ELEVATED)
    expect(page.get_by_role("status").filter(has_text="A draft is in the reply below.")).to_have_count(1)
    ask_for_an_improvement(page)
    expect(page.locator("#changes ins").last).to_be_visible()
    heard = page.locator("#changes").aria_snapshot()
    assert "removed: worn out" in heard
    assert "added: exhausted" in heard
    ask_for_a_draft(page, "")
    expect(page.get_by_role("alert").filter(has_text="Paste the post first.")).to_have_count(1)
    described = page.get_by_label("Text", exact=True).get_attribute("aria-describedby")
    assert "text-problem" in (described or "").split()


def test_nothing_moves_for_who_does_not_want_it(opened: Open):
    moves = "(e) => parseFloat(getComputedStyle(e).transitionDuration) > 0"
    moving = f"[...document.querySelectorAll('*')].filter({moves}).length"
    assert opened(reduced_motion="reduce").evaluate(moving) == 0
    assert opened(reduced_motion="no-preference").evaluate(moving) > 0
