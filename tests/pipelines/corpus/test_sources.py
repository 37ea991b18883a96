"""Globs, local and as URIs."""

from pathlib import Path

import pytest

from configs.errors import MissingInput
from pipelines.corpus.sources import expand, located, open_file


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("RS_2.zst", "RS_1.zst", "RC_1.zst", "deep/RS_3.zst", "deep/er/RS_4.zst"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())
    return tmp_path


@pytest.mark.parametrize("scheme", ["", "file://"])
def test_a_glob_is_expanded_in_order_on_this_machine_and_by_uri(folder: Path, scheme: str) -> None:
    assert expand([f"{scheme}{folder}/RS_*.zst"]) == [f"{scheme}{folder}/RS_1.zst", f"{scheme}{folder}/RS_2.zst"]
    assert expand([f"{scheme}{folder}/RS_[!1].zst"]) == [f"{scheme}{folder}/RS_2.zst"]
    assert [Path(file).name for file in expand([f"{scheme}{folder}/**/RS_?.zst"])].count("RS_4.zst") == 1


@pytest.mark.parametrize("scheme", ["", "file://"])
def test_a_file_that_is_not_there_is_named(folder: Path, scheme: str) -> None:
    with pytest.raises(MissingInput, match=r"RS_9\.zst: no such file"):
        expand([f"{scheme}{folder}/RS_9.zst"])
    with pytest.raises(MissingInput, match=r"XX_\*\.zst: the glob matches no file"):
        expand([f"{scheme}{folder}/RS_1.zst", f"{scheme}{folder}/XX_*.zst"])
    with pytest.raises(MissingInput, match="the glob matches no file"):
        expand([f"{scheme}{folder}/nowhere/RS_*.zst"])


def test_a_folder_is_refused_with_the_way_out(folder: Path) -> None:
    with pytest.raises(MissingInput, match="is a folder; give its files"):
        expand([folder])


def test_a_file_named_twice_is_read_once(folder: Path) -> None:
    link = folder / "again.zst"
    link.symlink_to(folder / "RS_1.zst")
    assert expand([folder / "RS_1.zst", f"{folder}/RS_*.zst", link]) == [str(folder / f"RS_{i}.zst") for i in (1, 2)]


def test_local_files_are_paths_whose_change_a_fingerprint_follows(folder: Path) -> None:
    assert located([folder / "RC_1.zst", f"file://{folder}/RC_1.zst"]) == [
        folder / "RC_1.zst",
        f"file://{folder}/RC_1.zst",
    ]


def test_relative_globs_are_relative_to_the_working_directory(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder / "deep")
    assert expand(["../RC_*.zst", "er/*.zst"]) == [str(folder / "deep/../RC_1.zst"), str(folder / "deep/er/RS_4.zst")]


def test_a_file_opens_through_either_address(folder: Path) -> None:
    for address in (f"{folder}/deep/RS_3.zst", f"file://{folder}/deep/RS_3.zst"):
        with open_file(address) as stream:
            assert stream.read() == b"deep/RS_3.zst"
    with pytest.raises(MissingInput, match=r"gone\.zst: cannot be opened"):
        open_file(str(folder / "gone.zst"))


def test_an_unknown_scheme_is_one_clear_message() -> None:
    with pytest.raises(MissingInput, match="check the address"):
        expand(["nosuch://bucket/RS_*.zst"])
