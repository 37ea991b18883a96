"""The stage ``revisions`` through real Ray and a real HTTP server, with runs and actors that are killed."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pyarrow.parquet as pq
import pytest

from cluster.session import tune_data
from configs import Settings
from configs.errors import ConfigError, DataError, EngineError
from configs.load import to_yaml
from pipelines.layout import Layout
from pipelines.pairs import sft
from pipelines.pairs.im import store
from pipelines.pairs.im.build import build, depends, preview
from tests.pipelines.pairs.im.making import corpus, rows, settings_for, written
from tests.pipelines.pairs.im.school import School, improved


@pytest.fixture(autouse=True)
def _ray(ray_cluster: None) -> None:
    tune_data()


@pytest.fixture
def school() -> Iterator[School]:
    with School() as found:
        yield found


def taught(folder: Path, school: School, *sources: str, **changes: Any) -> Settings:
    """Settings with the school as the teacher."""
    teacher = {"base_url": school.url, "model": "teacher-1", "backoff_s": 0.01, "timeout_s": 5, **changes}
    return settings_for(folder, sources=sources or ["teacher"], teacher=teacher)


def test_community_and_teacher_each_give_their_revisions_and_a_rerun_asks_for_nothing(school, tmp_path):
    inputs = written(tmp_path, corpus(12, drafts=2))
    settings = taught(tmp_path, school, "community", "teacher", max_per_post=1)
    assert preview(settings, inputs, tmp_path / "scratch").requests == 12
    assert not school.tries
    made = build(settings, inputs, tmp_path / "revisions")
    drafts = {reply["comment_id"]: reply["text"] for row in corpus(12, drafts=2) for reply in row["comments"][:2]}
    ours, theirs = (rows(tmp_path / "revisions", source) for source in ("community", "teacher"))
    assert {(row["original_id"], row["revision_id"], row["text"]) for row in ours} == {
        (f"p{i}c{k}", f"p{i}c2", None) for i in range(12) for k in range(2)
    }
    assert [row["text"] for row in theirs] == [improved(drafts[row["original_id"]]) for row in theirs]
    assert [row["revision_id"] for row in theirs] == [f"teacher:{row['original_id']}" for row in theirs]
    assert made.rows["candidates"].model_dump() == {"read": 24, "kept": 24, "dropped": {}}
    assert made.rows["drafts"].model_dump() == {"read": 24, "kept": 12, "dropped": {"over_post_cap": 12}}
    assert made.figures["community"]["train"]["pairs"] == 12
    assert made.figures["teacher"]["train"]["pairs"] == 6
    assert made.figures["budget"]["requests"] == 12
    assert not (tmp_path / "revisions" / "requests").exists()
    again = build(settings, inputs, tmp_path / "revisions")
    assert (again.figures["budget"]["answered"], again.figures["budget"]["requests"]) == (12, 0)
    assert set(school.answered.values()) == {1}
    assert rows(tmp_path / "revisions", "teacher") == theirs

    learned = sft.build(settings, {"threads": inputs["threads"], "revisions": tmp_path / "revisions"}, tmp_path / "sft")
    assert learned.rows["im"].model_dump() == {"read": 36, "kept": 36, "dropped": {}}
    written_rows = [
        row
        for split in ("train", "validation", "test")
        for file in (tmp_path / "sft" / "im" / split).glob("*.parquet")
        for row in pq.read_table(file, partitioning=None).to_pylist()
    ]
    assert sorted(row["comment_id"] for row in written_rows) == sorted(row["revision_id"] for row in [*ours, *theirs])
    assert all(row["original_id"] in drafts for row in written_rows)


@pytest.mark.slow
def test_a_run_killed_in_the_middle_is_taken_up_where_it_was(school, tmp_path):
    inputs = written(tmp_path, corpus(60))
    settings = taught(tmp_path, school, concurrency=4)
    school.delay_s = 0.1
    (tmp_path / "settings.yaml").write_text(to_yaml(settings))
    code = (
        "import sys, ray\nfrom pathlib import Path\nfrom configs import load\n"
        "from pipelines.pairs.im.build import build\n"
        "root = Path(sys.argv[1])\n"
        "ray.init(address='local', num_cpus=2, object_store_memory=200_000_000, include_dashboard=False)\n"
        "inputs = {name: root / name for name in ('threads', 'exposure')}\n"
        "build(load(root / 'settings.yaml'), inputs, root / 'revisions')\n"
    )
    run = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], start_new_session=True, stderr=subprocess.PIPE)
    try:
        wait_for(lambda: sum(school.answered.values()) >= 12, run)
    finally:
        family = [*psutil.Process(run.pid).children(recursive=True), psutil.Process(run.pid)]
        for process in family:
            process.send_signal(signal.SIGKILL)
        run.wait()
    wait_for(lambda: school.at_once == 0)
    before = dict(school.answered)
    assert 12 <= len(before) < 60
    assert not (tmp_path / "revisions").exists()
    school.delay_s = 0.0
    made = build(settings, inputs, tmp_path / "revisions")
    assert made.rows["drafts"].kept == 60
    assert made.figures["budget"]["answered"] >= len(before) - 4
    twice = [draft for draft, times in school.answered.items() if times > 1]
    assert len(twice) <= 4, "only what was on its way when the run was killed may be asked again"


@pytest.mark.slow
def test_an_actor_killed_in_the_middle_is_replaced_and_asks_only_for_what_is_missing(school, tmp_path):
    inputs = written(tmp_path, corpus(60), files=1)
    killed: list[int] = []

    def kill_once(draft: str) -> tuple[str, str]:
        with school.lock:
            if not killed and len(school.bodies) >= 20:
                killed.append(asker(school))
                os.kill(killed[0], signal.SIGKILL)
        return improved(draft), "stop"

    school.answer = kill_once
    made = build(taught(tmp_path, school, concurrency=4), inputs, tmp_path / "revisions")
    assert killed
    assert made.rows["drafts"].kept == 60
    assert len([draft for draft, times in school.answered.items() if times > 1]) <= 4


def asker(school: School) -> int:
    """The process at the other end of the school's connections."""
    port = school.server.server_address[1]
    for connection in psutil.net_connections("tcp"):
        if connection.raddr and connection.raddr.port == port and connection.pid not in {None, os.getpid()}:
            return int(connection.pid)
    raise AssertionError("nobody is connected")


def wait_for(happens: Callable[[], bool], run: "subprocess.Popen[bytes] | None" = None) -> None:
    """Wait until it happens, two minutes at most, and no longer than the process runs."""
    end = time.monotonic() + 120
    while not happens():
        assert time.monotonic() < end, "it did not happen"
        assert run is None or run.poll() is None, run and run.stderr and run.stderr.read().decode()[-2000:]
        time.sleep(0.02)


@pytest.mark.slow
def test_too_many_unanswered_requests_stop_the_run_and_few_are_dropped_by_name(school, tmp_path):
    school.failures = lambda draft, _: (503, {}) if "draft3x" in draft else None
    inputs = written(tmp_path, corpus(12), files=1)
    with pytest.raises(EngineError, match=r"left 1 of 12 requests without an answer \(status_503 1\).*run again"):
        build(taught(tmp_path, school, retries=1), inputs, tmp_path / "revisions")
    assert not (tmp_path / "revisions").exists()
    assert store.read(Layout(tmp_path).teacher).num_rows == 11
    made = build(taught(tmp_path, school, retries=1, max_failed_share=1), inputs, tmp_path / "revisions")
    assert made.rows["drafts"].model_dump() == {"read": 12, "kept": 11, "dropped": {"unanswered": 1}}
    assert made.figures["failures"] == {"status_503": 1}
    assert set(school.answered.values()) == {1}


def test_an_endpoint_that_refuses_the_run_is_named_in_one_line(tmp_path):
    with School(key="right") as school:
        inputs = written(tmp_path, corpus(8), files=1)
        with pytest.raises(ConfigError, match=r"^the teacher at .* status 401: .*api_key_env") as raised:
            build(taught(tmp_path, school), inputs, tmp_path / "revisions")
        assert "\n" not in str(raised.value)


def test_a_run_over_its_budget_or_to_a_public_address_asks_nothing(school, tmp_path):
    inputs = written(tmp_path, corpus(8), files=1)
    with pytest.raises(ConfigError, match=r"8 requests.*max_requests=7"):
        build(taught(tmp_path, school, max_requests=7), inputs, tmp_path / "revisions")
    with pytest.raises(ConfigError, match="must not leave your network"):
        build(taught(tmp_path, school, base_url="https://8.8.8.8/v1"), inputs, tmp_path / "revisions")
    with pytest.raises(ConfigError, match="names NO_SUCH_KEY"):
        build(taught(tmp_path, school, api_key_env="NO_SUCH_KEY"), inputs, tmp_path / "revisions")
    assert not school.tries


def test_a_corpus_without_revisions_is_refused_with_the_counts_and_the_settings(tmp_path):
    inputs = written(tmp_path, corpus(8), files=1)
    with pytest.raises(DataError, match=r"'content_lost': 8.*improvement\.floor"):
        build(settings_for(tmp_path, floor=1.0), inputs, tmp_path / "revisions")


def test_where_and_how_fast_the_teacher_is_asked_is_no_other_output(school, tmp_path):
    base = depends(taught(tmp_path, school))
    for same in ({"concurrency": 2}, {"retries": 9}, {"base_url": "http://10.0.0.1/v1"}, {"prompt_price": 3}):
        assert depends(taught(tmp_path, school, **same)) == base
    for other in ({"model": "other"}, {"temperature": 0.1}, {"max_per_post": 5}):
        assert depends(taught(tmp_path, school, **other)) != base
