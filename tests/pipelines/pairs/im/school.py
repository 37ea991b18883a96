"""A teacher to test against: a real HTTP server that speaks /v1/chat/completions and fails as it is told.

with School() as school:
    school.fail_first(2, 429, {"retry-after": "0"})
    ...
    assert school.asked == {...}
"""

import json
import re
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

DRAFT = re.compile(r"<draft>\n(.*)\n</draft>", re.DOTALL)
Failure = tuple[int, Mapping[str, str]]
HANG = 0
"""A status that is none: the server stays silent for ``hang_s``."""


def improved(draft: str) -> str:
    """The revision that the teacher writes unless told otherwise."""
    return f"I hear how hard this is. {draft} You could take one small step today."


class School:
    """The server, what it was asked, and how it is to answer."""

    def __init__(self, key: str | None = None, hang_s: float = 1.0):
        self.key, self.hang_s = key, hang_s
        self.bodies: list[dict[str, Any]] = []
        """Every request's body that was answered with 200."""
        self.tries: Counter[str] = Counter()
        """Requests by draft, failed ones too."""
        self.failures: Callable[[str, int], Failure | None] = lambda draft, attempt: None
        """By draft and number of the try (from 1), how it fails."""
        self.answer: Callable[[str], tuple[str, str]] = lambda draft: (improved(draft), "stop")
        """By draft, the revision and the finish reason."""
        self.delay_s = 0.0
        self.at_once = self.most_at_once = 0
        self.when: deque[float] = deque()
        self.lock = threading.Lock()
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), handler(self))
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/v1"

    @property
    def answered(self) -> Counter[str]:
        """Answers given, by draft."""
        return Counter(draft_of(body) for body in self.bodies)

    def fail_first(self, tries: int, status: int, headers: Mapping[str, str] | None = None) -> None:
        """Each draft's first tries fail."""
        self.failures = lambda draft, attempt: (status, headers or {}) if attempt <= tries else None

    def __enter__(self) -> Self:
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.server.server_close()


def draft_of(body: Mapping[str, Any]) -> str:
    """The draft in the prompt of a request; the whole prompt where it holds none."""
    prompt = body["messages"][0]["content"]
    found = DRAFT.search(prompt)
    return found[1] if found else prompt


def handler(school: School) -> type[BaseHTTPRequestHandler]:
    """The handler that answers for ``school``."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            pass

        def do_POST(self) -> None:
            sent = self.rfile.read(int(self.headers["content-length"]))
            if not sent:  # the client was cancelled, or killed, before it had sent anything
                return
            body = json.loads(sent)
            with school.lock:
                draft = draft_of(body)
                school.tries[draft] += 1
                attempt = school.tries[draft]
                school.when.append(time.monotonic())
                school.at_once += 1
                school.most_at_once = max(school.most_at_once, school.at_once)
            try:
                self.respond(body, draft, attempt)
            finally:
                with school.lock:
                    school.at_once -= 1

        def respond(self, body: dict[str, Any], draft: str, attempt: int) -> None:
            time.sleep(school.delay_s)
            failure = school.failures(draft, attempt)
            if school.key and self.headers.get("authorization") != f"Bearer {school.key}":
                failure = (401, {})
            if self.path != "/v1/chat/completions":
                failure = (404, {})
            if failure and failure[0] == HANG:
                time.sleep(school.hang_s)
                self.close_connection = True
                return None
            if failure:
                return self.send(failure[0], b'{"error": {"message": "no"}}', failure[1])
            text, reason = school.answer(draft)
            choice = {"index": 0, "finish_reason": reason, "message": {"role": "assistant", "content": text}}
            usage = {"prompt_tokens": len(draft.split()), "completion_tokens": len(text.split())}
            with school.lock:
                school.bodies.append(body)
            return self.send(200, json.dumps({"choices": [choice], "usage": usage}).encode(), {})

        def send(self, status: int, content: bytes, headers: Mapping[str, str]) -> None:
            self.send_response(status)
            for name, value in {"content-length": str(len(content)), **headers}.items():
                self.send_header(name, value)
            with suppress(ConnectionError):  # the client may be killed by then
                self.end_headers()
                self.wfile.write(content)

    return Handler
