"""Outputs are whole or absent, rows are conserved, and a stage is known to be current by its manifest."""

from pathlib import Path

import pytest

from configs.errors import DataError, StageOrderError
from pipelines import manifest
from pipelines.manifest import fingerprints, is_current, key_of, read, require, writing

ABOUT = {"stage": "stage", "settings": {"a": 1}, "inputs": {"x": "1"}}


def write(output: Path, **about: object) -> manifest.Manifest:
    with writing(output, **(ABOUT | about)) as draft:  # type: ignore[arg-type]
        (draft.path / "rows.txt").write_text("rows")
        draft.count("rows", read=3, kept=2, dropped={"deleted": 1, "other": 0})
    assert draft.manifest is not None
    return draft.manifest


def test_a_finished_output_carries_its_manifest(tmp_path: Path) -> None:
    made = write(tmp_path / "out")
    assert read(tmp_path / "out") == made
    assert made.rows["rows"].dropped == {"deleted": 1}
    assert made.files["rows.txt"] == 4
    assert (tmp_path / "out" / "settings.yaml").is_file()


def test_an_error_leaves_neither_output_nor_rest(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), writing(tmp_path / "out", **ABOUT) as draft:
        (draft.path / "half").write_text("x")
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []


def test_a_failed_rebuild_keeps_the_old_output(tmp_path: Path) -> None:
    made = write(tmp_path / "out")
    with pytest.raises(RuntimeError), writing(tmp_path / "out", **ABOUT):
        raise RuntimeError
    assert read(tmp_path / "out") == made


def test_rows_that_went_missing_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="read 3, kept 1"), writing(tmp_path / "out", **ABOUT) as draft:
        draft.count("rows", read=3, kept=1, dropped={"deleted": 1})
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("change", [{"settings": {"a": 2}}, {"inputs": {"x": "2"}}, {"stage": "other"}])
def test_an_output_is_current_only_for_its_own_settings_and_inputs(tmp_path: Path, change: dict[str, object]) -> None:
    write(tmp_path / "out")
    assert is_current(tmp_path / "out", **ABOUT)  # type: ignore[arg-type]
    assert not is_current(tmp_path / "out", **(ABOUT | change))  # type: ignore[arg-type]


def test_an_incomplete_input_names_the_command_that_makes_it(tmp_path: Path) -> None:
    with pytest.raises(StageOrderError, match="llumi corpus"):
        require(tmp_path, "llumi corpus")
    with pytest.raises(StageOrderError, match="not complete"):
        fingerprints({"threads": tmp_path})


def test_a_manifest_of_another_kind_is_refused(tmp_path: Path) -> None:
    (tmp_path / manifest.FILE).write_text("{}")
    with pytest.raises(DataError, match="not a manifest"):
        read(tmp_path)


def test_an_input_that_was_made_again_has_another_fingerprint(tmp_path: Path) -> None:
    write(tmp_path / "out")
    before = fingerprints({"out": tmp_path / "out", "name": "base"})
    write(tmp_path / "out", settings={"a": 2})
    after = fingerprints({"out": tmp_path / "out", "name": "base"})
    assert before["out"] != after["out"]
    assert before["name"] == after["name"]


def test_files_that_a_library_made_private_are_readable_like_others(tmp_path: Path) -> None:
    with writing(tmp_path / "out", **ABOUT) as draft:
        (draft.path / "weights").touch(mode=0o600)
        (draft.path / "other").touch()
    assert (tmp_path / "out" / "weights").stat().st_mode == (tmp_path / "out" / "other").stat().st_mode


def test_the_key_does_not_depend_on_the_order_of_settings() -> None:
    assert key_of("s", {"a": 1, "b": 2}, {}) == key_of("s", {"b": 2, "a": 1}, {})
