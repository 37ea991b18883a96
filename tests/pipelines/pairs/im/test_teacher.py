"""Asking a real HTTP server: kept answers, nothing asked twice, failures by name, budgets."""

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pydantic import SecretStr

from configs.errors import ConfigError, DataError, EngineError
from configs.improvement import TeacherSettings
from pipelines.pairs.im import store
from pipelines.pairs.im.budget import budget_of, require_within
from pipelines.pairs.im.schema import REQUEST
from pipelines.pairs.im.teacher import Asker, api_key
from tests.pipelines.pairs.im.school import HANG, School, improved


@pytest.fixture
def school() -> Iterator[School]:
    with School() as found:
        yield found


def teacher(school: School, **changes: Any) -> TeacherSettings:
    given = {"base_url": school.url, "model": "teacher-1", "backoff_s": 0.01, "timeout_s": 5, **changes}
    return TeacherSettings(**given)


def requests(settings: TeacherSettings, drafts: range) -> pa.Table:
    """Requests to revise ``draft 0``, ``draft 1`` and so on."""
    rows = []
    for i in drafts:
        prompt = f"Rewrite.\n<draft>\ndraft {i}\n</draft>"
        ids = {"post_id": f"p{i}", "original_id": f"c{i}", "example_ids": ["e1"] if i else None}
        rows.append({"key": store.key_of(prompt, settings), "prompt": prompt, "original": f"draft {i}", **ids})
    return pa.Table.from_pylist(rows, schema=REQUEST)


def asked(folder: Path, settings: TeacherSettings, drafts: range, key: str | None = None) -> list[str | None]:
    """Ask as one actor; how each request that was not in the store ended."""
    asker = Asker(folder, settings, SecretStr(key) if key else None, settings.concurrency)
    found: list[str | None] = asker(requests(settings, drafts))["failure"].to_pylist()
    return found


def test_every_answer_is_kept_with_all_that_its_prompt_was_made_of(school, tmp_path):
    settings = teacher(school)
    assert asked(tmp_path, settings, range(5)) == [None] * 5
    rows = sorted(store.read(tmp_path).to_pylist(), key=lambda row: row["post_id"])
    assert [row["text"] for row in rows] == [improved(f"draft {i}") for i in range(5)]
    assert [(row["post_id"], row["original_id"]) for row in rows] == [(f"p{i}", f"c{i}") for i in range(5)]
    assert [row["example_ids"] for row in rows] == [None, *[["e1"]] * 4]
    assert rows[0]["completion_tokens"] == len(rows[0]["text"].split())


def test_passing_failures_are_overcome(school, tmp_path):
    failures = [(429, {"retry-after": "0"}), (500, {}), (HANG, {})]
    school.hang_s = 0.5
    school.failures = lambda draft, attempt: failures[int(draft[-1]) % 3] if attempt <= 2 else None
    assert asked(tmp_path, teacher(school, timeout_s=0.3), range(9)) == [None] * 9
    assert set(school.tries.values()) == {3}


def test_what_is_in_the_store_is_never_asked_again(school, tmp_path):
    asked(tmp_path, teacher(school), range(6))
    assert asked(tmp_path, teacher(school, concurrency=2, timeout_s=9), range(10)) == [None] * 4
    assert set(school.answered.values()) == {1}


@pytest.mark.parametrize(
    "change", [{"temperature": 0.1}, {"model": "other"}, {"max_tokens": 9}, {"top_p": 0.5}, {"extra_body": {"seed": 1}}]
)
def test_another_model_or_sampling_asks_anew(school, tmp_path, change):
    asked(tmp_path, teacher(school), range(2))
    assert asked(tmp_path, teacher(school, **change), range(2)) == [None] * 2
    assert set(school.answered.values()) == {2}


def test_equal_prompts_are_asked_once(school, tmp_path):
    settings = teacher(school)
    asker = Asker(tmp_path, settings, None, 4)
    asker(pa.concat_tables([requests(settings, range(3))] * 3))
    assert set(school.answered.values()) == {1}


def test_a_torn_last_line_is_asked_again_and_nothing_else(school, tmp_path):
    asked(tmp_path, teacher(school, concurrency=1), range(5))
    (file,) = tmp_path.glob("*.jsonl")
    os.truncate(file, file.stat().st_size - 7)
    assert store.read(tmp_path).num_rows == 4
    assert asked(tmp_path, teacher(school), range(5)) == [None]
    assert store.read(tmp_path).num_rows == 5


def test_a_damaged_line_is_named_by_file_and_number(school, tmp_path):
    asked(tmp_path, teacher(school), range(2))
    (file,) = tmp_path.glob("*.jsonl")
    file.write_bytes(b"{}\n" + file.read_bytes())
    with pytest.raises(DataError, match=rf"{file.name}, line 1"):
        store.read(tmp_path)


def test_answers_are_kept_one_by_one_as_they_come(school, tmp_path):
    school.failures = lambda draft, _: (401, {}) if draft == "draft 7" else None
    with pytest.raises(ConfigError, match="status 401"):
        asked(tmp_path, teacher(school, concurrency=1), range(20))
    assert store.read(tmp_path).num_rows == 7


def test_a_store_that_cannot_be_written_is_named(school, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=r"cannot be written"):
        asked(tmp_path / "file" / "teacher", teacher(school), range(1))


def test_a_refused_prompt_is_kept_as_such_and_not_asked_again(school, tmp_path):
    school.failures = lambda draft, _: (400, {}) if draft == "draft 1" else None
    for _ in range(2):
        asked(tmp_path, teacher(school), range(3))
    assert set(school.tries.values()) == {1}
    assert sorted(row["finish_reason"] for row in store.read(tmp_path).to_pylist()) == ["refused", "stop", "stop"]


def test_requests_without_an_answer_are_named_and_asked_again_by_the_next_run(school, tmp_path):
    school.failures = lambda draft, _: (503, {}) if draft == "draft 2" else None
    ends = asked(tmp_path, teacher(school, retries=1), range(5))
    assert sorted(map(str, ends)) == ["None"] * 4 + ["status_503"]
    school.failures = lambda draft, _: None
    assert asked(tmp_path, teacher(school), range(5)) == [None]


def test_an_endpoint_that_answers_nothing_is_given_up_long_before_the_end(school, tmp_path):
    school.fail_first(99, 500)
    with pytest.raises(EngineError, match=r"20 requests in a row without an answer \(last: status_500\)"):
        asked(tmp_path, teacher(school, retries=0), range(200))
    assert sum(school.tries.values()) < 60


def test_failures_here_and_there_do_not_end_the_run(school, tmp_path):
    school.failures = lambda draft, _: (500, {}) if int(draft.split()[1]) % 2 else None
    ends = asked(tmp_path, teacher(school, retries=0, concurrency=1), range(60))
    assert ends.count("status_500") == 30


def test_no_more_requests_are_on_their_way_than_allowed(school, tmp_path):
    school.delay_s = 0.02
    asked(tmp_path, teacher(school, concurrency=3), range(30))
    assert 1 < school.most_at_once <= 3


def test_slow_answers_do_not_hold_up_the_others(school, tmp_path):
    def answer(draft: str) -> tuple[str, str]:
        time.sleep(1.0 if draft == "draft 0" else 0.0)
        return improved(draft), "stop"

    school.answer = answer
    asked(tmp_path, teacher(school, concurrency=2), range(20))
    assert [row["post_id"] for row in store.read(tmp_path).to_pylist()].index("p0") == 19


def test_the_key_comes_from_the_variable_that_the_settings_name(school, tmp_path, monkeypatch):
    settings = teacher(school, api_key_env="TEACHER_KEY")
    monkeypatch.setenv("TEACHER_KEY", "right")
    found = api_key(settings)
    assert found is not None
    assert found.get_secret_value() == "right"
    assert "right" not in repr(found)
    monkeypatch.delenv("TEACHER_KEY")
    with pytest.raises(ConfigError, match="names TEACHER_KEY, which is not set"):
        api_key(settings)


def test_a_wrong_key_ends_the_run_and_the_right_one_takes_it_up(tmp_path):
    with School(key="right") as school:
        with pytest.raises(ConfigError, match=r"status 401.*api_key_env"):
            asked(tmp_path, teacher(school), range(4), key="wrong")
        assert asked(tmp_path, teacher(school), range(4), key="right") == [None] * 4
    assert b"right" not in b"".join(path.read_bytes() for path in tmp_path.glob("*"))


def test_an_actor_asks_no_public_address(school, tmp_path):
    with pytest.raises(ConfigError, match="must not leave your network"):
        asked(tmp_path, teacher(school, base_url="https://8.8.8.8/v1"), range(1))


def test_the_budget_counts_what_is_missing_once(school, tmp_path):
    settings = teacher(school, max_tokens=100, prompt_price=2.0, completion_price=10.0, characters_per_token=4)
    asked(tmp_path, settings, range(4))
    tables = [requests(settings, range(7)), requests(settings, range(5, 10))]
    found = budget_of(tables, store.keys(tmp_path), settings)
    assert (found.drafts, found.answered, found.requests) == (12, 4, 6)
    sent = sum(len(prompt) for prompt in requests(settings, range(4, 10))["prompt"].to_pylist())
    assert (found.prompt_tokens, found.completion_tokens) == (round(sent / 4), 600)
    assert found.cost == pytest.approx((2 * found.prompt_tokens + 10 * 600) / 1e6, abs=1e-4)
    assert "6 requests (4 of 12 drafts are answered already)" in found.line()


@pytest.mark.parametrize(
    ("limits", "named"),
    [({"max_requests": 9}, "max_requests=9"), ({"max_cost": 0.009, "completion_price": 10.0}, "max_cost=0.01")],
)
def test_a_run_over_its_budget_is_refused_with_both_numbers(school, limits, named):
    settings = teacher(school, max_tokens=100, **limits)
    with pytest.raises(ConfigError, match=rf"10 requests.*improvement\.teacher\.{named}"):
        require_within(budget_of([requests(settings, range(10))], set(), settings), settings)
    require_within(budget_of([requests(settings, range(9))], set(), settings), settings)
