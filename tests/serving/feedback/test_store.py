"""Answers are kept, ratings and choices taken, by SQLite and by PostgreSQL."""

import asyncio
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import update

from configs.store import StoreSettings
from serving.feedback import statements
from serving.feedback.crypt import Keys
from serving.feedback.records import NoSuchDraft, SeveralRequests, Texts, UnknownRequest
from serving.feedback.store import FeedbackStore, now
from serving.feedback.tables import answers
from tests.serving.feedback.giving import FIVE, POST, given, rows


def test_an_answer_can_be_rated_as_soon_as_it_was_given(store: FeedbackStore) -> None:
    async def way() -> None:
        await store.record(**given())
        kept = await store.rate("r1", "app", FIVE, index=1)
        assert (kept.request_id, kept.index, kept.rater_id, kept.ratings) == ("r1", 1, "app", FIVE)

    asyncio.run(way())
    (answer,) = rows(store, "answers")
    assert (answer["model"], answer["version"], answer["risk"], answer["drafts"]) == ("gm", "v1", "none", 2)
    (rating,) = rows(store, "ratings")
    assert (rating["answer_id"], rating["draft"], rating["empathy"]) == (answer["id"], 1, 4)


def test_the_same_rating_twice_is_one_and_another_takes_its_place(store: FeedbackStore) -> None:
    async def way() -> None:
        await store.record(**given())
        for values in (FIVE, FIVE, {"empathy": 2}):
            await store.rate("r1", "app", values, index=0)
        await store.rate("r1", "app", {"safety": 5}, index=1)
        await store.rate("r1", "app", {"empathy": 1}, index=0, rater="volunteer-7")

    asyncio.run(way())
    found = {(row["rater_id"], row["draft"]): (row["empathy"], row["safety"]) for row in rows(store, "ratings")}
    assert found == {("app", 0): (2, None), ("app", 1): (None, 5), ("app/volunteer-7", 0): (1, None)}


def test_one_draft_is_chosen_and_a_choice_can_be_changed(store: FeedbackStore) -> None:
    async def way() -> None:
        await store.record(**given())
        for index in (0, 0, 1):
            await store.choose("r1", "app", index)

    asyncio.run(way())
    assert [(row["rater_id"], row["draft"]) for row in rows(store, "choices")] == [("app", 1)]


@pytest.mark.parametrize(("drafts", "index"), [(2, None), (2, 2), (1, 1), (0, None), (0, 0)])
def test_a_draft_that_is_not_there_cannot_be_rated(store: FeedbackStore, drafts: int, index: int | None) -> None:
    async def way() -> None:
        await store.record(**given(drafts=drafts))
        with pytest.raises(NoSuchDraft):
            await store.rate("r1", "app", FIVE, index=index)

    asyncio.run(way())
    assert not rows(store, "ratings")


def test_where_there_is_one_draft_there_is_no_choice(store: FeedbackStore) -> None:
    async def way() -> None:
        await store.record(**given(drafts=1))
        with pytest.raises(NoSuchDraft):
            await store.choose("r1", "app", 0)

    asyncio.run(way())


def test_what_another_key_asked_for_is_as_unknown_as_what_nobody_did(store: FeedbackStore) -> None:
    async def way() -> None:
        await store.record(**given())
        for request_id, key in (("r1", "other"), ("r2", "app")):
            with pytest.raises(UnknownRequest):
                await store.rate(request_id, key, FIVE, index=0)
            with pytest.raises(UnknownRequest):
                await store.choose(request_id, key, 0)

    asyncio.run(way())


def test_where_any_key_may_rate_its_own_answer_comes_first(make: Callable[..., FeedbackStore]) -> None:
    store = make(raters="any")

    async def way() -> None:
        await store.record(**given("r1", "one"))
        assert (await store.rate("r1", "page", FIVE, index=0)).rater_id == "page"
        await store.record(**given("r1", "two", model="im"))
        await store.rate("r1", "two", FIVE, index=0)
        with pytest.raises(SeveralRequests):
            await store.rate("r1", "page", FIVE, index=0)

    asyncio.run(way())
    numbers = {row["key_id"]: row["id"] for row in rows(store, "answers")}
    found = [(row["answer_id"], row["rater_id"]) for row in rows(store, "ratings")]
    assert found == [(numbers["one"], "page"), (numbers["two"], "two")]


def test_an_id_that_is_used_again_stands_for_the_newer_answer_until_something_was_said_of_it(
    store: FeedbackStore,
) -> None:
    async def way() -> None:
        await store.record(**given(version="v1"))
        await store.record(**given(version="v2"))
        assert [row["version"] for row in rows(store, "answers")] == ["v2"]
        await store.rate("r1", "app", FIVE, index=0)
        await store.record(**given(version="v3"))

    asyncio.run(way())
    assert [row["version"] for row in rows(store, "answers")] == ["v2"]


def test_words_are_kept_only_where_configured_and_then_only_encrypted(
    make: Callable[..., FeedbackStore], key_file: Path
) -> None:
    with_words, without = make(), make(keep_text=False, key_file=None)

    async def way() -> None:
        await with_words.record(**given("kept"))
        await without.record(**given("not"))

    asyncio.run(way())
    found = {row["request_id"]: row["texts"] for row in rows(without, "answers")}
    assert found["not"] is None
    assert Keys(key_file).open(found["kept"]) == given()["texts"]
    database = without.database
    if database.file is not None:
        without.close()
        with_words.close()
        content = b"".join(path.read_bytes() for path in database.file.parent.iterdir())
        assert POST.encode() not in content
        assert b"draft." not in content
        assert {oct(path.stat().st_mode & 0o777) for path in database.file.parent.iterdir()} == {"0o600"}


def test_words_that_have_no_utf8_are_kept_as_they_are(store: FeedbackStore, key_file: Path) -> None:
    odd = Texts("\ud83d", "a\x00b \U0001f642", ("\udfff",))

    async def way() -> None:
        await store.record(**given(texts=odd, drafts=1))

    asyncio.run(way())
    (row,) = rows(store, "answers")
    assert Keys(key_file).open(row["texts"]) == odd


def test_one_record_that_the_database_refuses_costs_no_other(store: FeedbackStore) -> None:
    async def way() -> None:
        await asyncio.gather(*(store.record(**given(f"r{n}", drafts=10**9 if n == 3 else 2)) for n in range(6)))

    asyncio.run(way())
    kept = {row["request_id"] for row in rows(store, "answers")}
    assert kept >= {"r0", "r1", "r2", "r4", "r5"}  # SQLite takes any number
    assert store.writer.lost == 6 - len(kept)


def test_what_is_past_its_days_goes_by_itself_with_what_was_said_of_it(
    make: Callable[..., FeedbackStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(statements, "AT_ONCE", 2)  # so that it takes several rounds
    first = make(retention_days=30)

    async def give() -> None:
        for name in ("old0", "old1", "old2", "old3", "new"):
            await first.record(**given(name))
            await first.rate(name, "app", FIVE, index=0)
            await first.choose(name, "app", 1)

    asyncio.run(give())
    with first.database.writing() as connection:
        old = answers.c.request_id != "new"
        connection.execute(update(answers).where(old).values(created=now() - timedelta(days=31)))
    first.close()
    second = make(retention_days=30)  # looks as soon as it is open
    end = time.monotonic() + 30
    while len(rows(second, "answers")) > 1 and time.monotonic() < end:
        time.sleep(0.05)
    assert [row["request_id"] for row in rows(second, "answers")] == ["new"]
    assert len(rows(second, "ratings")) == len(rows(second, "choices")) == 1


def test_a_store_that_is_switched_off_or_has_no_database_is_none() -> None:
    assert FeedbackStore.of(StoreSettings(enabled=False)) is None
    assert FeedbackStore.of(StoreSettings()) is None
