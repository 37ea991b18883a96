"""The playground in a real browser, as a volunteer uses it."""

import re
import sqlite3
from collections.abc import Iterator

import pytest
from playwright.sync_api import Page, expect

from configs.store import FILE, StoreSettings
from pipelines.feedback.ratings import DIMENSIONS
from serving.feedback.store import FeedbackStore
from tests.serving.playground.conftest import Open, enter_key
from tests.serving.playground.site import DRAFT, REVISION, Site, running

POST = "I had a long week at work and I am so tired of it all. Nobody asks how I am."
ACUTE = "I am going to kill myself tonight. I have the pills here."
ELEVATED = "I feel hopeless and I am a burden to everyone."


def ask_for_a_draft(page: Page, text: str = POST) -> None:
    page.get_by_label("Text", exact=True).fill(text)
    page.get_by_role("button", name="Write a draft").click()


def ask_for_an_improvement(page: Page) -> None:
    page.get_by_role("button", name="Ask for an improvement").click()


def reply(page: Page):
    return page.get_by_label("Reply", exact=True)


def focused(page: Page) -> str:
    return page.evaluate("document.activeElement.id || document.activeElement.textContent.trim()")


class TestTheWholeWay:
    def test_from_a_post_to_an_improved_reply(self, opened: Open):
        page = opened()
        page.get_by_label("Title").fill("Tired")
        ask_for_a_draft(page)
        expect(reply(page)).to_have_value(DRAFT)
        expect(page.get_by_text("A draft is in the reply below.")).to_be_visible()
        reply(page).fill(DRAFT)
        ask_for_an_improvement(page)
        changes = page.locator("#changes")
        expect(changes.locator("del").first).to_contain_text("worn out")
        expect(changes.locator("ins").first).to_contain_text("exhausted")
        expect(changes.locator("ins").last).to_contain_text("I am glad that you wrote here.")
        expect(page.locator("#revision-summary")).to_have_text(
            re.compile(r"^\d+ words added, \d+ words removed; about \d+ % of your content is kept\. ?$")
        )
        page.get_by_role("button", name="Take the changes").click()
        expect(reply(page)).to_have_value(REVISION)
        page.get_by_role("button", name="Back to the text before").click()
        expect(reply(page)).to_have_value(DRAFT)

    def test_what_the_helper_wrote_is_what_is_improved(self, opened: Open, site: Site):
        page = opened()
        ask_for_a_draft(page)
        expect(reply(page)).to_have_value(DRAFT)
        mine = f"{DRAFT} I can sit with you in this."
        reply(page).fill(mine)
        ask_for_an_improvement(page)
        expect(page.locator("#changes del").last).to_contain_text("in this.")
        assert "I can sit with you in this." in site.im.seen[-1][1][-1]["content"]
        page.get_by_role("button", name="Keep my reply").click()
        expect(page.locator("#revision")).to_be_hidden()
        expect(reply(page)).to_have_value(mine)

    def test_a_draft_replaces_what_was_written_only_until_it_is_taken_back(self, opened: Open):
        page = opened()
        reply(page).fill("My own words.")
        ask_for_a_draft(page)
        expect(reply(page)).to_have_value(DRAFT)
        page.get_by_role("button", name="Back to the text before").click()
        expect(reply(page)).to_have_value("My own words.")

    def test_starting_over_empties_everything_but_the_key(self, opened: Open):
        page = opened()
        ask_for_a_draft(page, ELEVATED)
        expect(page.locator("#risk")).to_be_visible()
        page.get_by_role("button", name="Start over").click()
        for field in ("#title", "#text", "#reply"):
            expect(page.locator(field)).to_have_value("")
        for part in ("#risk", "#revision", "#undo", "#rate-draft details"):
            expect(page.locator(part)).to_be_hidden()
        expect(page.get_by_text("A key is in use.")).to_be_visible()
        assert focused(page) == "text"

    def test_an_empty_post_is_asked_for_before_anything_is_sent(self, opened: Open, site: Site):
        page, seen = opened(), len(site.gm.seen)
        ask_for_a_draft(page, "   ")
        expect(page.locator("#text-problem")).to_have_text("Paste the post first.")
        expect(page.locator("#text")).to_have_attribute("aria-invalid", "true")
        assert focused(page) == "text"
        assert len(site.gm.seen) == seen

    def test_a_post_that_is_too_long_is_said_with_both_numbers(self, opened: Open):
        page = opened()
        ask_for_a_draft(page, "🙂" * 20_001)  # counted as the service does, not in UTF-16
        expect(page.locator("#text-problem")).to_contain_text("20001 characters; at most 20000")


class TestRisk:
    def test_nothing_found_is_not_called_safe(self, opened: Open):
        page = opened()
        ask_for_a_draft(page, "I moved here two months ago and still know nobody.")
        expect(page.locator("#risk-heading")).to_contain_text("No sign of risk was found")
        expect(page.locator("#risk")).to_contain_text("Rules can miss what a person would see")

    def test_what_is_too_little_for_a_warning_is_not_called_nothing(self, opened: Open):
        page = opened()
        ask_for_a_draft(page, "I moved here two months ago. I feel hopeless.")
        expect(page.locator("#risk-heading")).to_contain_text("Faint signs of risk")
        expect(page.locator("#risk")).to_contain_text("Rules that spoke: indirect.no_hope")

    def test_elevated_risk_stands_before_the_draft_with_local_help(self, opened: Open):
        page = opened()
        ask_for_a_draft(page, ELEVATED)
        panel = page.get_by_role("region", name="Elevated risk")
        expect(panel).to_contain_text("What to do")
        expect(panel.get_by_role("listitem")).to_have_text(["Emergency: 112"])
        expect(panel).to_contain_text("Rules that spoke: ")
        assert focused(page) == "risk-heading"
        expect(reply(page)).to_have_value(DRAFT)

    def test_acute_risk_gives_no_draft_and_says_what_to_do(self, opened: Open):
        page = opened()
        ask_for_a_draft(page, ACUTE)
        panel = page.get_by_role("region", name="Acute risk")
        expect(panel).to_contain_text("hand over to a trained person at once")
        expect(panel).to_contain_text("Emergency: 112")
        expect(page.locator("#post-status")).to_contain_text("No draft was given, because of the risk")
        expect(reply(page)).to_have_value("")
        assert focused(page) == "risk-heading"

    def test_a_key_for_acute_posts_gets_the_draft_below_the_warning(self, opened: Open):
        page = opened(key="acute")
        ask_for_a_draft(page, ACUTE)
        expect(page.get_by_role("region", name="Acute risk")).to_be_visible()
        expect(reply(page)).to_have_value(DRAFT)
        assert focused(page) == "risk-heading"

    def test_the_draft_for_one_post_does_not_stay_under_another_without_one(self, opened: Open):
        page = opened()
        ask_for_a_draft(page)
        expect(reply(page)).to_have_value(DRAFT)
        ask_for_an_improvement(page)
        expect(page.locator("#revision")).to_be_visible()
        ask_for_a_draft(page, ACUTE)
        expect(page.get_by_role("region", name="Acute risk")).to_be_visible()
        expect(reply(page)).to_have_value("")
        expect(page.locator("#revision")).to_be_hidden()
        expect(page.locator("#reply-status")).to_be_empty()

    def test_a_verdict_on_a_post_that_was_changed_says_so(self, opened: Open):
        page = opened()
        ask_for_a_draft(page)
        expect(page.locator("#risk")).to_be_visible()
        expect(page.locator("#risk-dated")).to_be_hidden()
        page.get_by_label("Text", exact=True).fill(ACUTE)
        expect(page.locator("#risk-dated")).to_contain_text("before you changed it")

    def test_a_draft_that_keeps_breaking_rules_is_refused_in_words(self, opened: Open, site: Site):
        site.said["gm"] = (
            "You should just take 40 pills of paracetamol. Call me at 555-123-4567 or visit https://x.example."
        )
        page = opened()
        ask_for_a_draft(page)
        said = page.locator("#post-status")
        expect(said).to_contain_text("No draft was given. The service says: no text that keeps the rules was written")
        expect(said).to_have_text(re.compile(r"Rules that it would have broken: [a-z_.]+(, [a-z_.]+)*\.$"))
        expect(reply(page)).to_have_value("")


class TestKeysAndErrors:
    def test_without_a_key_the_page_asks_for_one_and_goes_there(self, opened: Open):
        page = opened(key=None)
        ask_for_a_draft(page)
        expect(page.locator("#key-problem")).to_contain_text("A key is needed.")
        assert focused(page) == "key"

    def test_a_wrong_key_is_said_in_words_and_asked_for_again(self, opened: Open, site: Site):
        page = opened(key="llumi_0123456789ab_" + "x" * 43)
        ask_for_a_draft(page)
        expect(page.locator("#key-problem")).to_contain_text("This key was not accepted.")
        assert focused(page) == "key"
        enter_key(page, site.keys["ordinary"])
        page.get_by_role("button", name="Write a draft").click()
        expect(reply(page)).to_have_value(DRAFT)

    def test_a_key_with_a_space_in_it_is_not_sent(self, opened: Open):
        page = opened(key="llumi_a b")
        expect(page.locator("#key-problem")).to_contain_text("copy it whole")

    def test_the_key_is_forgotten_when_asked(self, opened: Open):
        page = opened()
        page.get_by_role("button", name="Forget it").click()
        expect(page.get_by_label("Key of this service")).to_have_value("")
        ask_for_a_draft(page)
        expect(page.locator("#key-problem")).to_contain_text("A key is needed.")

    def test_a_key_that_may_not_improve_is_told_so(self, opened: Open):
        page = opened(key="drafts only")
        ask_for_a_draft(page)
        expect(reply(page)).to_have_value(DRAFT)
        ask_for_an_improvement(page)
        expect(page.locator("#reply-problem")).to_contain_text("This key may not do that.")
        expect(page.locator("#reply")).not_to_have_attribute("aria-invalid", "true")

    def test_a_key_that_asks_too_often_is_told_to_wait(self, opened: Open):
        page = opened(key="once a minute")
        ask_for_a_draft(page)
        expect(reply(page)).to_have_value(DRAFT)
        page.get_by_role("button", name="Write a draft").click()
        expect(page.locator("#text-problem")).to_contain_text(
            re.compile(r"more than this key may ask for.*Wait \d+ seconds")
        )

    def test_a_busy_service_is_asked_again_after_the_time_it_names(self, opened: Open):
        page, busy = opened(), [{"Retry-After": "0"}, {"Retry-After": "1"}]
        refuse(page, "**/v1/generate", 503, busy)
        ask_for_a_draft(page)
        expect(page.get_by_text("The service is busy: asking again in 1 second")).to_be_visible()
        expect(reply(page)).to_have_value(DRAFT)

    def test_a_service_that_stays_busy_is_left_alone_after_three_times(self, opened: Open):
        page = opened()
        asked = refuse(page, "**/v1/generate", 503, [{"Retry-After": "0"}] * 9)
        ask_for_a_draft(page)
        expect(page.locator("#text-problem")).to_contain_text("The service is busy or restarting. Wait 0 seconds")
        assert len(asked) == 3

    @pytest.mark.parametrize(
        ("status", "words"), [(404, "does not offer it"), (500, r"failed .*\(500\)"), (504, "took too long")]
    )
    def test_an_answer_that_is_not_ours_is_still_said_in_words(self, opened: Open, status: int, words: str):
        page = opened()
        refuse(page, "**/v1/generate", status, [{}], body="<b>Internal</b> error")
        ask_for_a_draft(page)
        expect(page.locator("#text-problem")).to_have_text(re.compile(words))

    def test_a_service_that_is_gone_is_said_to_be_out_of_reach(self, opened: Open):
        page = opened()
        page.route("**/v1/generate", lambda route: route.abort("connectionrefused"))
        ask_for_a_draft(page)
        expect(page.locator("#text-problem")).to_contain_text("could not be reached")

    def test_escape_stops_the_request_on_the_service_too(self, opened: Open, site: Site):
        site.gm.token_s = 0.5
        page = opened()
        ask_for_a_draft(page)
        expect(page.get_by_text("Writing a draft … Escape stops it.")).to_be_visible()
        expect(page.get_by_role("button", name="Stop")).to_be_visible()
        wait_until(page, lambda: site.gm.in_progress() == 1)
        page.keyboard.press("Escape")
        expect(page.locator("#post-status")).to_have_text("Stopped.")
        wait_until(page, lambda: site.gm.in_progress() == 0)

    def test_a_second_press_while_a_draft_is_written_asks_nothing(self, opened: Open, site: Site):
        site.gm.token_s = 0.03
        page, seen = opened(), len(site.gm.seen)
        ask_for_a_draft(page)
        button = page.get_by_role("button", name="Write a draft")
        expect(button).to_have_attribute("aria-disabled", "true")
        for _ in range(3):
            button.press("Enter")
        expect(reply(page)).to_have_value(DRAFT)
        assert len(site.gm.seen) == seen + 1


def refuse(page: Page, pattern: str, status: int, headers: list[dict[str, str]], body: str = "") -> list[str]:
    """The first answers at ``pattern`` are these, as something before the service could give them; then it is asked."""
    asked: list[str] = []

    def answer(route):
        asked.append(route.request.url)
        if len(asked) > len(headers):
            route.continue_()
        else:
            route.fulfill(status=status, headers=headers[len(asked) - 1], body=body)

    page.route(pattern, answer)
    return asked


def wait_until(page: Page, true) -> None:
    """Polls; the test's own time limit ends it."""
    while not true():
        page.wait_for_timeout(20)


class TestRating:
    @pytest.fixture
    def store(self, tmp_path) -> Iterator[FeedbackStore]:
        store = FeedbackStore.of(StoreSettings().resolved(str(tmp_path)))
        assert store is not None
        yield store
        store.close()

    def test_five_ratings_of_a_revision_are_kept_with_its_request(self, opened: Open, tmp_path, store: FeedbackStore):
        with running(tmp_path, feedback=store) as site:
            page = opened(key=site.keys["ordinary"], url=site.url)
            ask_for_a_draft(page)
            expect(reply(page)).to_have_value(DRAFT)
            ask_for_an_improvement(page)
            page.get_by_text("Rate the revision").click()
            form = page.locator("#rate-revision")
            form.get_by_role("group", name="Readability").get_by_label("5 good").check()
            form.get_by_role("button", name="Send the rating").click()
            expect(form.get_by_role("alert")).to_have_text("Still to rate: empathy, connection, actionability, safety.")
            for score, dimension in enumerate(DIMENSIONS, 1):
                form.get_by_role("group", name=dimension.capitalize()).get_by_label(str(score)).check()
            form.get_by_role("button", name="Send the rating").click()
            expect(form.get_by_role("status")).to_have_text("Thank you: the rating was taken.")
        with sqlite3.connect(tmp_path / FILE) as kept:
            tables = [name for (name,) in kept.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
            rows = {table: kept.execute(f"SELECT * FROM {table}").fetchall() for table in tables}
        assert any({1, 2, 3, 4, 5} <= set(row) for table in rows.values() for row in table), rows

    def test_a_key_that_may_not_rate_is_told_so_beside_the_form(self, opened: Open, tmp_path, store: FeedbackStore):
        with running(tmp_path, feedback=store) as site:
            page = opened(key=site.keys["drafts only"], url=site.url)
            ask_for_a_draft(page)
            page.get_by_text("Rate the draft").click()
            for dimension in DIMENSIONS:
                page.get_by_role("group", name=dimension.capitalize()).get_by_label("3").check()
            page.get_by_role("button", name="Send the rating").click()
            expect(page.locator("#rate-draft").get_by_role("alert")).to_contain_text("This key may not do that.")


class TestWithoutAccessControl:
    def test_no_key_is_asked_for_and_no_rating_where_none_is_taken(self, opened: Open, tmp_path):
        with running(tmp_path, "serving.auth=none") as site:
            page = opened(key=None, url=site.url)
            ask_for_a_draft(page)
            expect(reply(page)).to_have_value(DRAFT)
            expect(page.locator("#key-section")).to_be_hidden()
            expect(page.get_by_text("Rate the draft")).to_be_hidden()
