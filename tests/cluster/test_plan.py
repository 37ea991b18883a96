"""``llumi plan``: tables at 100 columns, the same figures as JSON, nothing started."""

import json
import subprocess
import sys
from typing import Any

import pytest
from typer.testing import CliRunner

from cluster.cli import app


def plan(*arguments: str) -> str:
    result = CliRunner().invoke(app, ["plan", *arguments])
    assert result.exit_code == 0, result.exception
    return result.stdout


def as_json(*arguments: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(plan(*arguments, "--json"))
    return found


def test_the_production_preset_s_plan_is_plain_text_within_100_columns() -> None:
    text = plan("production")
    assert max(map(len, text.splitlines())) <= 100
    assert "\x1b" not in text
    for part in (
        "7,241,732,096 weights, 41,943,040 trained",
        "Memory of a GPU",
        "Time on 16 x H100",
        "Disk under output",
    ):
        assert part in text
    assert "[144.3]" in text, "what does not fit stands in brackets"
    assert [line for line in text.splitlines() if line.strip().startswith("> ")], "one line is recommended"


def test_json_holds_the_figures_of_the_tables() -> None:
    found = as_json(
        "production", "--gpu", "L40S", "--nodes", "3", "--gpus-per-node", "4", "--price", "2", "--rows", "1000"
    )
    assert found["hardware"] == {
        "gpu": "L40S", "device_bytes": 44.4 * 2**30, "price": 2.0, "nodes": 3, "gpus_per_node": 4, "workers": 12,
    }  # fmt: skip
    for stage in found["stages"]:
        memory = stage["memory_bytes"]
        terms = ("weights", "gradients", "optimizer", "activations", "head", "gathered", "overhead")
        assert memory["total"] == pytest.approx(sum(memory[term] for term in terms), abs=8)
        assert stage["rows"] == 1000 and memory["fits"]
        assert stage["dollars"] == pytest.approx(stage["hours"] * 12 * 2.0)
        low, high = stage["hours_range"]
        assert low < stage["hours"] and low < high


def test_more_gpus_cost_as_much_and_take_less_time() -> None:
    few, many = (as_json("production", "--gpu", "H100", "--nodes", nodes) for nodes in ("1", "4"))
    hours, dollars = (
        [sum(stage[what] for stage in one["stages"]) for one in (few, many)] for what in ("hours", "dollars")
    )
    assert hours[0] == pytest.approx(4 * hours[1], rel=0.01)
    assert dollars[0] == pytest.approx(dollars[1], rel=0.01)


def test_a_configuration_for_cpus_is_planned_without_hours_unless_a_gpu_is_named() -> None:
    assert "Hours and dollars are estimated for GPUs only" in plan("demo")
    assert as_json("demo", "--gpu", "L4", "--gpus-per-node", "1")["stages"][0]["hours"] > 0
    result = CliRunner().invoke(app, ["plan", "demo", "--nodes", "2"])
    assert "name a GPU with --gpu" in str(result.exception)


def test_an_unknown_gpu_is_answered_with_the_known_ones() -> None:
    result = CliRunner().invoke(app, ["plan", "production", "--gpu", "H999"])
    assert "no GPU H999; there are A100-40, A100-80" in str(result.exception)


def test_settings_that_no_machine_can_run_are_refused_before_anything_is_planned() -> None:
    result = CliRunner().invoke(app, ["plan", "demo", "--set", "training.mode=qlora"])
    assert "training.mode: qlora needs a GPU" in str(result.exception)


def test_a_plan_imports_neither_ray_nor_torch() -> None:
    code = (
        "import sys; from typer.testing import CliRunner; from cluster.cli import app; "
        "assert CliRunner().invoke(app, ['plan', 'production']).exit_code == 0; "
        "sys.exit(sorted({'ray', 'torch', 'transformers'} & set(sys.modules)) or 0)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
