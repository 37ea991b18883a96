"""``llumi feedback ...``: the store looked after by hand, and what is told about it."""

import asyncio
from collections import namedtuple
from datetime import timedelta
from pathlib import Path

import psutil
import pytest
from rich.console import Console
from sqlalchemy import update

from cluster.cli import main
from cluster.feedback import prepare
from configs import Settings, load
from configs.errors import UsageError
from serving.feedback.crypt import Keys
from serving.feedback.store import FeedbackStore, now
from serving.feedback.tables import answers
from tests.serving.feedback.giving import FIVE, given, rows


class Run:
    """A run's folder with a store in it, and the command line on it."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]):
        self.output, self.keys, self.capsys = folder / "run", folder / "keys", capsys
        self.overrides = [f"output={self.output}", f"serving.feedback.key_file={self.keys}"]

    def llumi(self, *words: str) -> tuple[int, list[str], str]:
        """Exit code, lines on stdout, stderr."""
        given = [part for override in self.overrides for part in ("--set", override)]
        with pytest.raises(SystemExit) as ended:
            main(["feedback", *words, *(given if words[0] != "key" else [])])
        shown = self.capsys.readouterr()
        return int(ended.value.code or 0), shown.out.splitlines(), shown.err

    def settings(self, *more: str) -> Settings:
        return load("tiny", [*self.overrides, *more])

    def store(self) -> FeedbackStore:
        store = self.settings("serving.feedback.keep_text=true", "serving.feedback.wait_s=10").serving.feedback
        found = FeedbackStore.of(store.resolved(str(self.output)))
        assert found is not None
        return found

    def give(self, *names: str) -> None:
        """Answers whose drafts are rated."""

        async def way(store: FeedbackStore) -> None:
            for name in names:
                await store.record(**given(name))
                await store.rate(name, "app", FIVE, index=0)
                await store.rate(name, "app", dict.fromkeys(FIVE, 1), index=1)

        store = self.store()
        asyncio.run(way(store))
        store.close()


@pytest.fixture
def run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    run = Run(tmp_path, capsys)
    assert run.llumi("key", str(run.keys))[:2] == (
        0,
        ["keep a copy of it apart from the database: without it the texts are lost", str(run.keys)],
    )
    return run


def test_an_export_ends_with_the_files_path_and_says_how_to_go_on(run: Run) -> None:
    run.give("r1", "r2")
    code, lines, _ = run.llumi("export", "tiny")
    file = run.output / "feedback" / "served.jsonl"
    assert (code, lines[-1]) == (0, str(file))
    assert lines[0] == "answers with feedback: 2, of which 2 stand in 4 lines"
    assert "--set feedback.min_raters=1" in lines[1]
    assert f"llumi feedback tiny --set 'feedback.ratings=[\"{file}\"]'" in lines[2]
    assert len(file.read_bytes().splitlines()) == 4
    code, lines, _ = run.llumi("export", "tiny", str(run.output / "mine.jsonl"))
    assert (code, lines[-1]) == (0, str(run.output / "mine.jsonl"))


def test_purging_removes_what_is_older_and_a_dry_run_only_counts(run: Run) -> None:
    run.give("old", "new")
    store = run.store()
    with store.database.writing() as connection:
        old = answers.c.request_id == "old"
        connection.execute(update(answers).where(old).values(created=now() - timedelta(days=40)))
    would = run.llumi("purge", "tiny", "--days", "30", "--dry-run")
    assert (would[0], would[1][0]) == (0, "would be removed: 1 answers older than 30 days, with what was said of them")
    assert len(rows(store, "answers")) == 2
    code, lines, _ = run.llumi("purge", "tiny", "--days", "30")
    assert (code, lines[1]) == (0, "left: 1 answers, 2 ratings, 0 choices, 1 texts")
    assert [row["request_id"] for row in rows(store, "answers")] == ["new"]
    store.close()


def test_after_rotating_the_old_key_may_go(run: Run) -> None:
    run.give("r1", "r2")
    run.llumi("key", str(run.keys))
    code, lines, _ = run.llumi("rotate", "tiny")
    assert (code, lines[-1]) == (0, "the keys below it may go")
    run.keys.write_text(run.keys.read_text().split()[0])
    store = run.store()
    assert all(Keys(run.keys).open(row["texts"]) for row in rows(store, "answers"))
    store.close()
    run.keys.unlink()
    run.llumi("key", str(run.keys))
    code, _, error = run.llumi("rotate", "tiny")
    assert (code, "2 texts fit none of the keys" in error) == (1, True)


def test_a_schema_is_moved_and_shown(run: Run) -> None:
    assert run.llumi("migrate", "tiny")[1] == [f"{run.output}/serving/feedback.db: schema 0001"]
    assert run.llumi("migrate", "tiny", "--to", "base")[1][0].endswith("schema none, all tables are dropped")


def test_the_first_word_is_a_configuration_unless_it_is_a_command(run: Run) -> None:
    code, _, error = run.llumi("tiny")
    assert (code, error) == (2, "error: feedback/pairs does not apply: no ratings: DPO2 skipped\n")
    assert run.llumi("pairs", "tiny")[2] == error
    assert "configuration nothing is not there" in run.llumi("nothing")[2]


def test_where_nothing_was_ever_kept_the_error_says_what_keeps(run: Run) -> None:
    code, _, error = run.llumi("purge", "tiny")
    assert (code, "there is no feedback store; `llumi serve` makes it" in error) == (2, True)


def test_a_service_does_not_start_on_keys_that_cannot_be_read(run: Run) -> None:
    prepare(run.settings("serving.feedback.keep_text=true"), Console(stderr=True))
    assert (run.output / "serving" / "feedback.db").is_file()
    run.keys.write_text("no key")
    with pytest.raises(UsageError, match="keys:1: is no Fernet key"):
        prepare(run.settings("serving.feedback.keep_text=true"), Console(stderr=True))


def test_a_service_starts_without_its_database_and_says_so(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    prepare(run.settings("serving.feedback.url=postgresql://nobody@127.0.0.1:1/none"), Console(stderr=True, width=200))
    assert "127.0.0.1:1 fails: OperationalError; answers go on" in capsys.readouterr().err


def test_sqlite_on_a_network_is_refused_before_anything_starts(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    mount = namedtuple("Mount", "mountpoint fstype")
    mounts = [mount("/", "ext4"), mount(str(run.output.parent), "nfs4")]
    monkeypatch.setattr(psutil, "disk_partitions", lambda all: mounts)
    with pytest.raises(UsageError, match=r"lies on nfs4.*PostgreSQL"):
        prepare(run.settings(), Console(stderr=True))
