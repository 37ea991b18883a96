"""Which checkpoint a restarted worker trusts, which ones are kept, and what a storage that fails costs."""

import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import pytest

from configs.errors import TrainingError
from pipelines.training.checkpoint import (
    MARKER,
    Marker,
    SaveCheckpoints,
    at,
    check,
    marked,
    name_of,
    newest,
    resume_point,
    retained,
    step_of,
)
from pipelines.training.storage import waits
from tests.pipelines.training.faults import alone, may_mount, mounted, plan_at

RUN = "gm-sft-0123456789ab"


def saved(storage: Path, step: int, *, complete: bool = True, run: str = RUN) -> Path:
    """A checkpoint of two files, as two ranks leave it."""
    folder = storage / name_of(step)
    folder.mkdir(parents=True)
    files = {"trainer_state.json": b"{}", "global_step/zero_1.pt": b"12345"}
    for name, content in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(content)
    if complete:
        marker = Marker(run, step, 2, {name: len(content) for name, content in files.items()})
        (folder / MARKER).write_text(json.dumps(asdict(marker)))
    return folder


@pytest.fixture
def storage(tmp_path: Path) -> Path:
    for step, complete in ((5, True), (10, True), (15, False)):
        saved(tmp_path, step, complete=complete)
    return tmp_path


def found(storage: Path) -> int:
    checkpoint = newest(storage)
    return checkpoint.marker.step if checkpoint else 0


def test_a_checkpoint_without_marker_is_not_trusted(storage: Path) -> None:
    assert found(storage) == 10


def test_one_that_lost_a_file_is_not_trusted(storage: Path) -> None:
    (storage / name_of(10) / "global_step/zero_1.pt").unlink()
    assert found(storage) == 5


def test_one_whose_file_was_cut_short_is_not_trusted(storage: Path) -> None:
    (storage / name_of(10) / "global_step/zero_1.pt").write_bytes(b"123")
    assert found(storage) == 5


@pytest.mark.parametrize("text", ["", '{"step": 10}', "[1]", '{"run": "x", "st'])
def test_a_marker_that_was_cut_short_or_is_of_an_earlier_version_is_none(storage: Path, text: str) -> None:
    (storage / name_of(10) / MARKER).write_text(text)
    assert found(storage) == 5


def test_a_first_start_begins_at_the_beginning(tmp_path: Path) -> None:
    assert newest(tmp_path / "never-made") is None


def test_checkpoints_are_ordered_by_step_and_not_by_spelling(tmp_path: Path) -> None:
    for step in (9, 10):
        saved(tmp_path, step).rename(tmp_path / f"checkpoint-{step}")
    assert [checkpoint.marker.step for checkpoint in marked(tmp_path)] == [9, 10]


def test_the_checkpoint_of_a_step_is_found_by_its_step(storage: Path) -> None:
    assert at(storage, 5) == storage / name_of(5)
    assert at(storage, 15) is None
    assert at(storage, None) is None


def test_the_best_is_kept_beside_the_newest(tmp_path: Path) -> None:
    for step in range(1, 6):
        saved(tmp_path, step)
    assert {step_of(folder) for folder in retained(marked(tmp_path), 2, best=1)} == {1, 4, 5}
    assert {step_of(folder) for folder in retained(marked(tmp_path), 2, best=None)} == {4, 5}


@pytest.fixture
def group() -> Iterator[None]:
    with alone():
        yield


def test_resuming_clears_what_a_kill_left(group: None, tmp_path: Path) -> None:
    plan = plan_at(tmp_path)
    storage = Path(plan.storage)
    for step, complete in ((1, True), (2, True), (3, False)):
        saved(storage, step, complete=complete)
    (storage / "universal-00000002" / "global_step2").mkdir(parents=True)
    resumed = resume_point(plan)
    assert resumed is not None and resumed.marker.step == 2
    assert sorted(path.name for path in storage.iterdir()) == [name_of(1), name_of(2)]


def test_a_checkpoint_of_another_configuration_is_refused_by_name(tmp_path: Path) -> None:
    plan = plan_at(tmp_path)
    saved(Path(plan.storage), 4, run="gm-sft-ffffffffffff")
    with pytest.raises(TrainingError, match=r"checkpoint-00000004: .*gm-sft-ffffffffffff.*delete the folder"):
        check(plan)


def local(root: Path, size: int = 600_000) -> Path:
    """What one rank saved."""
    folder = root / "local"
    (folder / "global_step").mkdir(parents=True)
    (folder / "global_step" / "zero_0.pt").write_bytes(b"x" * size)
    (folder / "trainer_state.json").write_text("{}")
    return folder


def test_a_stored_checkpoint_is_whole_and_older_ones_go(group: None, tmp_path: Path) -> None:
    saving, folder = SaveCheckpoints(plan_at(tmp_path, keep_checkpoints=2)), local(tmp_path)
    for step in (1, 2, 3, 4):
        assert saving.store(folder, step, best=1)
    assert [checkpoint.marker.step for checkpoint in marked(saving.storage)] == [1, 3, 4]
    assert saving.skipped == 0


def test_leftovers_of_more_ranks_do_not_survive_in_a_checkpoint_saved_again(group: None, tmp_path: Path) -> None:
    saving, folder = SaveCheckpoints(plan_at(tmp_path)), local(tmp_path)
    stale = saving.storage / name_of(3) / "global_step" / "zero_1.pt"
    stale.parent.mkdir(parents=True)
    stale.write_bytes(b"of a rank that is no more")
    assert saving.store(folder, 3, best=None)
    assert not stale.exists()


@pytest.fixture
def full_disk(tmp_path: Path) -> Iterator[Path]:
    """Two megabytes, of which 1.8 are taken."""
    if not may_mount(tmp_path):
        pytest.skip("mounting a tmpfs needs root")
    with mounted(tmp_path / "disk", "size=2m") as disk:
        (disk / "filler").write_bytes(b"x" * 1_800_000)
        yield disk


def test_a_full_disk_that_has_room_at_the_third_attempt_costs_nothing(group: None, full_disk: Path) -> None:
    waited: list[float] = []

    def sleep(seconds: float) -> None:
        waited.append(seconds)
        if len(waited) == 2:
            (full_disk / "filler").unlink()

    saving = SaveCheckpoints(plan_at(full_disk, retries=2), sleep=sleep)
    assert saving.store(local(full_disk.parent), 7, best=None)
    assert waited == [0.01, 0.02]
    assert saving.skipped == 0 and found(saving.storage) == 7


def test_a_disk_that_stays_full_costs_this_checkpoint_and_no_other(
    group: None, full_disk: Path, caplog: pytest.LogCaptureFixture
) -> None:
    saving, folder = SaveCheckpoints(plan_at(full_disk, retries=1)), local(full_disk.parent)
    (full_disk / "filler").unlink()
    assert saving.store(folder, 6, best=None)
    (full_disk / "filler").write_bytes(b"x" * 1_000_000)
    assert not saving.store(folder, 7, best=None)
    assert "No space left on device" in caplog.text
    assert saving.skipped == 1
    assert [path.name for path in saving.storage.iterdir()] == [name_of(6)]
    (full_disk / "filler").unlink()
    assert saving.store(folder, 8, best=None)
    assert marked(saving.storage)[-1].marker.skipped == 1


def test_waits_double_up_to_a_minute() -> None:
    assert list(waits(8, 1.0)) == [1, 2, 4, 8, 16, 32, 60, 60]
