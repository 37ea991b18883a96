"""What goes wrong around the store: nothing that was acknowledged is lost, nothing is half-written, answers go on."""

import asyncio
import os
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from uuid import uuid4

import pytest

from serving.feedback import writer as writer_module
from serving.feedback.crypt import Keys
from serving.feedback.records import StoreAway, Texts
from serving.feedback.store import FeedbackStore
from tests.pipelines.training.faults import may_mount, mounted
from tests.serving.feedback.giving import FIVE, given, rows
from tests.serving.feedback.postgres import Postgres

Make = Callable[..., FeedbackStore]


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """A store that is away is tried again soon."""
    monkeypatch.setattr(writer_module, "AGAIN_S", (0.05, 0.1))


def writer(url: str, key_file: Path, name: str, count: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tests.serving.feedback.writer", url, str(key_file), name, str(count)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})


def until(condition: Callable[[], bool]) -> None:
    """Wait for it."""
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end, "it never came to that"
        time.sleep(0.02)


def give(store: FeedbackStore, *names: str, **changes: object) -> None:
    """Answers at once."""

    async def way() -> None:
        await asyncio.gather(*(store.record(**given(name, **changes)) for name in names))

    asyncio.run(way())


def names(store: FeedbackStore) -> list[str]:
    """Ids of the answers that are kept."""
    return sorted(row["request_id"] for row in rows(store, "answers"))


def test_several_processes_that_start_on_an_empty_database_write_everything_once(
    url: str, key_file: Path, make: Make
) -> None:
    writers = [writer(url, key_file, name, 40) for name in "abc"]
    told = [process.communicate(timeout=120)[0].split() for process in writers]
    assert [process.returncode for process in writers] == [0, 0, 0]
    expected = sorted(f"{name}-{number}" for name in "abc" for number in range(40))
    assert sorted(name for names in told for name in names) == expected
    store = make()
    assert names(store) == expected
    assert len(rows(store, "ratings")) == len(expected)


def test_a_writer_that_is_killed_loses_nothing_it_was_told_is_kept_and_blocks_nobody(
    url: str, key_file: Path, make: Make
) -> None:
    process = writer(url, key_file, "killed", 100_000)
    assert process.stdout is not None
    told = [process.stdout.readline().strip() for _ in range(30)]
    process.kill()
    told += process.stdout.read().split()
    process.wait()
    store = make()
    give(store, "after")
    kept = rows(store, "answers")
    rated = {row["answer_id"] for row in rows(store, "ratings")}
    assert {row["request_id"] for row in kept if row["id"] in rated} >= {name for name in told if name}
    assert all(Keys(key_file).open(row["texts"]) == given()["texts"] for row in kept)
    if store.database.file is not None:
        with sqlite3.connect(store.database.file) as connection:
            assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


def test_a_full_disk_costs_feedback_and_no_answer_and_with_room_all_is_kept(tmp_path: Path, opening: Make) -> None:
    if not may_mount(tmp_path):
        pytest.skip("only root may mount a small disk to fill")
    with mounted(tmp_path / "disk", "size=600k") as disk:
        store = opening(wait_s=0.3, url=f"sqlite:///{disk / 'feedback.db'}")
        long = Texts("", "word " * 8000, ("a",))
        given_names = []
        for number in range(60):
            name = f"r{number:02}"
            give(store, name, texts=long, drafts=1)
            given_names.append(name)
            if store.writer.is_away:
                break
        assert store.writer.is_away
        give(store, "last", texts=long, drafts=1)

        async def rate() -> None:
            with pytest.raises(StoreAway):
                await store.rate("r00", "app", FIVE)

        asyncio.run(rate())
        subprocess.run(["mount", "-o", "remount,size=60m", str(disk)], check=True)
        until(lambda: not store.writer.waiting)
        assert names(store) == sorted([*given_names, "last"])
        asyncio.run(store.rate("last", "app", FIVE))
        store.close()
        with sqlite3.connect(disk / "feedback.db") as connection:
            assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        connection.close()


def test_a_server_that_goes_away_costs_feedback_and_no_answer_and_back_again_everything_is_kept(
    server: Postgres, opening: Make
) -> None:
    store = opening(wait_s=0.3, url=server.create(f"test_{uuid4().hex}"))
    give(store, "before")
    server.stop()
    try:
        give(store, *(f"during-{number}" for number in range(20)))
        until(lambda: store.writer.is_away)

        async def rate() -> None:
            with pytest.raises(StoreAway):
                await store.rate("before", "app", FIVE, index=0)

        asyncio.run(rate())
        assert len(store.writer.waiting) == 20
    finally:
        server.start()
    until(lambda: not store.writer.waiting and not store.writer.is_away)
    asyncio.run(store.rate("during-7", "app", FIVE, index=0))
    assert names(store) == sorted(["before", *(f"during-{number}" for number in range(20))])
    assert len(rows(store, "ratings")) == 1


def test_a_server_that_comes_up_after_the_service_gets_what_was_given_before(server: Postgres, opening: Make) -> None:
    url = server.create(f"test_{uuid4().hex}")
    server.stop()
    try:
        store = opening(wait_s=0.3, url=url)
        until(lambda: store.writer.is_away)
        give(store, "early")
    finally:
        server.start()
    until(lambda: not store.writer.waiting)
    assert names(store) == ["early"]


def test_another_writer_who_holds_the_file_delays_records_and_loses_none(tmp_path: Path, opening: Make) -> None:
    store = opening(wait_s=0.3, url=f"sqlite:///{tmp_path / 'held.db'}", timeout_s=0.2)
    give(store, "before")
    holder = sqlite3.connect(tmp_path / "held.db", isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    give(store, "during")
    until(lambda: store.writer.is_away)

    async def rate() -> None:
        with pytest.raises(StoreAway):
            await store.rate("before", "app", FIVE, index=0)

    asyncio.run(rate())
    holder.execute("ROLLBACK")
    holder.close()
    until(lambda: not store.writer.waiting)
    assert names(store) == ["before", "during"]


def test_memory_is_bounded_while_the_database_is_away_and_the_newest_are_kept(tmp_path: Path, opening: Make) -> None:
    (tmp_path / "place").write_text("a file where the folder should be")
    store = opening(wait_s=0.3, url=f"sqlite:///{tmp_path / 'place' / 'feedback.db'}", max_waiting=5)
    until(lambda: store.writer.is_away)
    give(store, *(f"r{number}" for number in range(8)))
    assert ([answer.request_id for answer, _ in store.writer.waiting], store.writer.lost) == (
        ["r3", "r4", "r5", "r6", "r7"],
        3,
    )
    (tmp_path / "place").unlink()
    until(lambda: not store.writer.waiting)
    assert names(store) == ["r3", "r4", "r5", "r6", "r7"]


def test_what_is_logged_of_a_failure_holds_no_word_of_anybody(
    tmp_path: Path, opening: Make, caplog: pytest.LogCaptureFixture
) -> None:
    store = opening(wait_s=0.3, url=f"sqlite:///{tmp_path / 'dropped.db'}")
    give(store, "before")
    with sqlite3.connect(tmp_path / "dropped.db") as connection:
        connection.execute("ALTER TABLE answers RENAME COLUMN texts TO words")
    connection.close()
    give_in_vain = given("secret-id")
    asyncio.run(asyncio.wait_for(_record_without_waiting(store, give_in_vain), 60))
    until(lambda: store.writer.is_away)
    assert "feedback.db" in caplog.text or "dropped.db" in caplog.text
    assert not any(word in caplog.text for word in ("sunrise", "first draft", "secret-id", "INSERT"))


async def _record_without_waiting(store: FeedbackStore, answer: dict[str, object]) -> None:
    task = asyncio.create_task(store.record(**answer))  # type: ignore[arg-type]
    while not store.writer.is_away:
        await asyncio.sleep(0.01)
    task.cancel()
