"""One question to an OpenAI-compatible endpoint: POST /chat/completions, repeated where that can help.

    async with connected(settings, key) as client:
        answer = await ask(client, "Rewrite ...", settings)

Three ways to fail: ``Passing`` (connection, timeout, 408, 409, 425, 429, 5xx, an answer that
is none) is tried again after a growing, jittered wait or the endpoint's Retry-After;
``Refused`` (another 4xx, such as a prompt that is too long) is about this one prompt;
anything that is about the whole run (the key, the address, the model's name) is a
ConfigError at once. No message repeats what was sent or what came back.
"""

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, NamedTuple

import httpx
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, stop_after_attempt

from configs.errors import ConfigError
from configs.improvement import TeacherSettings

PATH = "/chat/completions"
PASSING = frozenset({408, 409, 425, 429})
WRONG = {
    401: "the key is missing or wrong: set improvement.teacher.api_key_env to the variable that holds it",
    403: "the key is not allowed to ask this model: check improvement.teacher.api_key_env and model",
    404: "there is no such path or model: check improvement.teacher.base_url (up to and with /v1) and model",
    405: "this path takes no questions: check improvement.teacher.base_url (up to and with /v1)",
}


class Answer(NamedTuple):
    """What the endpoint said."""

    text: str
    finish_reason: str
    prompt_tokens: int | None
    completion_tokens: int | None


class Passing(Exception):
    """No answer this time; ``name`` says why, ``after`` when to come back (seconds, None: not said)."""

    def __init__(self, name: str, after: float | None = None):
        super().__init__(name)
        self.name = name
        self.after = after


class Refused(Exception):
    """The endpoint takes no such prompt."""


@asynccontextmanager
async def connected(settings: TeacherSettings, key: str | None) -> AsyncIterator[httpx.AsyncClient]:
    """A client that follows no redirects and no proxy of the environment: both may lead outside."""
    async with httpx.AsyncClient(
        headers={"authorization": f"Bearer {key}"} if key else None,
        timeout=httpx.Timeout(settings.timeout_s, pool=None),
        limits=httpx.Limits(max_connections=None, max_keepalive_connections=settings.concurrency),
        follow_redirects=False,
        trust_env=False,
    ) as client:
        yield client


def body(prompt: str, settings: TeacherSettings) -> dict[str, Any]:
    """The request as the endpoint gets it."""
    return {
        "model": settings.model,
        "messages": [{"role": "user", "content": prompt}],
        "temperature": settings.temperature,
        "top_p": settings.top_p,
        "max_tokens": settings.max_tokens,
        "stream": False,
        **settings.extra_body,
    }


async def ask(client: httpx.AsyncClient, prompt: str, settings: TeacherSettings) -> Answer:
    """The answer to ``prompt``; raises Passing where no repetition brought one, Refused, ConfigError."""
    attempts = AsyncRetrying(
        stop=stop_after_attempt(settings.retries + 1),
        wait=lambda state: wait(state, settings),
        retry=retry_if_exception_type(Passing),
        reraise=True,
    )
    answer: Answer = await attempts(once, client, prompt, settings)
    return answer


async def once(client: httpx.AsyncClient, prompt: str, settings: TeacherSettings) -> Answer:
    """One try, of ``timeout_s`` at most from connecting to the last byte."""
    try:
        async with asyncio.timeout(settings.timeout_s):
            response = await client.post(settings.base_url + PATH, json=body(prompt, settings))
    except (TimeoutError, httpx.TimeoutException):
        raise Passing("timeout") from None
    except httpx.TransportError:
        raise Passing("no_connection") from None
    check(response, settings)
    return parse(response)


def check(response: httpx.Response, settings: TeacherSettings) -> None:
    """Raises what the status means."""
    status = response.status_code
    if status == 200:
        return
    if status in PASSING or status >= 500:
        raise Passing(f"status_{status}", retry_after(response.headers.get("retry-after")))
    if status in WRONG or status < 400:
        why = WRONG.get(status, "it sends us elsewhere, which is never followed: check improvement.teacher.base_url")
        raise ConfigError(f"the teacher at {settings.base_url} answers with status {status}: {why}")
    raise Refused(f"status {status}")


def parse(response: httpx.Response) -> Answer:
    """The first choice; an empty text where the model said nothing."""
    try:
        content = response.json()
        choice, usage = content["choices"][0], content.get("usage") or {}
        text, reason = choice["message"].get("content") or "", choice.get("finish_reason") or "stop"
        return Answer(str(text), str(reason), usage.get("prompt_tokens"), usage.get("completion_tokens"))
    except (ValueError, LookupError, TypeError, AttributeError):
        raise Passing("no_completion") from None


def wait(state: RetryCallState, settings: TeacherSettings) -> float:
    """Seconds until the next try: what the endpoint asks for, else doubled each time, plus up to half as much again."""
    error = state.outcome.exception() if state.outcome else None
    asked = error.after if isinstance(error, Passing) else None
    seconds = settings.backoff_s * 2 ** (state.attempt_number - 1) if asked is None else asked
    return min(settings.max_wait_s, seconds * random.uniform(1.0, 1.5))


def retry_after(value: str | None) -> float | None:
    """Seconds that a Retry-After header asks for (RFC 9110, 10.2.3: seconds or a date), None where it says nothing."""
    if value is None:
        return None
    if value.strip().isdigit():
        return float(value)
    try:
        when = parsedate_to_datetime(value)
    except ValueError:
        return None
    when = when if when.tzinfo else when.replace(tzinfo=UTC)
    return max(0.0, (when - datetime.now(UTC)).total_seconds())
