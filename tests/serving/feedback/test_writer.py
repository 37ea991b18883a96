"""The queue of records by itself, where a database is only slow."""

import threading
import time

from serving.feedback.records import Answer
from serving.feedback.store import now
from serving.feedback.writer import Writer


def answer(name: str) -> Answer:
    return Answer(name, "app", "generate", "gm", "v1", "none", 1, None, now())


def test_a_queue_that_overflows_while_a_batch_is_written_leaves_what_came_since() -> None:
    begun, going = threading.Event(), threading.Event()
    written: list[str] = []

    def write(batch: list[Answer]) -> None:
        begun.set()
        going.wait(10)
        written.extend(answer.request_id for answer in batch)

    writer = Writer(2, write=write, purge=lambda: None, failed=lambda: None)
    writer.add(answer("a"))
    assert begun.wait(10)
    for name in "bc":  # the second pushes out the one that is being written
        writer.add(answer(name))
    going.set()
    end = time.monotonic() + 10
    while writer.waiting and time.monotonic() < end:
        time.sleep(0.01)
    writer.close(10)
    assert written == ["a", "b", "c"]
