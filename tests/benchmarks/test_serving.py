"""What the figures of serving rest on: requests are accounted for, and a part that fails loses no other."""

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from benchmarks import __main__ as command
from benchmarks import serving
from benchmarks.serving_setup import apart
from tests.serving.load import Load
from tests.serving.running import running


def test_the_first_text_of_a_stream_is_timed_apart_from_its_end(tmp_path: Path) -> None:
    slow = {"token_s": 0.02, "answer": "That sounds hard. " + "You could write to an old friend " * 3 + "today."}
    with running(tmp_path, engine=slow) as site, Load(site.url, 1, ("stream",)) as load:
        load.wait(2)
    account = load.account
    assert len(account.first) == account.answered["stream"]
    for (sent, first), seconds in zip(account.first, account.seconds, strict=True):
        assert 0.06 <= first <= seconds - 0.2  # of three words; some twenty more until the end
        assert sent > 0


@contextmanager
def answering(body: bytes) -> Iterator[str]:
    """A server that answers everything with 200 and this."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            self.send_response(200)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


@pytest.mark.parametrize("kind", ["generate", "stream"])
@pytest.mark.parametrize("body", [b"", b"<html>", b"{}", b'event: end\ndata: {"versi\n\n'])
def test_an_answer_that_is_none_is_lost_and_stops_no_client(kind: str, body: bytes) -> None:
    with answering(body) as url, Load(url, 1, (kind,), rate=50) as load:
        end = time.monotonic() + 10
        while load.account.sent < 4 and time.monotonic() < end:
            time.sleep(0.01)
    assert load.account.balanced()
    assert load.account.lost.total() == load.account.sent >= 4


def died() -> dict[str, Any]:
    """A part whose process ends without a word."""
    import os

    os._exit(9)


def refused() -> dict[str, Any]:
    """A part that fails."""
    raise RuntimeError("too few answers")


def fine() -> dict[str, Any]:
    """A part that works."""
    return {"sent": 3}


def test_a_part_runs_in_a_process_of_its_own_whose_end_is_noticed() -> None:
    assert apart(fine) == {"sent": 3}
    with pytest.raises(RuntimeError, match="too few answers"):
        apart(refused)
    with pytest.raises(RuntimeError, match="terminated abruptly"):
        apart(died)


def test_a_part_that_fails_loses_no_other_and_parts_run_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(command, "RESULTS", tmp_path)
    monkeypatch.setattr(serving, "PARTS", {"overhead": fine, "scaling": refused, "soak": fine})

    def kept() -> dict[str, Any]:
        found: dict[str, Any] = json.loads((tmp_path / "serving.json").read_text(encoding="utf-8"))
        return found

    assert command.main(["serving"]) == 1
    assert "serving.scaling: RuntimeError: too few answers" in capsys.readouterr().err
    assert set(kept()) == {"overhead", "soak"}
    assert kept()["soak"]["sent"] == 3 and kept()["soak"]["machine"] and kept()["soak"]["when"]

    monkeypatch.setattr(serving, "PARTS", {"overhead": refused, "scaling": lambda: {"sent": 4}, "soak": refused})
    assert command.main(["serving.scaling"]) == 0
    assert list(kept()) == ["overhead", "scaling", "soak"], "in the order of the parts"
    assert (kept()["overhead"]["sent"], kept()["scaling"]["sent"]) == (3, 4)


@pytest.mark.parametrize("name", ["nothing", "serving.nothing", "reader.nothing"])
def test_an_unknown_benchmark_or_part_is_refused_before_anything_runs(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(command, "RESULTS", tmp_path)
    assert command.main([name]) == 2
    assert f"unknown benchmark {name}" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
