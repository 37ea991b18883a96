"""Many changes as one: before the journal nothing happened, after it everything will."""

import json
from pathlib import Path

import pytest

from pipelines.forgetting.staging import FOLDER, JOURNAL, Staging, recover


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name in ("a", "b", "c"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text("before")
    (tmp_path / "single").write_text("before")
    return tmp_path


def prepare(root: Path) -> Staging:
    staging = Staging(root)
    copy = staging.copy(root / "a")
    (copy / "file").unlink()
    (copy / "file").write_text("after")
    staging.place(root / "single").write_text("after")
    staging.place(root / "d" / "new").write_text("after")
    staging.remove(root / "b")
    return staging


def state(root: Path) -> dict[str, str]:
    return {str(path.relative_to(root)): path.read_text() for path in sorted(root.rglob("*")) if path.is_file()}


AFTER = {"a/file": "after", "c/file": "before", "d/new": "after", "single": "after"}


def test_nothing_changes_before_the_commit_and_all_of_it_after(root: Path) -> None:
    before = state(root)
    staging = prepare(root)
    assert {name: text for name, text in state(root).items() if not name.startswith(FOLDER)} == before
    staging.commit()
    assert state(root) == AFTER


def test_what_was_not_decided_is_thrown_away(root: Path) -> None:
    before = state(root)
    prepare(root)
    assert recover(root) is False
    assert state(root) == before
    prepare(root).close()
    assert state(root) == before


@pytest.mark.parametrize("done", range(5))
def test_what_was_decided_is_finished_from_wherever_it_was_left(root: Path, done: int) -> None:
    staging = prepare(root)
    folder = root / FOLDER
    (folder / JOURNAL).write_text(json.dumps(staging.operations))
    (folder / "old").mkdir()
    moves = [
        lambda: (root / "a").rename(folder / "old" / "0"),
        lambda: (folder / "new" / "a").rename(root / "a"),
        lambda: (folder / "new" / "single").replace(root / "single"),
        lambda: (root / "b").rename(folder / "old" / "3"),
    ]
    for move in moves[:done]:
        move()
    assert recover(root) is True
    assert state(root) == AFTER
    assert recover(root) is False
