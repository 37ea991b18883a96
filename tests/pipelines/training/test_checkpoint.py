"""Which checkpoint a restarted worker trusts."""

from pathlib import Path

import pytest

from pipelines.training.checkpoint import MARKER, marked, name_of, newest, step_of


@pytest.fixture
def storage(tmp_path: Path) -> Path:
    for step, complete in ((5, True), (10, True), (15, False)):
        folder = tmp_path / name_of(step)
        folder.mkdir()
        if complete:
            (folder / MARKER).write_text("{}")
    return tmp_path


def test_a_checkpoint_without_marker_is_not_trusted(storage: Path) -> None:
    assert newest(storage, None) == storage / name_of(10)


def test_a_marked_checkpoint_that_ray_had_no_time_to_register_is_used(storage: Path) -> None:
    assert newest(storage, storage / name_of(5)) == storage / name_of(10)


def test_one_that_ray_registered_is_used_where_it_is_newer(storage: Path) -> None:
    assert newest(storage, storage / name_of(15)) == storage / name_of(15)


def test_one_that_ray_registered_and_that_is_gone_is_not_used(storage: Path) -> None:
    assert newest(storage, storage / name_of(20)) == storage / name_of(10)


def test_a_first_start_begins_at_the_beginning(tmp_path: Path) -> None:
    assert newest(tmp_path / "never-made", None) is None


def test_checkpoints_are_ordered_by_step_and_not_by_spelling(tmp_path: Path) -> None:
    for name in ("checkpoint-9", "checkpoint-10"):
        (tmp_path / name).mkdir()
        (tmp_path / name / MARKER).write_text("{}")
    assert [step_of(folder) for folder in marked(tmp_path)] == [9, 10]
