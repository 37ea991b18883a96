"""The command line: help, exit codes, one line for each bad input, nothing half-written."""

import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import typer
import yaml

from cluster.cli import app, main
from configs import load
from pipelines.manifest import writing

LLUMI = [sys.executable, "-m", "cluster.cli"]


class Shown:
    """What a command printed and how it ended."""

    def __init__(self, code: int, out: str, err: str):
        self.code, self.out, self.err = code, out, err

    def __repr__(self) -> str:
        return f"exit {self.code}\n{self.out}\n{self.err}"


@pytest.fixture
def llumi(capsys):
    def call(*arguments: object) -> Shown:
        with pytest.raises(SystemExit) as ended:
            main([str(argument) for argument in arguments])
        shown = capsys.readouterr()
        return Shown(int(ended.value.code or 0), shown.out, shown.err)

    return call


def one_line(shown: Shown) -> str:
    """The only line on stderr, which starts with ``error:``."""
    assert shown.err.count("\n") == 1, shown
    assert shown.err.startswith("error: "), shown
    return shown.err


def test_help_names_every_command():
    shown = subprocess.run([*LLUMI, "--help"], capture_output=True, text=True, check=True).stdout
    assert set(re.findall(r"^│ ([a-z]+) ", shown, re.MULTILINE)) == set(typer.main.get_command(app).commands)


def test_help_imports_nothing_heavy():
    heavy = {"ray", "torch", "transformers", "pyarrow", "numpy"}
    code = f"import sys, cluster.cli; print(sorted({heavy!r} & set(sys.modules)))"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert shown.strip() == "[]"


@pytest.mark.parametrize("arguments", [["version"], ["--version"]])
def test_the_version_is_that_of_the_distribution(arguments, llumi):
    shown = llumi(*arguments)
    assert (shown.code, shown.out.strip()) == (0, "0.1.0")


def test_config_prints_what_loads_again(llumi, tmp_path):
    shown = llumi("config", "demo", "--set", "training.workers=4")
    (tmp_path / "shown.yaml").write_text(shown.out, encoding="utf-8")
    assert load(tmp_path / "shown.yaml") == load("demo", ["training.workers=4"])


@pytest.mark.parametrize(
    "arguments",
    [
        ["nonsense"],
        ["run"],
        ["train", "demo"],
        ["train", "demo", "--model", "xx", "--stage", "sft"],
        ["run", "demo", "--nope"],
        ["rollout", "start", "demo", "--model", "gm", "--to", "/models/gm", "--share", "1.5"],
        ["rollout", "share", "demo", "--model", "gm", "-1"],
    ],
)
def test_a_misspelt_command_is_a_usage_error(arguments, llumi):
    shown = llumi(*arguments)
    assert shown.code == 2
    assert "Traceback" not in shown.err


@pytest.mark.parametrize(
    ("arguments", "code", "named"),
    [
        (["run", "no/such.yaml"], 2, "no/such.yaml is not there"),
        (["config", "demo", "--set", "trainig.workers=2"], 2, "unknown key trainig"),
        (["config", "demo", "--set", "training.workers=0"], 2, "training.workers"),
        (["run", "demo", "--until", "nowhere"], 2, "no stage nowhere"),
        (["run", "demo", "--force", "nowhere"], 2, "no stage nowhere"),
        (["run", "tiny"], 2, "corpus.posts is empty"),
        (["run", "tiny", "--set", "feedback.panel={}"], 2, "feedback.panel"),
        (["corpus", "tiny", "--set", "corpus.posts=[no/RS.zst]", "--set", "corpus.comments=[x]"], 1, "no/RS.zst"),
        (["corpus", "tiny", "--set", "corpus.posts=[no/RS_*]", "--set", "corpus.comments=[x]"], 1, "no/RS_*"),
        (["pairs", "tiny"], 2, "run `llumi corpus tiny` first"),
        (["train", "tiny", "--model", "gm", "--stage", "dpo1"], 2, "run `llumi corpus tiny` first"),
        (["train", "tiny", "--model", "gm", "--stage", "dpo2"], 2, "no ratings"),
        (
            ["train", "tiny", "--model", "gm", "--stage", "sft", "--set", "model.base=/no/model"],
            2,
            "/no/model is not there",
        ),
        (["feedback", "tiny"], 2, "no ratings"),
        (["feedback", "tiny", "--set", "feedback.ratings=[no/ratings_*.jsonl]"], 1, "no/ratings_*.jsonl"),
        (["evaluate", "tiny"], 2, "run `llumi corpus tiny` first"),
        (["serve", "tiny"], 2, "models/gm is not complete"),
        (["submit", "tiny", "--", "llumi", "config", "demo"], 1, "http://127.0.0.1:1"),
    ],
)
def test_bad_input_ends_in_one_line_that_names_it(arguments, code, named, llumi, tmp_path):
    at, rest = arguments[:2], arguments[2:]
    output = tmp_path / "out"
    options = (
        ["--set", f"output={output}", "--set", "cluster.jobs_address=http://127.0.0.1:1"] if at[1] == "tiny" else []
    )
    shown = llumi(*at, *options, *rest)
    assert shown.code == code, shown
    assert named in one_line(shown)
    assert not output.exists()


def test_a_port_in_use_is_named_before_anything_starts(llumi, tmp_path):
    import socket

    for model in ("gm", "im"):
        with writing(tmp_path / "models" / model, stage="x", settings={}, inputs={}):
            pass
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        shown = llumi("serve", "tiny", "--set", f"output={tmp_path}", "--set", f"serving.port={port}")
    assert shown.code == 2
    assert f"port {port}" in one_line(shown)


def test_an_unreachable_cluster_is_named(tmp_path):
    with writing(tmp_path / "threads", stage="x", settings={}, inputs={}):
        pass
    options = ["--set", f"output={tmp_path}", "--set", "cluster.address=127.0.0.1:1"]
    shown = subprocess.run([*LLUMI, "pairs", "tiny", *options], capture_output=True, text=True, check=False)
    assert shown.returncode == 1
    assert "error: cluster at 127.0.0.1:1 does not answer: Connection refused" in shown.stderr
    assert "Traceback" not in shown.stderr


def test_debug_adds_the_trace(llumi):
    shown = llumi("run", "no/such.yaml", "--debug")
    assert "Traceback" in shown.err
    assert shown.err.splitlines()[-1].startswith("error: ")


def test_debug_of_one_call_does_not_outlive_it(llumi):
    llumi("run", "no/such.yaml", "--debug")
    one_line(llumi("run", "no/such.yaml"))


def test_sample_writes_dumps_and_truth(llumi, tmp_path):
    shown = llumi("sample", tmp_path / "sample", "--threads", 20, "--seed", 3)
    assert shown.code == 0
    assert (tmp_path / "sample" / "truth.parquet").is_file()
    assert list((tmp_path / "sample").glob("RS_*.zst"))
    assert "posts:" in shown.out


def test_a_sample_of_too_few_threads_is_a_usage_error(llumi, tmp_path):
    assert llumi("sample", tmp_path / "sample", "--threads", 2).code == 2
    assert not (tmp_path / "sample").exists()


def test_a_configuration_of_ones_own_is_named_in_messages(llumi, tmp_path):
    mine = tmp_path / "mine.yaml"
    mine.write_text(yaml.safe_dump({"extends": "tiny", "output": str(tmp_path / "out")}), encoding="utf-8")
    assert f"run `llumi corpus {mine}` first" in one_line(llumi("pairs", mine))


def test_ctrl_c_ends_with_130_and_leaves_nothing_half_written(tmp_path):
    output = tmp_path / "sample"
    process = subprocess.Popen(
        [*LLUMI, "sample", str(output), "--threads", "100000"],
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    wait_for(lambda: list(tmp_path.iterdir()))
    process.send_signal(signal.SIGINT)
    shown = process.communicate(timeout=60)[1]
    assert process.returncode == 130, shown
    assert "Traceback" not in shown
    assert list(tmp_path.iterdir()) == []


def wait_for(condition, seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_the_script_of_the_distribution_is_this_command():
    script = Path(sys.executable).with_name("llumi")
    assert subprocess.run([script, "version"], capture_output=True, text=True, check=True).stdout.strip() == "0.1.0"
