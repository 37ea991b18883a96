"""Text from several adapters of one base, without starting a pool of actors for each.

    texts = generate_many({"gm/sft": requests, "gm/dpo1": requests}, base, adapters, settings)

Gives what ``batch.generate`` gives for each name. Starting an actor costs more than a small
model takes to write a hundred drafts, so the actors stay and change the model when the next
batch is another name's. One model is in memory at a time.
"""

from collections.abc import Mapping
from pathlib import Path

import pyarrow as pa

from configs.settings import Settings
from pipelines import pools
from pipelines.generation.batch import ENCODED, RESULT, Writer, cut, encoded
from pipelines.training.weights import base_name

NAMED = ENCODED.append(pa.field("name", pa.string()))
NAMED_RESULT = RESULT.append(pa.field("name", pa.string()))


def generate_many(
    requests: Mapping[str, pa.Table], base: str, adapters: Mapping[str, Path | None], settings: Settings
) -> dict[str, pa.Table]:
    """Answers (columns RESULT) by name to ``requests[name]`` (request_id, prompt), in their order.

    ``adapters[name]`` is what a name's requests are written with; None is the base alone.
    """
    batches = [
        batch.append_column("name", pa.array([name] * batch.num_rows, pa.string()))
        for name, table in requests.items()
        for batch in cut(encoded(table, base, settings), settings.evaluation.batch_size)
    ]
    answers = run(batches, base, adapters, settings) if batches else NAMED_RESULT.empty_table()
    names, ids = answers["name"].to_pylist(), answers["request_id"].to_pylist()
    place = {key: row for row, key in enumerate(zip(names, ids, strict=True))}
    return {
        name: answers.take(pa.array([place[name, i] for i in table["request_id"].to_pylist()], pa.int64())).select(
            RESULT.names
        )
        for name, table in requests.items()
    }


def run(batches: list[pa.Table], base: str, adapters: Mapping[str, Path | None], settings: Settings) -> pa.Table:
    """All batches, one name's after the other's, through one pool of actors."""
    import ray

    answers = ray.data.from_arrow(batches).map_batches(
        Writers,
        batch_size=None,
        batch_format="pyarrow",
        compute=ray.data.ActorPoolStrategy(size=min(settings.evaluation.actors, len(batches))),
        fn_constructor_args=(base_name(base), dict(adapters), settings),
        num_cpus=settings.training.cpus_per_worker,
        num_gpus=settings.training.gpus_per_worker or None,
        label_selector=pools.selector(settings, "training"),
    )
    return pa.concat_tables([table for table in ray.get(answers.to_arrow_refs()) if len(table)])


class Writers:
    """One model at a time in an actor of Ray Data's pool: that of the batch it was last given."""

    def __init__(self, base: str, adapters: Mapping[str, Path | None], settings: Settings):
        self.base, self.adapters, self.settings = base, adapters, settings
        self.name: str | None = None
        self.writer: Writer | None = None

    def __call__(self, batch: pa.Table) -> pa.Table:
        name: str = batch["name"][0].as_py()
        if self.writer is None or name != self.name:
            self.writer = None
            self.writer, self.name = Writer(self.base, self.adapters[name], self.settings), name
        answers = self.writer(batch.select(ENCODED.names))
        return answers.append_column("name", pa.array([name] * answers.num_rows, pa.string()))
