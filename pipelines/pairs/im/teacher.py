"""Asking the teacher, over Ray Data: many requests in flight, each answer kept at once.

An actor is an event loop with its share of ``concurrency``. It looks into the store when it
starts, so an actor that takes the place of a dead one, like a run that takes up a killed
one, asks only for what is missing. What leaves an actor is one row a prompt with the reason
why there is no answer; the texts themselves are read from the store.
"""

import asyncio
import logging
import math
import os
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pyarrow as pa
from pydantic import SecretStr

from configs.errors import ConfigError, EngineError
from configs.improvement import TeacherSettings
from pipelines.corpus.failures import plain_errors
from pipelines.pairs.im import store
from pipelines.pairs.im.endpoint import Answer, Passing, Refused, ask, connected
from pipelines.pairs.im.in_house import require_in_house

log = logging.getLogger("llumi.revisions")

REFUSED = "refused"
"""The ``finish_reason`` under which the store keeps that the endpoint takes no such prompt."""
OUTCOME = pa.schema([("failure", pa.string())])
"""One row a prompt that was not in the store; ``failure`` is null where it is now."""
PER_ACTOR = 64
"""Requests in flight that one event loop is given."""
BATCH = 1024
"""Prompts handed to an actor at once; only at the end of them it waits for the slowest."""
IN_A_ROW = 20
"""Prompts left without an answer one after another, all repetitions used up, after which an actor gives up."""


def api_key(settings: TeacherSettings) -> SecretStr | None:
    """The key by the name of its variable; raises ConfigError where that is not set."""
    if settings.api_key_env is None:
        return None
    if not (value := os.environ.get(settings.api_key_env)):
        raise ConfigError(f"improvement.teacher.api_key_env names {settings.api_key_env}, which is not set here")
    return SecretStr(value)


def ask_all(
    files: list[str], folder: Path, settings: TeacherSettings, key: SecretStr | None, total: int
) -> Counter[str]:
    """Have the ``total`` requests of ``files`` (columns REQUEST) that the store lacks answered in it.

    Returns failures by reason. Raises ConfigError where the endpoint refuses the run as a whole,
    EngineError where more than ``max_failed_share`` of the requests stay without an answer.
    """
    import ray.data

    actors = math.ceil(settings.concurrency / PER_ACTOR)
    outcomes = ray.data.read_parquet(files, partitioning=None).map_batches(
        Asker,
        fn_constructor_args=(folder.resolve(), settings, key, math.ceil(settings.concurrency / actors)),
        compute=ray.data.ActorPoolStrategy(size=actors),
        batch_format="pyarrow",
        batch_size=BATCH,
        num_cpus=0.1,
    )
    failures: Counter[str] = Counter()
    done = 0
    with plain_errors():
        for batch in outcomes.iter_batches(batch_size=None, batch_format="pyarrow"):
            failures.update(reason for reason in batch["failure"].to_pylist() if reason)
            done += batch.num_rows
            log.info("teacher: %d of %d requests", done, total, extra={"done": done, "total": total})
    if failures.total() > settings.max_failed_share * total:
        raise EngineError(
            f"the teacher at {settings.base_url} left {failures.total()} of {total} requests without an answer"
            f" ({named(failures)}), more than improvement.teacher.max_failed_share={settings.max_failed_share:g};"
            " what it answered is kept: run again and only the others are asked"
        )
    return failures


def named(failures: Counter[str]) -> str:
    """Failures by reason, in words."""
    return ", ".join(f"{reason} {n}" for reason, n in sorted(failures.items()))


class Asker:
    """One event loop in an actor of Ray Data's pool."""

    def __init__(self, folder: Path, settings: TeacherSettings, key: SecretStr | None, concurrency: int):
        require_in_house(settings)
        self.folder, self.settings, self.concurrency = folder, settings, concurrency
        self.key = key.get_secret_value() if key else None
        self.answered = store.keys(folder)
        self.in_a_row = 0

    def __call__(self, batch: pa.Table) -> pa.Table:
        rows = []
        for row in batch.to_pylist():
            if row["key"] not in self.answered:
                self.answered.add(row["key"])
                rows.append(row)
        failures: list[str | None] = []
        with store.Writer(self.folder) as writer:
            asyncio.run(self.ask(rows, writer, failures))
            writer.sync()
        return pa.table({"failure": pa.array(failures, pa.string())}, schema=OUTCOME)

    async def ask(self, rows: Iterable[dict[str, Any]], writer: store.Writer, failures: list[str | None]) -> None:
        """Ask all rows; as many at once as the actor may, each kept as soon as it is answered."""
        waiting = iter(rows)

        async def work() -> None:
            for row in waiting:
                try:
                    answer = await ask(client, row["prompt"], self.settings)
                except Passing as failure:
                    failures.append(failure.name)
                    self.give_up_after(failure)
                    continue
                except Refused:
                    answer = Answer("", REFUSED, None, None)
                self.in_a_row = 0
                writer.add({**row, **answer._asdict()})
                failures.append(None)

        async with connected(self.settings, self.key) as client:
            workers = [asyncio.create_task(work()) for _ in range(self.concurrency)]
            try:
                await asyncio.gather(*workers)
            finally:
                for worker in workers:
                    worker.cancel()

    def give_up_after(self, failure: Passing) -> None:
        """Raises EngineError where the endpoint answers nothing any more: the rest would only wait in vain."""
        self.in_a_row += 1
        if self.in_a_row >= max(IN_A_ROW, self.concurrency):
            raise EngineError(
                f"the teacher at {self.settings.base_url} left {self.in_a_row} requests in a row without an answer"
                f" (last: {failure.name}); what it answered is kept: see to the endpoint and run again"
            )
