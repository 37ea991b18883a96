"""One line and an exit code for every failure, whatever Ray wrapped around it."""

import pytest
import ray
import ray.data
from ray.train.v2.api.exceptions import ControllerError, WorkerGroupError

from cluster import failures
from cluster.session import tune_data
from configs.errors import ClusterError, DataError, MissingInput, StageOrderError


def reported(error: BaseException, capsys: pytest.CaptureFixture[str], debug: bool = False) -> tuple[int, str]:
    code = failures.report(error, debug)
    return code, capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (DataError("x"), 1),
        (MissingInput("x"), 1),
        (ClusterError("x"), 1),
        (StageOrderError("x"), 2),
        (KeyboardInterrupt(), 130),
    ],
)
def test_each_kind_has_its_exit_code(error, code, capsys):
    assert reported(error, capsys)[0] == code


def test_a_message_of_several_lines_becomes_one(capsys):
    assert reported(DataError("first\n  second"), capsys)[1] == "error: first second\n"


def test_the_words_of_an_unexpected_error_are_not_shown(capsys):
    code, shown = reported(KeyError("what somebody wrote"), capsys)
    assert code == 1
    assert shown == "error: unexpected KeyError; run again with --debug for the trace\n"


def test_an_unexpected_error_names_the_place_in_our_code(capsys):
    from configs.load import find

    with pytest.raises(TypeError) as raised:
        find(3.5)  # type: ignore[arg-type]
    assert "unexpected TypeError at configs/load.py:" in reported(raised.value, capsys)[1]


def test_debug_shows_the_trace_before_the_line(capsys):
    shown = reported(DataError("the reason"), capsys, debug=True)[1]
    assert "DataError: the reason" in shown.splitlines()[0]
    assert shown.endswith("error: the reason\n")


def test_an_error_of_ours_is_found_below_what_python_raised_from_it():
    try:
        try:
            raise DataError("inner")
        except DataError as inner:
            raise RuntimeError("outer") from inner
    except RuntimeError as outer:
        assert str(failures.ours(outer)) == "inner"


def test_an_error_of_a_training_worker_is_found_by_its_rank():
    error = WorkerGroupError("long trace", {0: RuntimeError("other"), 1: DataError("row 3 is too long")})
    assert str(failures.ours(error)) == "row 3 is too long"


def test_an_error_of_the_training_controller_is_found():
    assert str(failures.ours(ControllerError(ClusterError("no room")))) == "no room"


def test_errors_that_cause_each_other_end():
    first, second = RuntimeError("a"), RuntimeError("b")
    first.__cause__, second.__cause__ = second, first
    assert failures.ours(first) is None


def test_an_error_raised_in_a_ray_task_comes_back_as_itself(ray_cluster, capsys):
    @ray.remote
    def task() -> None:
        raise DataError("file x, line 3: not JSON")

    with pytest.raises(DataError) as raised:
        ray.get(task.remote())
    assert reported(raised.value, capsys) == (1, "error: file x, line 3: not JSON\n")


def test_an_error_raised_in_a_map_over_data_comes_back_as_itself(ray_cluster, capsys):
    tune_data()

    def fail(_batch: object) -> None:
        raise MissingInput("dump RS.zst has gone")

    with pytest.raises(Exception) as raised:
        ray.data.range(3).map_batches(fail).materialize()
    assert reported(raised.value, capsys) == (1, "error: dump RS.zst has gone\n")


def test_the_words_of_an_unexpected_error_in_a_map_are_not_shown(ray_cluster, capsys):
    tune_data()

    def fail(_batch: object) -> None:
        raise KeyError("what somebody wrote")

    with pytest.raises(Exception) as raised:
        ray.data.range(3).map_batches(fail).materialize()
    shown = reported(raised.value, capsys)[1]
    assert "unexpected KeyError" in shown
    assert "somebody" not in shown
