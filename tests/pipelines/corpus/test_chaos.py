"""What a run leaves when a worker or the driver is killed or the disk is full, and that the next one completes."""

import hashlib
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from cluster.session import tune_data
from configs import Settings
from configs.errors import NoSpace
from pipelines.corpus.build import build
from pipelines.manifest import Manifest, read
from tests.pipelines.corpus.dumps import APRIL_2021, comment, post, zst

FILES, POSTS, COMMENTS = 5, 300, 4000
"""Dump files of each kind, posts and comments a file: some seconds of work for two cores."""


@pytest.fixture(scope="module")
def dumps(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Path]]:
    """Dumps whose comments lie in another file than their posts."""
    return write_dumps(tmp_path_factory.mktemp("dumps"))


def write_dumps(folder: Path) -> dict[str, list[Path]]:
    """``dumps`` in a folder."""
    posts, comments = [], []
    for file in range(FILES):
        rows = [post(f"p{file}n{i}") for i in range(POSTS)]
        posts.append(zst(folder / f"RS_{file}.zst", rows))
        replies = [
            comment(
                f"c{file}n{i}",
                f"p{(file + i) % FILES}n{i % POSTS}",
                body=f"reply {i * 7919 % 10007} to what you say there: {'take your time and rest ' * 12} {file} {i}",
                created_utc=APRIL_2021 + i,
            )
            for i in range(COMMENTS)
        ]
        comments.append(zst(folder / f"RC_{file}.zst", replies))
    return {"posts": posts, "comments": comments}


def settings_for(folder: Path) -> Settings:
    """One key for all runs, so that threads can be compared."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "author.key").write_text("a key for the tests of what is killed\n", encoding="ascii")
    (folder / "author.key").chmod(0o600)
    return Settings.model_validate({"output": str(folder), "corpus": {"cleaning": {"drop_near_duplicate": False}}})


def made(folder: Path, dumps: dict[str, list[Path]]) -> Manifest:
    """The corpus stage's output in ``folder``."""
    return build(settings_for(folder), dumps, folder / "threads")


def content(folder: Path) -> dict[str, str]:
    """SHA-256 of each file of threads."""
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in sorted(folder.glob("*.parquet"))}


@pytest.fixture(scope="module")
def whole(ray_cluster: None, dumps: dict[str, list[Path]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The threads of a run that nothing happened to."""
    folder = tmp_path_factory.mktemp("whole")
    manifest = made(folder, dumps)
    assert manifest.rows["comments"].read == FILES * COMMENTS
    assert manifest.rows["comments"].kept > 0.9 * FILES * COMMENTS
    return folder / "threads"


class Killer(threading.Thread):
    """Kills the first Ray worker that runs a task of one name, once."""

    def __init__(self, task: str):
        super().__init__(daemon=True)
        self.task, self.killed, self.over = task, 0, threading.Event()

    def run(self) -> None:
        """Look until one was there."""
        here = psutil.Process()
        while not self.over.is_set():
            for process in here.children(recursive=True):
                try:
                    title = process.cmdline()[:1]
                    if title and title[0].startswith("ray::") and self.task in title[0]:
                        process.kill()
                        self.killed = process.pid
                        return
                except psutil.Error:
                    continue
            time.sleep(0.002)


@pytest.mark.slow
@pytest.mark.parametrize("task", ["hold", "on_group"])
def test_a_worker_killed_in_mid_shuffle_changes_nothing(
    task: str, whole: Path, dumps: dict[str, list[Path]], tmp_path: Path
) -> None:
    killer = Killer(task)
    killer.start()
    manifest = made(tmp_path, dumps)
    killer.over.set()
    killer.join()
    assert killer.killed, f"no worker was seen to run {task}"
    assert content(tmp_path / "threads") == content(whole)
    undisturbed = read(whole)
    assert undisturbed is not None
    assert manifest.rows == undisturbed.rows
    assert [path.name for path in tmp_path.iterdir() if "partial" in path.name] == []
    assert not (tmp_path / "threads" / "scratch").exists()


@pytest.mark.slow
def test_a_killed_driver_leaves_no_half_output_and_the_next_run_completes(
    whole: Path, dumps: dict[str, list[Path]], tmp_path: Path
) -> None:
    script = f"""
        import ray
        from pathlib import Path
        from tests.pipelines.corpus.test_chaos import made
        ray.init(num_cpus=2, object_store_memory=200_000_000, include_dashboard=False, address="local")
        made(Path({str(tmp_path)!r}), { ({kind: [str(f) for f in files] for kind, files in dumps.items()})!r})
    """
    driver = subprocess.Popen([sys.executable, "-c", textwrap.dedent(script)], stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not list(tmp_path.glob(".threads.partial-*/scratch/*.arrow")):
        assert driver.poll() is None, "the driver ended before it was killed"
        assert time.monotonic() < deadline
        time.sleep(0.01)
    driver.send_signal(signal.SIGKILL)
    assert driver.wait() == -signal.SIGKILL
    assert not (tmp_path / "threads").exists()
    assert list(tmp_path.glob(".threads.partial-*"))
    made(tmp_path, dumps)
    assert content(tmp_path / "threads") == content(whole)
    assert not list(tmp_path.glob(".threads.partial-*"))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own with room for a few hundred kB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    asked = ["mount", "-t", "tmpfs", "-o", "size=600k", "tmpfs", str(disk)]
    if os.geteuid() != 0 or subprocess.run(asked, capture_output=True).returncode:
        pytest.skip("only root may mount a small disk to fill")
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=True)


def test_a_full_disk_is_named_leaves_nothing_and_with_room_the_run_completes(
    ray_cluster: None, small_disk: Path, whole: Path, dumps: dict[str, list[Path]]
) -> None:
    tune_data()
    with pytest.raises(NoSpace) as caught:
        made(small_disk, dumps)
    assert str(small_disk) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert [path.name for path in small_disk.iterdir()] == ["author.key"]
    subprocess.run(["mount", "-o", "remount,size=60m", str(small_disk)], check=True)
    made(small_disk, dumps)
    assert content(small_disk / "threads") == content(whole)
