"""Log-probabilities of given completions under a base model with adapters, over Ray Data actors.

    score_many(rows, base, {"base": None, "sft": folder, "dpo1": folder}, settings)

Each actor loads the base once and every adapter beside it, and scores a batch under all of
them before it takes the next. Rows are encoded in the calling process, sorted by length so
that little is padded, and kept beside rows of the same prompt so that it runs once. That
suits sets of some ten thousand rows, as held-out pairs are; it is no way to score a corpus.
"""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from importlib import import_module
from pathlib import Path
from typing import Any

import pyarrow as pa

from configs.errors import DataError
from configs.settings import Settings
from pipelines.training.encode import EmptyCompletion, RowTooLong, encode
from pipelines.training.imports import lean_imports
from pipelines.training.weights import base_name, load_model, load_tokenizer

REASONS = {RowTooLong: "too_long", EmptyCompletion: "no_text"}
"""Why a row cannot be scored."""
FIXED = [("row_id", pa.string()), ("tokens", pa.int64()), ("reason", pa.string())]
"""Columns of the result that stand before those of the adapters."""

ENCODED = pa.schema(
    [
        ("row_id", pa.string()),
        ("names", pa.list_(pa.string())),
        ("prompt_ids", pa.list_(pa.int32())),
        ("completion_ids", pa.list_(pa.int32())),
    ]
)
"""What an actor is sent; ``names`` are the adapters that the row is scored under."""


def score(rows: pa.Table, base: str, adapter: Path | None, settings: Settings) -> pa.Table:
    """Score ``rows`` (row_id, prompt, completion) under one model: columns row_id, logp, tokens.

    ``logp`` is the sum over the completion's tokens, its end token included, in nats;
    ``tokens`` how many they are; both are null for a row that is too long for
    ``training.max_length`` or has no completion. Rows come back in the order they were given.
    """
    scored = score_many(rows, base, {"logp": adapter}, settings)
    return scored.select(["row_id", "logp", "tokens"])


def score_many(rows: pa.Table, base: str, adapters: Mapping[str, Path | None], settings: Settings) -> pa.Table:
    """Score ``rows`` under the base with each of ``adapters`` (None: the base alone).

    Returns row_id, tokens, reason (null, or why a row could not be scored: too_long, no_text),
    and one float column of summed log-probabilities a name. Rows may carry ``names`` (list of
    strings): they are then scored under those adapters only, and the other columns are null.
    Raises DataError where two rows have the same row_id.
    """
    results = schema(adapters)
    if rows.num_rows == 0:
        return results.empty_table()
    ids = rows.column("row_id").to_pylist()
    if len(set(ids)) != len(ids):
        raise DataError(f"rows to score must have distinct row_id: {len(ids)} rows, {len(set(ids))} ids")
    encoded, refused = encode_rows(rows, base, list(adapters), settings)
    batches = list(cut(encoded, settings.evaluation.batch_size))
    scored = run(batches, base, adapters, settings) if batches else results.empty_table()
    scored = pa.concat_tables([scored, pa.Table.from_pylist(refused, schema=results)])
    place = {row_id: index for index, row_id in enumerate(scored["row_id"].to_pylist())}
    return scored.take(pa.array([place[row_id] for row_id in ids]))


def schema(adapters: Iterable[str]) -> pa.Schema:
    """Columns of the result."""
    return pa.schema([*FIXED, *((name, pa.float64()) for name in adapters)])


def encode_rows(
    rows: pa.Table, base: str, names: list[str], settings: Settings
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Token ids of each row, as training encodes them (columns ENCODED), and the rows refused, with the reason."""
    tokenizer = load_tokenizer(base_name(base), settings.model.revision)
    encoded, refused = [], []
    for row in rows.to_pylist():
        try:
            prompt, completion = encode(tokenizer, row["prompt"], row["completion"], settings.training.max_length)
        except (RowTooLong, EmptyCompletion) as error:
            refused.append({"row_id": row["row_id"], "reason": REASONS[type(error)]})
            continue
        under = row.get("names") or names
        encoded.append({"row_id": row["row_id"], "names": under, "prompt_ids": prompt, "completion_ids": completion})
    return encoded, refused


def cut(encoded: list[dict[str, Any]], batch_size: int) -> Iterable[pa.Table]:
    """Batches of rows that are scored under the same adapters, longest first, equal prompts together."""

    def order(row: dict[str, Any]) -> tuple[Any, ...]:
        return (row["names"], -len(row["prompt_ids"]), row["prompt_ids"], -len(row["completion_ids"]))

    batch: list[dict[str, Any]] = []
    for row in sorted(encoded, key=order):
        if batch and (len(batch) == batch_size or row["names"] != batch[0]["names"]):
            yield pa.Table.from_pylist(batch, schema=ENCODED)
            batch = []
        batch.append(row)
    if batch:
        yield pa.Table.from_pylist(batch, schema=ENCODED)


def run(batches: list[pa.Table], base: str, adapters: Mapping[str, Path | None], settings: Settings) -> pa.Table:
    """All batches through a pool of actors, one block a batch."""
    import ray

    folders = {name: str(path) if path else None for name, path in adapters.items()}
    size = max(1, min(settings.evaluation.actors, len(batches)))
    scored = ray.data.from_arrow(batches).map_batches(
        Scorer,
        batch_size=None,
        batch_format="pyarrow",
        compute=ray.data.ActorPoolStrategy(size=size),
        fn_constructor_args=(base_name(base), folders, settings),
        num_cpus=settings.training.cpus_per_worker,
        num_gpus=settings.training.gpus_per_worker or None,
    )
    return pa.concat_tables([table for table in ray.get(scored.to_arrow_refs()) if len(table)])


class Policies:
    """One base in memory with all adapters beside it, in the precision and with the attention of training."""

    def __init__(self, base: str, adapters: Mapping[str, str | None], settings: Settings):
        with lean_imports():
            import_module("peft")  # and with it torch and transformers
        model = settings.model
        self.base = load_model(base, model.revision, model.attention, settings.training.bf16)
        self.model = self.base
        self.slots = {name: f"slot{index}" for index, (name, path) in enumerate(adapters.items()) if path}
        for name, slot in self.slots.items():
            self._load(str(adapters[name]), slot)
        self.model.to("cuda" if settings.training.gpus_per_worker else "cpu").eval()

    def _load(self, folder: str, slot: str) -> None:
        from peft import PeftModel

        # In bfloat16 DeepSpeed computes with bfloat16 adapters too, while PEFT would load them in float32.
        if self.model is self.base:
            self.model = PeftModel.from_pretrained(self.base, folder, adapter_name=slot, autocast_adapter_dtype=False)
        else:
            self.model.load_adapter(folder, adapter_name=slot, autocast_adapter_dtype=False)

    @contextmanager
    def under(self, name: str) -> Iterator[Any]:
        """The base while its layers work with the adapter ``name``, or with none."""
        if name in self.slots:
            self.model.set_adapter(self.slots[name], inference_mode=True)
            yield self.base
        else:
            with self.model.disable_adapter() if self.slots else nullcontext():
                yield self.base


class Scorer:
    """One model with all adapters in memory, in an actor of Ray Data's pool."""

    def __init__(self, base: str, adapters: Mapping[str, str | None], settings: Settings):
        self.schema = schema(adapters)
        self.policies = Policies(base, adapters, settings)

    def __call__(self, batch: pa.Table) -> pa.Table:
        from pipelines.generation.logprobs import completion_logps

        rows = list(zip(batch["prompt_ids"].to_pylist(), batch["completion_ids"].to_pylist(), strict=True))
        columns: dict[str, Any] = {"row_id": batch["row_id"], "tokens": [len(completion) for _, completion in rows]}
        columns |= {name: [None] * len(rows) for name in self.schema.names[2:]}
        for name in batch["names"][0].as_py():
            with self.policies.under(name) as model:
                columns[name] = completion_logps(model, rows)
        return pa.table(columns, schema=self.schema)
