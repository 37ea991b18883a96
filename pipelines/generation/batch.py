"""Text for many prompts at once, over Ray Data actors.

    drafts = generate(requests, base, adapter, settings)

Requests are sorted by length and cut into batches here, so that the same requests, settings and
seed give the same texts on any number of actors. Meant for evaluation: some ten thousand prompts.
"""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow as pa

from configs.errors import DataError
from configs.settings import Settings
from pipelines import pools
from pipelines.generation.engine import Sampling
from pipelines.training.encode import encode_prompt
from pipelines.training.weights import base_name, load_tokenizer

RESULT = pa.schema(
    [("request_id", pa.string()), ("text", pa.string()), ("finish_reason", pa.string()), ("new_tokens", pa.int64())]
)
"""``finish_reason`` is stop, length, or too_long for a prompt that the model cannot hold (its text is empty)."""

ENCODED = pa.schema([("request_id", pa.string()), ("prompt_ids", pa.list_(pa.int32())), ("batch", pa.int64())])
"""What an actor is sent."""
SEED_STEP = 1_000_003
"""Distance between the seeds of two batches."""


def generate(requests: pa.Table, base: str, adapter: Path | None, settings: Settings) -> pa.Table:
    """Answers (columns RESULT) to ``requests`` (request_id, prompt) in the order they were given.

    Sampled by ``settings.generation``. Raises DataError where two requests have the same id.
    """
    if requests.num_rows == 0:
        return RESULT.empty_table()
    ids = requests.column("request_id").to_pylist()
    if len(set(ids)) != len(ids):
        raise DataError(f"requests must have distinct request_id: {len(ids)} rows, {len(set(ids))} ids")
    batches = cut(encoded(requests, base, settings), settings.evaluation.batch_size)
    answers = run(batches, base, adapter, settings)
    place = {request_id: row for row, request_id in enumerate(answers["request_id"].to_pylist())}
    return answers.take(pa.array([place[request_id] for request_id in ids]))


def encoded(requests: pa.Table, base: str, settings: Settings) -> list[dict[str, Any]]:
    """Each request with the token ids of its prompt."""
    tokenizer = load_tokenizer(base_name(base), settings.model.revision)
    return [
        {"request_id": row["request_id"], "prompt_ids": encode_prompt(tokenizer, row["prompt"])}
        for row in requests.select(["request_id", "prompt"]).to_pylist()
    ]


def cut(rows: list[dict[str, Any]], batch_size: int) -> list[pa.Table]:
    """Batches of similar length (columns ENCODED), the longest first so that no actor ends much later."""
    ordered = sorted(rows, key=lambda row: (-len(row["prompt_ids"]), row["request_id"]))
    starts = range(0, len(ordered), batch_size)
    return [
        pa.Table.from_pylist([row | {"batch": number} for row in ordered[start : start + batch_size]], schema=ENCODED)
        for number, start in enumerate(starts)
    ]


def run(batches: list[pa.Table], base: str, adapter: Path | None, settings: Settings) -> pa.Table:
    """All batches through a pool of actors, one block a batch."""
    import ray

    answers = ray.data.from_arrow(batches).map_batches(
        Writer,
        batch_size=None,
        batch_format="pyarrow",
        compute=ray.data.ActorPoolStrategy(size=min(settings.evaluation.actors, len(batches))),
        fn_constructor_args=(base_name(base), adapter, settings),
        num_cpus=settings.training.cpus_per_worker,
        num_gpus=settings.training.gpus_per_worker or None,
        label_selector=pools.selector(settings, "training"),
    )
    return pa.concat_tables([table for table in ray.get(answers.to_arrow_refs()) if len(table)])


class Writer:
    """One model in an actor of Ray Data's pool."""

    def __init__(self, base: str, adapter: Path | None, settings: Settings):
        from pipelines.generation.loaded import load

        self.loaded = load(base, adapter, settings.model.revision, gpu=settings.training.gpus_per_worker > 0)
        self.sampling = Sampling.of(settings.generation)
        self.seed = settings.generation.seed

    def __call__(self, batch: pa.Table) -> pa.Table:
        from pipelines.generation.padded import write

        room = self.loaded.positions - self.sampling.max_new_tokens
        rows = batch.to_pylist()
        fitting = [row for row in rows if len(row["prompt_ids"]) <= room]
        results = [
            {"request_id": row["request_id"], "text": "", "finish_reason": "too_long", "new_tokens": 0}
            for row in rows
            if len(row["prompt_ids"]) > room
        ]
        if fitting:
            seed = self.seed + SEED_STEP * fitting[0]["batch"]
            answers = write(self.loaded, [row["prompt_ids"] for row in fitting], self.sampling, seed)
            for row, answer in zip(fitting, answers, strict=True):
                results.append({"request_id": row["request_id"], **asdict(answer)})
        return pa.Table.from_pylist(results, schema=RESULT)
