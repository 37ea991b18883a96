"""Clients that keep a service busy and give account of every request: sent = answered + refused by name + lost.

    with Load(url, clients=6) as load:
        ...
    assert load.account.lost == {}

*Refused by name* is an error body of the API, or a stream that ends with an ``error`` event. *Lost* is
all else: a broken connection, a status without our body, a stream that just ends. A client may ``patient``ly
ask again where nothing of an answer has come yet, as the OpenAI client does by itself.
"""

import json
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import count
from typing import Any, Self

import httpx

POST = {"title": "A hard week", "text": "I moved here two months ago and still know nobody."}
DRAFT = "Just go out more, you will be fine."
NAMED = {"overloaded", "unavailable", "timeout"}
"""Codes that the service may refuse with under load and faults."""


@dataclass
class Account:
    """What became of the requests."""

    sent: int = 0
    answered: Counter[str] = field(default_factory=Counter)
    """By kind of request."""
    refused: Counter[str] = field(default_factory=Counter)
    """By status and code."""
    lost: Counter[str] = field(default_factory=Counter)
    """By what was seen instead of an answer."""
    asked_again: Counter[str] = field(default_factory=Counter)
    """What patient clients met before they asked again."""
    versions: Counter[str] = field(default_factory=Counter)
    """Answers of /v1/generate by the model's version."""
    seconds: list[float] = field(default_factory=list)
    """Time of each answered request."""
    times: list[float] = field(default_factory=list)
    """When each of them was sent, by the monotonic clock."""
    first: list[tuple[float, float]] = field(default_factory=list)
    """Of each answered stream when it was sent, by the monotonic clock, and seconds until it showed some text."""

    def balanced(self) -> bool:
        """Whether every request is accounted for."""
        return self.sent == self.answered.total() + self.refused.total() + self.lost.total()


class Load:
    """Clients that ask one request after the other until the block ends."""

    def __init__(
        self,
        url: str,
        clients: int = 4,
        kinds: tuple[str, ...] = ("generate", "stream", "improve"),
        patience: int = 0,
        rate: float | None = None,
        key: str | None = None,
    ):
        """``patience``: times that a client asks again; ``rate``: requests a second of all, None = without a pause."""
        self.headers = {"authorization": f"Bearer {key}"} if key else {}
        self.url, self.clients, self.kinds, self.patience, self.rate = url, clients, kinds, patience, rate
        self.account, self._lock, self._stop = Account(), threading.Lock(), threading.Event()
        self._ids, self._turn = count(), time.monotonic()

    def __enter__(self) -> Self:
        self._pool = ThreadPoolExecutor(self.clients)
        self._running: list[Future[None]] = [self._pool.submit(self._client, number) for number in range(self.clients)]
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for running in self._running:
            running.result()
        self._pool.shutdown()

    def wait(self, answers: int, seconds: float = 60) -> None:
        """Return once that many more requests were answered."""
        wanted, end = self.account.answered.total() + answers, time.monotonic() + seconds
        while self.account.answered.total() < wanted:
            assert time.monotonic() < end, f"too few answers: {self.account}"
            time.sleep(0.05)

    def _client(self, number: int) -> None:
        with httpx.Client(base_url=self.url, timeout=90, trust_env=False) as client:
            for turn in count(number):
                self._pause()
                if self._stop.is_set():
                    return
                self._one(client, self.kinds[turn % len(self.kinds)])

    def _pause(self) -> None:
        if self.rate is None:
            return
        with self._lock:
            now = time.monotonic()
            turn = self._turn = max(self._turn + 1 / self.rate, now - 1)  # one second late at most is made up for
        self._stop.wait(max(0.0, turn - now))

    def _one(self, client: httpx.Client, kind: str) -> None:
        started = time.monotonic()
        with self._lock:
            self.account.sent += 1
            request_id = f"load-{next(self._ids)}"
        for attempt in range(self.patience + 1):
            state, name, version = self._ask(client, kind, request_id)
            if state != "lost" or attempt == self.patience or name.startswith("cut"):
                break
            with self._lock:
                self.account.asked_again[name] += 1
            time.sleep(0.2 * 2**attempt)
        with self._lock:
            getattr(self.account, state)[name] += 1
            if state == "answered":
                self.account.seconds.append(time.monotonic() - started)
                self.account.times.append(started)
            if version:
                self.account.versions[version] += 1
        if state == "refused":
            time.sleep(0.5)  # as Retry-After asks, or nearly

    def _ask(self, client: httpx.Client, kind: str, request_id: str) -> tuple[str, str, str | None]:
        headers = {"x-request-id": request_id, **self.headers}
        try:
            if kind == "stream":
                return self._stream(client, headers)
            body: dict[str, Any] = {"post": POST, **({"draft": DRAFT} if kind == "improve" else {})}
            response = client.post(f"/v1/{kind}", json=body, headers=headers)
            if response.status_code == 200:
                return "answered", kind, response.json()["version"] if kind == "generate" else None
            return *told(response.status_code, response.text), None
        except httpx.HTTPError as error:
            return "lost", type(error).__name__, None
        except (ValueError, KeyError):
            return "lost", "200 without our body", None

    def _stream(self, client: httpx.Client, headers: dict[str, str]) -> tuple[str, str, str | None]:
        begun, sent, first = False, time.monotonic(), 0.0
        try:
            body = {"post": POST, "stream": True}
            with client.stream("POST", "/v1/generate", json=body, headers=headers) as response:
                if response.status_code != 200:
                    return *told(response.status_code, response.read().decode(errors="replace")), None
                event = ""
                for line in lines(response):
                    begun = True
                    event = line.removeprefix("event: ") if line.startswith("event: ") else event
                    if line.startswith("data: ") and event in ("text", "end"):
                        first = first or time.monotonic() - sent
                    if line.startswith("data: ") and event == "end":
                        version = json.loads(line.removeprefix("data: "))["version"]
                        self.account.first.append((sent, first))
                        return "answered", "stream", version
                    if line.startswith("data: ") and event == "error":
                        return *told(200, line.removeprefix("data: ")), None
            return "lost", "cut without a word", None
        except httpx.HTTPError as error:
            return "lost", f"{'cut by ' if begun else ''}{type(error).__name__}", None
        except (ValueError, KeyError):
            return "lost", "cut within an event", None


def lines(response: httpx.Response) -> Iterator[str]:
    """Lines of an event stream; httpx' own also end at characters that may stand in a text, such as U+0085."""
    held = b""
    for part in response.iter_bytes():
        *whole, held = (held + part).split(b"\n")
        yield from (line.rstrip(b"\r").decode() for line in whole)


def told(status: int, text: str) -> tuple[str, str]:
    """An answer that is none: refused by one of our names, or lost."""
    try:
        code = json.loads(text)["error"]["code"]
    except (ValueError, KeyError, TypeError):
        return "lost", f"{status} without our body"
    return ("refused", f"{status} {code}") if code in NAMED else ("lost", f"{status} {code}")
