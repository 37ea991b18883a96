"""Running stages in order: what is made, kept and skipped, and what is on disk after a failure."""

import fcntl
import json
from pathlib import Path

import pytest
from rich.console import Console

from cluster.runner import Runner
from cluster.stage import Stage
from cluster.stages import select, until
from configs import Settings
from configs.errors import DataError, StageOrderError, UsageError
from pipelines import manifest
from tests.cluster import steps

STEPS = "tests.cluster.steps"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "source").write_text("5", encoding="ascii")
    return tmp_path / "run"


def table(root: Path) -> list[Stage]:
    """source -> first -> second/a, and one that never applies."""
    source = root.parent / "source"
    return [
        Stage("first", STEPS, root / "first", lambda: {"source": source}, "llumi first CONFIG", needs=None),
        Stage("never", STEPS, root / "never", dict, "llumi never CONFIG", lambda: "no reason to", needs=None),
        Stage("second/a", STEPS, root / "second" / "a", lambda: {"n": root / "first"}, "llumi a CONFIG", needs=None),
        Stage("second/b", STEPS, root / "second" / "b", lambda: {"n": root / "first"}, "llumi b CONFIG", needs=None),
    ]


def quiet(root: Path) -> Console:
    return Console(file=(root.parent / "console").open("a", encoding="utf-8"), width=200)


def run(root: Path, seed: int = 0, only: str | None = None, force: str | None = None) -> dict[str, str]:
    """What became of each stage of ``table``."""
    stages = table(root)
    runner = Runner(Settings(output=str(root), seed=seed), stages, config="mine.yaml", console=quiet(root))
    plan = select(stages, only) if only else stages
    outcomes = runner.run(plan, force=select(stages, force) if force else (), asked=plan if only else ())
    return {outcome.stage: outcome.status for outcome in outcomes}


MADE = {"first": "made", "never": "skipped", "second/a": "made", "second/b": "made"}
KEPT = {"first": "kept", "never": "skipped", "second/a": "kept", "second/b": "kept"}


def test_a_first_run_makes_what_applies_in_order(root):
    assert run(root) == MADE
    assert steps.number(root / "second" / "a") == 5


def test_a_second_run_keeps_everything(root):
    run(root)
    assert run(root) == KEPT


def test_a_changed_setting_makes_what_depends_on_it_again(root):
    run(root)
    assert run(root, seed=2) == MADE
    assert steps.number(root / "second" / "a") == 9


def test_a_changed_input_makes_what_comes_after_it_again(root):
    run(root)
    (root.parent / "source").write_text("66", encoding="ascii")
    assert run(root) == MADE


def test_a_stage_whose_manifest_is_gone_is_made_again(root):
    run(root)
    (root / "second" / "a" / "manifest.json").unlink()
    assert run(root) == KEPT | {"second/a": "made"}


def test_forcing_the_last_stage_leaves_the_others(root):
    run(root)
    assert run(root, force="second/b") == KEPT | {"second/b": "made"}


def test_forcing_an_early_stage_makes_everything_after_it_again(root):
    run(root)
    assert run(root, force="first") == MADE


def test_until_stops_after_the_stage_and_writes_no_manifest_of_the_run(root):
    stages = table(root)
    Runner(Settings(output=str(root)), stages, console=quiet(root)).run(until(stages, "first"))
    assert (root / "first" / "manifest.json").exists()
    assert not (root / "second").exists()
    assert not (root / "manifest.json").exists()


def test_until_a_group_goes_to_its_last_stage(root):
    assert [stage.name for stage in until(table(root), "second")][-1] == "second/b"


def test_an_unknown_stage_is_refused_with_the_known_ones(root):
    with pytest.raises(UsageError, match="no stage secnd; stages are: first, never, second"):
        until(table(root), "secnd")


def test_the_manifest_of_the_run_holds_keys_rows_settings_and_reasons(root):
    run(root, seed=3)
    made = manifest.Manifest.model_validate_json((root / "manifest.json").read_text(encoding="utf-8"))
    first = manifest.read(root / "first")
    assert first is not None
    assert made.settings["seed"] == 3
    assert made.figures["stages"]["first"]["key"] == first.key
    assert made.figures["stages"]["never"] == {"status": "skipped", "reason": "no reason to"}
    assert made.rows["first/numbers"].kept == 1
    assert "first: sums" in made.notes
    assert made.code == manifest.code_fingerprint()


def test_the_settings_are_saved_beside_the_manifest(root):
    from configs import load

    run(root, seed=3)
    assert load(root / "settings.yaml").seed == 3


def test_the_manifest_of_a_whole_run_is_gone_while_a_part_is_out_of_date(root):
    run(root)
    (root.parent / "source").write_text("-1", encoding="ascii")
    with pytest.raises(DataError):
        run(root)
    assert not (root / "manifest.json").exists()


def test_a_stage_that_fails_leaves_the_old_output_and_nothing_half_written(root):
    run(root)
    before = (root / "second" / "a" / "manifest.json").read_bytes()
    (root.parent / "source").write_text("-1", encoding="ascii")
    with pytest.raises(DataError):
        run(root)
    assert (root / "second" / "a" / "manifest.json").read_bytes() == before
    assert [path.name for path in root.rglob("*.partial-*")] == []


def test_what_a_killed_run_left_is_removed(root):
    left = root / ".first.partial-123"
    left.mkdir(parents=True)
    run(root)
    assert not left.exists()


def test_an_output_that_was_set_aside_when_a_run_was_killed_comes_back(root):
    run(root)
    (root / "first").rename(root / ".first.old-123")
    assert run(root) == KEPT


def test_a_stage_alone_names_the_command_that_makes_its_input(root):
    with pytest.raises(StageOrderError, match=r"second/a reads .*first, .* run `llumi first mine\.yaml` first"):
        run(root, only="second/a")
    assert not root.exists()


def test_a_stage_asked_for_by_name_that_does_not_apply_is_an_error(root):
    with pytest.raises(UsageError, match="never does not apply: no reason to"):
        run(root, only="never")


def test_a_second_process_cannot_write_to_the_same_output(root):
    root.mkdir()
    with (root / ".lock").open("w", encoding="ascii") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        held.write("4711")
        held.flush()
        with pytest.raises(UsageError, match="is being written by process 4711"):
            run(root)
    assert run(root) == MADE


def test_an_output_that_cannot_be_written_is_refused(root):
    root.parent.joinpath("run").write_text("a file stands here", encoding="utf-8")
    with pytest.raises(UsageError, match="cannot be written"):
        run(root)


def test_the_summary_shows_each_stage_with_its_rows_and_reason(root):
    run(root)
    shown = (root.parent / "console").read_text(encoding="utf-8")
    assert "skipped: no reason to" in shown
    assert "numbers 1" in shown


def test_a_run_that_keeps_everything_rewrites_nothing_but_its_manifest(root):
    run(root)
    before = {path: path.stat().st_mtime_ns for path in root.rglob("number")}
    run(root)
    assert {path: path.stat().st_mtime_ns for path in root.rglob("number")} == before
    assert json.loads((root / "manifest.json").read_text(encoding="utf-8"))["figures"]["stages"]["first"]
