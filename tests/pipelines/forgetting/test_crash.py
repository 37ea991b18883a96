"""``kill -9`` at any moment of forgetting: each output is as before or as after, together, and the rerun finishes."""

import json
import subprocess
import sys
from pathlib import Path

POINTS = 14


def test_a_killed_forgetting_leaves_all_outputs_before_or_all_after_and_the_same_command_finishes(
    tmp_path: Path,
) -> None:
    command = [sys.executable, "-m", "tests.pipelines.forgetting.crash", str(tmp_path), str(POINTS)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    before, after = found["before"], found["after"]
    assert len(before["left"]) == 7 and before["linked"]
    assert after["left"] == {} and after["linked"] and not after["hidden"]
    assert after["rows"] != before["rows"]
    results = found["results"]
    assert len(results) >= POINTS - 2
    assert all(result["killed"] for result in results)
    assert {result["decided"] for result in results} == {True, False}, "moments before and after the decision"
    for result in results:
        assert result["recovered"] in (before, after), f"killed before call {result['at']} of {found['total']}"
        assert (result["recovered"] == after) >= result["decided"]
        assert result["again"] == after, f"killed before call {result['at']} of {found['total']}"
