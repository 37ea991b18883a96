"""One question to a real server: what is repeated, what is not, and what ends the run."""

import asyncio
import json
import socket
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest

from configs.errors import ConfigError
from configs.improvement import TeacherSettings
from pipelines.pairs.im.endpoint import Answer, Passing, Refused, ask, connected, retry_after
from tests.pipelines.pairs.im.school import HANG, School, improved


@pytest.fixture
def school() -> Iterator[School]:
    with School() as found:
        yield found


def teacher(school: School, **changes: Any) -> TeacherSettings:
    given = {"base_url": school.url, "model": "teacher-1", "backoff_s": 0.01, "timeout_s": 5, **changes}
    return TeacherSettings(**given)


def asked(settings: TeacherSettings, prompt: str = "a draft", key: str | None = None) -> Answer:
    async def run() -> Answer:
        async with connected(settings, key) as client:
            return await ask(client, prompt, settings)

    return asyncio.run(run())


def test_the_endpoint_gets_prompt_model_sampling_and_key():
    with School(key="secret") as school:
        settings = teacher(school, temperature=0.2, max_tokens=77, extra_body={"seed": 5})
        answer = asked(settings, "a draft", "secret")
    assert answer == Answer(improved("a draft"), "stop", 2, 15)
    (body,) = school.bodies
    assert body["messages"] == [{"role": "user", "content": "a draft"}]
    assert (body["model"], body["temperature"], body["max_tokens"], body["seed"]) == ("teacher-1", 0.2, 77, 5)


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504])
def test_what_may_pass_is_asked_again(school, status):
    school.fail_first(2, status)
    assert asked(teacher(school)).text == improved("a draft")
    assert school.tries["a draft"] == 3


def test_silence_is_a_timeout_and_asked_again(school):
    school.fail_first(1, HANG)
    assert asked(teacher(school, timeout_s=0.2)).text == improved("a draft")
    assert school.tries["a draft"] == 2


def test_a_server_that_is_gone_is_named_after_all_tries(school):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        nobody = f"http://127.0.0.1:{free.getsockname()[1]}/v1"
    with pytest.raises(Passing, match="no_connection"):
        asked(teacher(school, base_url=nobody, retries=1))


def test_tries_end_after_the_retries(school):
    school.fail_first(99, 503)
    with pytest.raises(Passing, match="status_503"):
        asked(teacher(school, retries=2))
    assert school.tries["a draft"] == 3


@pytest.mark.parametrize("status", [400, 413, 422])
def test_a_prompt_that_is_refused_is_not_asked_again(school, status):
    school.fail_first(99, status)
    with pytest.raises(Refused):
        asked(teacher(school))
    assert school.tries["a draft"] == 1


@pytest.mark.parametrize(
    ("status", "way_out"), [(401, "api_key_env"), (403, "api_key_env"), (404, "base_url"), (405, "base_url")]
)
def test_what_is_wrong_with_the_whole_run_is_not_asked_again(school, status, way_out):
    school.fail_first(99, status)
    with pytest.raises(ConfigError, match=rf"status {status}: .*{way_out}"):
        asked(teacher(school))
    assert school.tries["a draft"] == 1


def test_a_redirect_is_never_followed(school):
    with School() as outside:
        school.fail_first(99, 307, {"location": f"{outside.url}/chat/completions"})
        with pytest.raises(ConfigError, match="never followed"):
            asked(teacher(school))
        assert not outside.tries


def test_a_proxy_of_the_environment_is_never_used(school, monkeypatch):
    with School() as proxy:
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, proxy.url.removesuffix("/v1"))
        monkeypatch.delenv("no_proxy", raising=False)
        monkeypatch.delenv("NO_PROXY", raising=False)
        assert asked(teacher(school)).text == improved("a draft")
        assert not proxy.tries


def test_no_error_repeats_the_prompt_or_the_key(school):
    school.fail_first(99, 401)
    with pytest.raises(ConfigError) as raised:
        asked(teacher(school), "words of a person", "secret")
    assert "words of a person" not in str(raised.value)
    assert "secret" not in str(raised.value)


def test_a_retry_after_is_waited_for(school):
    school.fail_first(1, 429, {"retry-after": "1"})
    asked(teacher(school, backoff_s=0.001))
    first, second = school.when
    assert second - first >= 1.0


def test_nobody_makes_us_wait_longer_than_we_would(school):
    school.fail_first(1, 429, {"retry-after": "86400"})
    asked(teacher(school, max_wait_s=0.05))
    assert school.tries["a draft"] == 2


def test_a_retry_after_may_be_a_date():
    in_a_minute = format_datetime(datetime.now(UTC) + timedelta(seconds=60), usegmt=True)
    assert 55 < retry_after(in_a_minute) <= 60
    assert retry_after("Wed, 21 Oct 2015 07:28:00 GMT") == 0.0
    assert retry_after("7") == 7.0
    assert retry_after("soon") is None
    assert retry_after(None) is None


@pytest.mark.parametrize("content", ["<html>", "[]", "{}", '{"choices": []}', '{"choices": [{"message": null}]}'])
def test_an_answer_that_is_none_is_asked_again(school, content, monkeypatch):
    broken = iter([json.dumps({"choices": "x"}).encode(), content.encode()])
    genuine = school.server.RequestHandlerClass.send

    def send(self: Any, status: int, body: bytes, headers: Any) -> None:
        genuine(self, status, next(broken, body), headers)

    monkeypatch.setattr(school.server.RequestHandlerClass, "send", send)
    assert asked(teacher(school)).text == improved("a draft")
    assert school.tries["a draft"] == 3


def test_a_model_that_says_nothing_gives_an_empty_text(school):
    school.answer = lambda draft: ("", "stop")
    assert asked(teacher(school)) == Answer("", "stop", 2, 0)
