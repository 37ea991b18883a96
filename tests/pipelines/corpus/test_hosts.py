"""The corpus while hosts leave and join: the same threads, made on the nodes of its pool only."""

import subprocess
import time
from pathlib import Path

import pytest

from configs.load import to_yaml
from pipelines.manifest import Manifest, read
from tests.hosts import BIN, Host, missing, network
from tests.pipelines.corpus.test_chaos import content, settings_for, write_dumps

LONGEST_S = 240


def settings_file(folder: Path, dumps: dict[str, list[Path]], head: Host) -> Path:
    """The tests' settings for a cluster with a pool for data."""
    made = settings_for(folder)
    corpus = {kind: tuple(str(file) for file in files) for kind, files in dumps.items()} | {"partitions": 24}
    changed = {
        "corpus": made.corpus.model_copy(update=corpus),
        "cluster": made.cluster.model_copy(
            update={"address": head.gcs(), "pools": made.cluster.pools.model_copy(update={"data": "data"})}
        ),
    }
    config = folder / "settings.yaml"
    config.write_text(to_yaml(made.model_copy(update=changed)))
    return config


def command(config: Path) -> list[str]:
    return [str(BIN / "llumi"), "corpus", str(config)]


@pytest.mark.slow
def test_a_host_leaves_and_another_joins_while_the_corpus_is_made(tmp_path: Path) -> None:
    if reason := missing():
        pytest.skip(reason)
    dumps = write_dumps(tmp_path)
    with network(3) as (head, first, second):
        head.start_ray()
        first.start_ray(head, labels="llumi/pool=data")
        shown = head.run(command(settings_file(tmp_path / "whole", dumps, head)), timeout=LONGEST_S)
        assert shown.returncode == 0, shown.stderr

        log = tmp_path / "driver.log"
        driver = head.start(command(settings_file(tmp_path / "disturbed", dumps, head)), log)
        wait_for_scattered_rows(tmp_path / "disturbed", driver, log)
        assert first.running("ray::") > 0
        assert head.running("ray::hold") == 0, "a task ran outside of the pool"
        first.crash()
        second.start_ray(head, labels="llumi/pool=data")
        assert driver.wait(timeout=LONGEST_S) == 0, log.read_text()[-3000:]
    whole, disturbed = manifest_of(tmp_path / "whole"), manifest_of(tmp_path / "disturbed")
    assert disturbed.rows == whole.rows
    assert content(tmp_path / "disturbed" / "threads") == content(tmp_path / "whole" / "threads")


def manifest_of(folder: Path) -> Manifest:
    made = read(folder / "threads")
    assert made is not None
    return made


def wait_for_scattered_rows(folder: Path, driver: subprocess.Popen[bytes], log: Path) -> None:
    """Until the first pass has written some of its rows."""
    deadline = time.monotonic() + LONGEST_S
    while not list(folder.glob(".threads.partial-*/scratch/*.arrow")):
        assert driver.poll() is None, f"ended before it was disturbed: {log.read_text()[-3000:]}"
        assert time.monotonic() < deadline
        time.sleep(0.01)
