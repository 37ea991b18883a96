"""Commands as jobs: what they need and are called, and real ones on a real cluster with dashboard and token."""

import re
import signal
import subprocess
import sys
import time
from pathlib import Path

from cluster import jobs
from configs import load

LLUMI = [sys.executable, "-m", "cluster.cli"]


def test_llumi_in_a_job_runs_the_uploaded_code():
    assert jobs.entrypoint(["llumi", "run", "demo"]) == "python -m cluster.cli run demo"


def test_other_commands_are_quoted_for_the_shell():
    assert jobs.entrypoint(["python", "-c", "print('a b')"]) == """python -c 'print('"'"'a b'"'"')'"""


def test_submission_ids_never_repeat_and_name_the_command():
    ids = {jobs.unique_id(["llumi", "train", "x"]) for _ in range(100)}
    assert len(ids) == 100
    assert all(re.fullmatch(r"llumi-train-\d{8}-\d{6}-[0-9a-f]{6}", name) for name in ids)


def test_each_command_asks_for_what_it_needs():
    settings = load("production")
    asked = {
        verb: sum(need.count for need in jobs.asked(settings, ["llumi", verb, "production"]))
        for verb in ("run", "train", "corpus", "serve", "config")
    }
    assert asked == {"run": 16, "train": 16, "corpus": 1, "serve": 6, "config": 0}


def test_no_command_is_a_usage_error():
    shown = subprocess.run([*LLUMI, "submit", "demo", "--"], capture_output=True, text=True, check=False)
    assert shown.returncode == 2


def submit(cluster, *arguments: str, config: str = "demo", **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*LLUMI, "submit", config, "--set", f"cluster.jobs_address={cluster.dashboard}", *arguments],
        capture_output=True,
        text=True,
        check=False,
        env=cluster.env | env,
        timeout=240,
    )


def test_a_stage_runs_as_a_job_with_its_log_here_and_its_exit_code_ours(job_cluster, tmp_path):
    options = ["--set", f"output={tmp_path}/out", "--set", "sample.threads=30"]
    shown = submit(job_cluster, "--", "llumi", "corpus", "demo", *options)
    assert shown.returncode == 0, shown
    assert f"{tmp_path}/out/threads" in shown.stdout
    assert "corpus: made in" in shown.stdout
    assert (tmp_path / "out" / "threads" / "manifest.json").is_file()
    assert re.search(r"submitting llumi-corpus-\S+ to \S+ with \d\.\d MB of code", shown.stderr)


def test_a_job_that_fails_ends_us_with_its_exit_code_and_its_one_line(job_cluster):
    shown = submit(job_cluster, "--", "llumi", "run", "no/such.yaml")
    assert shown.returncode == 2
    assert "error: configuration no/such.yaml is not there" in shown.stdout
    assert "Traceback" not in shown.stdout + shown.stderr


def test_a_job_that_the_cluster_can_never_hold_is_not_submitted(job_cluster):
    shown = submit(job_cluster, "--", "llumi", "train", "production", config="production", RAY_ADDRESS="")
    assert shown.returncode == 1
    assert "16 x (8 CPU, 1 GPU" in shown.stderr
    assert "2 CPU" in shown.stderr
    assert "submitting" not in shown.stderr


def test_code_that_is_too_large_is_refused_before_the_upload(job_cluster):
    shown = submit(job_cluster, "--set", "cluster.max_upload_mb=0.01", "--", "llumi", "config", "demo")
    assert shown.returncode == 2
    assert "more than cluster.max_upload_mb = 0.01; largest: " in shown.stderr


def test_without_the_token_we_are_refused_and_told_what_to_set(job_cluster):
    shown = submit(job_cluster, "--", "llumi", "config", "demo", RAY_AUTH_MODE="disabled", RAY_AUTH_TOKEN="")
    assert shown.returncode == 1
    assert "RAY_AUTH_MODE=token" in shown.stderr


def test_detached_it_only_prints_the_id_and_ctrl_c_stops_one_that_is_followed(job_cluster, tmp_path):
    shown = submit(job_cluster, "--detach", "--", "python", "-c", f"open('{tmp_path}/ran', 'w')")
    assert shown.returncode == 0
    assert re.fullmatch(r"llumi-python-\d{8}-\d{6}-[0-9a-f]{6}\n", shown.stdout)
    wait_for(tmp_path / "ran")

    mark = tmp_path / "begun"
    code = f"import time; open('{mark}', 'w'); time.sleep(300); open('{tmp_path}/through', 'w')"
    options = ["--set", f"cluster.jobs_address={job_cluster.dashboard}"]
    process = subprocess.Popen(
        [*LLUMI, "submit", "demo", *options, "--", "python", "-c", code],
        env=job_cluster.env,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    wait_for(mark)
    process.send_signal(signal.SIGINT)
    stderr = process.communicate(timeout=60)[1]
    assert process.returncode == 130, stderr
    assert "stopping llumi-python-" in stderr
    assert "Traceback" not in stderr
    assert not (tmp_path / "through").exists()


def wait_for(path: Path, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not path.exists():
        assert time.monotonic() < end, f"{path.name} did not appear"
        time.sleep(0.1)
