"""The teacher's answers, kept from run to run, so that no prompt is asked and paid for twice.

    teacher/answers-<random>.jsonl        a line an answer, columns ANSWER

Answers are found by ``key_of``: prompt, model and sampling. Each writer has a file of its
own and ends every line before the next begins, so that a process that is killed leaves at
most one torn last line, which is not read. Files are only ever added; a rerun with another
prompt, model or sampling finds nothing and asks anew, and going back finds the old answers.
Lines name the post, the original and the examples they were made of, so that forgetting one
finds them. About 1 KB an answer; a run holds all of them in memory once.
"""

import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from uuid import uuid4

import pyarrow as pa

from configs.errors import DataError
from configs.improvement import TeacherSettings
from pipelines.pairs.im.schema import ANSWER

GLOB = "answers-*.jsonl"


def sampling(settings: TeacherSettings) -> dict[str, Any]:
    """What of the settings decides an answer; where the model is reached does not."""
    return settings.model_dump(mode="json", include={"model", "temperature", "top_p", "max_tokens", "extra_body"})


def key_of(prompt: str, settings: TeacherSettings) -> str:
    """SHA-256 (hex) over prompt, model and sampling."""
    return hashlib.sha256(json.dumps([prompt, sampling(settings)], sort_keys=True).encode()).hexdigest()


class Writer:
    """Adds answers to the store; its file appears with the first one."""

    def __init__(self, folder: Path):
        self.path = folder / f"answers-{uuid4().hex}.jsonl"
        self.descriptor: int | None = None

    def add(self, answer: dict[str, Any]) -> None:
        """Keep one answer (columns ANSWER): it is in the file when this returns."""
        line = json.dumps({name: answer[name] for name in ANSWER.names}).encode() + b"\n"
        try:
            if self.descriptor is None:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                self.descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
            written = os.write(self.descriptor, line)
        except OSError as error:
            raise DataError(f"{self.path} cannot be written: {error.strerror}; mend that and run again") from None
        if written < len(line):
            raise DataError(f"{self.path}: the disk took {written} of {len(line)} bytes; make room and run again")

    def sync(self) -> None:
        """Have the disk hold what was added."""
        if self.descriptor is not None:
            os.fsync(self.descriptor)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.descriptor is not None:
            os.close(self.descriptor)
            self.descriptor = None


def read(folder: Path) -> pa.Table:
    """All answers (columns ANSWER), one a key: the first that was given."""
    rows: dict[str, dict[str, Any]] = {}
    for path in sorted(folder.glob(GLOB), key=lambda path: (path.stat().st_mtime_ns, path.name)):
        for row in lines(path):
            rows.setdefault(row["key"], row)
    return pa.Table.from_pylist(list(rows.values()), schema=ANSWER)


def keys(folder: Path) -> set[str]:
    """The keys of all answers."""
    return {row["key"] for path in folder.glob(GLOB) for row in lines(path)}


def lines(path: Path) -> Iterator[dict[str, Any]]:
    """The whole lines of one file.

    Raises DataError for one that is no answer; only the last may be torn.
    """
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if not line.endswith(b"\n"):
                return
            try:
                row = json.loads(line)
                row["key"], row["text"]
            except (ValueError, LookupError, TypeError):
                raise DataError(f"{path}, line {number}: no answer of the teacher; remove it and run again") from None
            yield row
