"""Drafts that a killed process left, and disks that are full."""

import errno
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from configs.errors import NoSpace
from pipelines.interrupted import draft_of, no_space
from pipelines.manifest import writing


def test_the_draft_of_a_process_that_is_gone_is_removed_and_that_of_a_running_one_stays(tmp_path: Path) -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    host = socket.gethostname()
    left = tmp_path / f".threads.partial-{host}-{gone.pid}"
    other = [tmp_path / f".threads.partial-{host}-{os.getppid()}", tmp_path / f".threads.partial-elsewhere-{gone.pid}"]
    for folder in (left, *other):
        folder.mkdir()
    mine = draft_of(tmp_path / "threads")
    assert mine.name == f".threads.partial-{host}-{os.getpid()}"
    assert not left.exists()
    assert all(folder.exists() for folder in other)


def test_a_full_disk_is_named_with_its_folder_however_it_was_wrapped(tmp_path: Path) -> None:
    for code in (errno.ENOSPC, errno.EDQUOT):
        wrapped = RuntimeError("a task failed")
        wrapped.__cause__ = OSError(code, "full")
        found = no_space(wrapped, tmp_path)
        assert found is not None
        assert str(tmp_path) in str(found)
        assert "make room there" in str(found)
    assert no_space(OSError(errno.EACCES, "not allowed"), tmp_path) is None
    assert no_space(ValueError("no space left"), tmp_path) is None


def test_nothing_is_left_of_an_output_that_did_not_fit(tmp_path: Path) -> None:
    with (
        pytest.raises(NoSpace, match="no space left to write to"),
        writing(tmp_path / "out", stage="s", settings={}, inputs={}) as draft,
    ):
        (draft.path / "half").write_text("x")
        raise OSError(errno.ENOSPC, "No space left on device")
    assert list(tmp_path.iterdir()) == []
