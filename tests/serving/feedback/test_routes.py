"""/v1/feedback over HTTP: what an answer carries can be rated, and an error says what to send."""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest

from serving.access import keys
from serving.feedback.store import FeedbackStore
from tests.serving.feedback.giving import FIVE, rows
from tests.serving.running import ANSWER, DRAFT, POST, REVISION, Site, running

SAID = "something that nobody may read"


@pytest.fixture
def store(opening: Callable[..., FeedbackStore], tmp_path: Path) -> FeedbackStore:
    return opening(url=f"sqlite:///{tmp_path / 'feedback.db'}")


@pytest.fixture
def site(store: FeedbackStore, tmp_path: Path) -> Iterator[Site]:
    with running(tmp_path / "run", feedback=store, info={"version": "abc123"}) as site:
        yield site


def drafted(site: Site, n: int = 1, **options: Any) -> str:
    """Id of an answer with ``n`` drafts."""
    answer = site.post("/v1/generate", {"post": {**POST, "id": "ticket-7"}, "n": n, "temperature": 1}, **options)
    assert answer.status_code == 200, answer.text
    return str(answer.json()["request_id"])


def code(response: httpx.Response) -> tuple[int, str, str | None]:
    """Status, code and field of an error."""
    error = response.json()["error"]
    return response.status_code, error["code"], error["param"]


def test_a_draft_is_rated_by_the_id_that_its_answer_carried(site: Site, store: FeedbackStore) -> None:
    request_id = drafted(site)
    first = site.post("/v1/feedback", {"request_id": request_id, "ratings": FIVE})
    assert first.status_code == 200
    kept = first.json()
    assert {name: kept[name] for name in ("request_id", "index", "ratings", "chosen")} == {
        "request_id": request_id,
        "index": 0,
        "ratings": FIVE,
        "chosen": False,
    }
    again = site.post("/v1/feedback", {"request_id": request_id, "ratings": FIVE})
    assert again.json() | {"updated": None} == kept | {"updated": None}
    (answer,) = rows(store, "answers")
    assert (answer["kind"], answer["model"], answer["version"], answer["risk"]) == ("generate", "gm", "abc123", "none")
    assert (answer["post_id"], answer["drafts"], answer["key_id"]) == ("ticket-7", 1, "local")
    assert len(rows(store, "ratings")) == 1


def test_one_of_several_drafts_is_chosen(site: Site, store: FeedbackStore) -> None:
    request_id = drafted(site, 3)
    chosen = site.post("/v1/feedback", {"request_id": request_id, "chosen_index": 2, "rater": "volunteer-7"})
    assert (chosen.status_code, chosen.json()["index"], chosen.json()["ratings"]) == (200, 2, None)
    assert [(row["rater_id"], row["draft"]) for row in rows(store, "choices")] == [("local/volunteer-7", 2)]


def test_a_revision_keeps_the_draft_that_it_revises(site: Site, store: FeedbackStore) -> None:
    answer = site.post("/v1/improve", {"post": POST, "draft": DRAFT}).json()
    assert site.post("/v1/feedback", {"request_id": answer["request_id"], "ratings": FIVE}).status_code == 200
    (row,) = rows(store, "answers")
    assert (row["kind"], row["model"]) == ("improve", "im")
    assert store._keys is not None
    texts = store._keys.open(row["texts"])
    assert texts is not None
    assert (texts.post, texts.draft, texts.answers) == (POST["text"], DRAFT, (REVISION,))


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"ratings": FIVE}, (422, "missing", "request_id")),
        ({"request_id": "ID"}, (422, "ratings_or_choice", "ratings, chosen_index")),
        ({"request_id": "ID", "ratings": FIVE, "chosen_index": 0}, (422, "ratings_or_choice", "ratings, chosen_index")),
        ({"request_id": "ID", "chosen_index": 0, "index": 0}, (422, "ratings_or_choice", "index")),
        ({"request_id": "ID", "ratings": {}}, (422, "empty", "ratings")),
        ({"request_id": "ID", "ratings": {"empathy": 6}}, (422, "less_than_equal", "ratings.empathy")),
        ({"request_id": "ID", "ratings": {"empathy": 0}}, (422, "greater_than_equal", "ratings.empathy")),
        ({"request_id": "ID", "ratings": {"empathy": "4"}}, (422, "int_type", "ratings.empathy")),
        ({"request_id": "ID", "ratings": {SAID: 4}}, (422, "unknown_field", "ratings")),
        ({"request_id": "ID", "ratings": FIVE}, (422, "index_needed", "index")),
        ({"request_id": "ID", "ratings": FIVE, "index": 2}, (422, "no_such_draft", "index")),
        ({"request_id": "ID", "chosen_index": 2}, (422, "no_such_draft", "index")),
        ({"request_id": "ID", "ratings": FIVE, "index": 0, "rater": SAID}, (422, "string_pattern_mismatch", "rater")),
        ({"request_id": "other", "ratings": FIVE}, (404, "unknown_request_id", "request_id")),
        ({"request_id": SAID, "ratings": FIVE}, (422, "string_pattern_mismatch", "request_id")),
    ],
)
def test_what_does_not_fit_is_named_and_not_repeated(
    site: Site, store: FeedbackStore, body: dict[str, Any], expected: tuple[int, str, str | None]
) -> None:
    request_id = drafted(site, 2)
    response = site.post("/v1/feedback", {k: request_id if v == "ID" else v for k, v in body.items()})
    assert code(response) == expected
    assert SAID not in response.text
    assert not rows(store, "ratings") + rows(store, "choices")


def test_an_answer_without_a_draft_can_be_found_but_not_rated(site: Site) -> None:
    acute = {"title": "Goodbye", "text": "I am going to kill myself tonight. I have the pills here."}
    answer = site.post("/v1/generate", {"post": acute}).json()
    assert answer["drafts"] == []
    response = site.post("/v1/feedback", {"request_id": answer["request_id"], "ratings": FIVE})
    assert code(response) == (422, "no_draft", "request_id")


def test_only_a_key_with_the_scope_may_and_only_about_its_own_answers(store: FeedbackStore, tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    key = partial(keys.create, file, "test")
    (portal, _), (mute, _), (other, _) = key(("generate", "feedback")), key(("generate",)), key(("feedback",))
    options = ("serving.auth=keys", f"serving.access.keys_file={file}", "serving.access.counters=memory")
    with running(tmp_path / "run", *options, feedback=store) as site:

        def bearer(secret: str) -> dict[str, str]:
            return {"authorization": f"Bearer {secret}"}

        body = {"request_id": drafted(site, headers=bearer(portal)), "ratings": FIVE}
        of_mute = {"request_id": drafted(site, headers=bearer(mute)), "ratings": FIVE}
        assert site.post("/v1/feedback", body).status_code == 401
        assert code(site.post("/v1/feedback", of_mute, headers=bearer(mute)))[:2] == (403, "insufficient_scope")
        assert code(site.post("/v1/feedback", body, headers=bearer(other)))[:2] == (404, "unknown_request_id")
        assert site.post("/v1/feedback", body, headers=bearer(portal)).status_code == 200
    assert len(rows(store, "ratings")) == 1


def test_where_the_database_is_away_answers_go_on_and_feedback_is_told_to_come_again(
    opening: Callable[..., FeedbackStore], tmp_path: Path
) -> None:
    (tmp_path / "place").write_text("a file where the folder should be")
    store = opening(url=f"sqlite:///{tmp_path / 'place' / 'feedback.db'}", wait_s=0.1)
    with running(tmp_path / "run", feedback=store) as site:
        answer = site.post("/v1/generate", {"post": POST}).json()
        assert answer["drafts"][0]["text"] == ANSWER
        response = site.post("/v1/feedback", {"request_id": answer["request_id"], "ratings": FIVE})
        assert code(response) == (503, "feedback_unavailable", None)
        assert int(response.headers["retry-after"]) > 0
        assert str(tmp_path) not in response.text


def test_without_a_store_there_is_no_such_route(tmp_path: Path) -> None:
    with running(tmp_path) as site:
        assert code(site.post("/v1/feedback", {"request_id": "r", "ratings": FIVE}))[:2] == (404, "not_found")
