"""What is found out about the teacher before a run starts, and what its budget is shown to be."""

import pytest

from cluster.budget import budget
from cluster.checks import check_settings
from cluster.cli import main
from configs import load
from configs.errors import ConfigError
from pipelines.manifest import writing

TEACHER = ["improvement.sources=[teacher]", "improvement.teacher.model=m"]


def test_a_teacher_that_is_not_in_house_stops_a_run_before_it_starts(tmp_path):
    given = [f"output={tmp_path}", *TEACHER, "improvement.teacher.base_url=https://8.8.8.8/v1"]
    with pytest.raises(ConfigError, match="must not leave your network"):
        check_settings(load("demo", given))


def test_a_key_that_is_not_there_stops_a_run_until_the_revisions_are_made(tmp_path, monkeypatch):
    monkeypatch.delenv("NO_SUCH_KEY", raising=False)
    url = "improvement.teacher.base_url=http://127.0.0.1:9/v1"
    settings = load("demo", [f"output={tmp_path}", *TEACHER, url, "improvement.teacher.api_key_env=NO_SUCH_KEY"])
    with pytest.raises(ConfigError, match="names NO_SUCH_KEY"):
        check_settings(settings)
    with writing(tmp_path / "revisions", stage="revisions", settings={}, inputs={}):
        pass
    check_settings(settings)


def test_a_budget_without_a_teacher_names_the_settings(tmp_path, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["revisions", "demo", "--budget", "--set", f"output={tmp_path}"])
    shown = capsys.readouterr()
    assert (ended.value.code, shown.out) == (2, "")
    assert "improvement.sources" in shown.err and shown.err.count("\n") == 1


def test_a_teacher_without_an_address_is_refused_with_the_field(tmp_path):
    with pytest.raises(ConfigError, match=r"improvement\.teacher\.base_url: Field required"):
        load("demo", TEACHER)
    with pytest.raises(ConfigError, match=r"teacher\.base_url and teacher\.model are needed"):
        load("demo", TEACHER[:1])


def test_the_budget_is_made_of_what_lies_there_and_asks_nobody(ray_cluster, tmp_path):
    from rich.console import Console

    from tests.pipelines.pairs.im.making import corpus, written
    from tests.pipelines.pairs.im.school import School

    written(tmp_path, corpus(12, drafts=2), files=1)
    with School() as school:
        url = f"improvement.teacher.base_url={school.url}"
        limits = ["improvement.teacher.max_tokens=100", "improvement.teacher.completion_price=5"]
        settings = load("tiny", [f"output={tmp_path}", "pairs.rule=naive", *TEACHER, url, *limits])
        line = budget(settings, "tiny", Console(stderr=True), debug=False)
        assert not school.tries
    assert line.startswith("teacher: 24 requests (0 of 24 drafts are answered already), about ")
    assert line.endswith("at most 2,400 completion tokens, cost at most 0.01")
    assert not (tmp_path / "revisions").exists()
    assert not list(tmp_path.glob(".revisions*"))
