"""Log-probabilities of given completions under a base model and what training made of it, over Ray Data actors.

    score_many(rows, base, {"base": None, "sft": folder, "dpo1": folder}, settings)

Each actor loads the base once and every adapter beside it, and scores a batch under all of
them before it takes the next. Where training left whole models (``training.mode: full``), one
is in memory at a time, and the batches come model by model. Rows are encoded in the calling
process, sorted by length so that little is padded, and kept beside rows of the same prompt so
that it runs once. That suits sets of some ten thousand rows, as held-out pairs are; it is no
way to score a corpus.
"""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from importlib import import_module
from pathlib import Path
from typing import Any

import pyarrow as pa

from configs.errors import DataError
from configs.settings import Settings
from pipelines import pools
from pipelines.grouping import grouped
from pipelines.training.encode import EmptyCompletion, RowTooLong, encode
from pipelines.training.imports import lean_imports
from pipelines.training.weights import base_name, is_whole_model, load_model, load_tokenizer

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
    batches = list(cut(by_model(encoded, adapters), settings.evaluation.batch_size))
    scored = joined(run(batches, base, adapters, settings), results) if batches else results.empty_table()
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


def by_model(encoded: list[dict[str, Any]], adapters: Mapping[str, Path | None]) -> list[dict[str, Any]]:
    """Each row once for every model it takes: the base with all of its adapters is one, a whole model another."""
    alone = set(whole_models(adapters))
    parts = []
    for row in encoded:
        shared = [name for name in row["names"] if name not in alone]
        names = [*([shared] if shared else []), *([name] for name in row["names"] if name in alone)]
        parts += [row | {"names": some} for some in names]
    return parts


def whole_models(adapters: Mapping[str, Path | str | None]) -> dict[str, str]:
    """Those of ``adapters`` that are whole models (``training.mode: full``)."""
    return {name: str(path) for name, path in adapters.items() if path and is_whole_model(Path(path))}


def joined(scored: pa.Table, results: pa.Schema) -> pa.Table:
    """One row again for each ``row_id``, with the numbers of all of its models."""
    columns = [name for name in results.names if name not in ("row_id", "reason")]
    whole = grouped(scored, "row_id").aggregate([(name, "max") for name in columns])
    found = {name: whole[f"{name}_max"] for name in columns}
    return pa.table(
        [
            found.get(name, whole["row_id"] if name == "row_id" else pa.nulls(len(whole), pa.string()))
            for name in results.names
        ],
        schema=results,
    )


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
        label_selector=pools.selector(settings, "training"),
    )
    return pa.concat_tables([table for table in ray.get(scored.to_arrow_refs()) if len(table)])


class Policies:
    """Models in the precision, on the bits and with the attention of training, one in memory at a time.

    The base and all of its adapters are one model, each whole model is one of its own. It is
    loaded when it is first asked for, in place of the one before.
    """

    def __init__(self, base: str, adapters: Mapping[str, str | None], settings: Settings):
        with lean_imports():
            import_module("peft")  # and with it torch and transformers
        self.base, self.settings = base, settings
        self.whole = whole_models(adapters)
        self.folders = {name: path for name, path in adapters.items() if path and name not in self.whole}
        self.slots = {name: f"slot{index}" for index, name in enumerate(self.folders)}
        self.loaded: str | None = None
        self.plain: Any = None
        """The base, or the whole model."""
        self.model: Any = None
        """``plain``, or PEFT's wrapping of it."""

    @contextmanager
    def under(self, name: str) -> Iterator[Any]:
        """The base while its layers work with the adapter ``name`` or with none, or the whole model ``name``."""
        self._hold(self.whole.get(name, self.base))
        if name in self.slots:
            self.model.set_adapter(self.slots[name], inference_mode=True)
            yield self.plain
        else:
            with self.model.disable_adapter() if self.model is not self.plain else nullcontext():
                yield self.plain

    def _hold(self, source: str) -> None:
        """Have the model of ``source`` in memory, and no other."""
        if source == self.loaded:
            return
        self.plain = self.model = self.loaded = None
        model, training = self.settings.model, self.settings.training
        is_base, four_bit = source == self.base, training.mode == "qlora" and source == self.base
        self.plain = self.model = load_model(
            source,
            model.revision if is_base else None,
            model.attention,
            training.bf16,
            four_bit=four_bit,
            kernels=model.use_kernels,
        )
        for name in self.slots if is_base else ():
            self._add(self.folders[name], self.slots[name])
        if not four_bit:  # bitsandbytes has put it on the GPU
            self.model.to("cuda" if training.gpus_per_worker else "cpu")
        self.model.eval()
        self.loaded = source

    def _add(self, folder: str, slot: str) -> None:
        from peft import PeftModel

        # In bfloat16 DeepSpeed computes with bfloat16 adapters too, while PEFT would load them in float32.
        if self.model is self.plain:
            self.model = PeftModel.from_pretrained(self.plain, folder, adapter_name=slot, autocast_adapter_dtype=False)
        else:
            self.model.load_adapter(folder, adapter_name=slot, autocast_adapter_dtype=False)


class Scorer:
    """Scores batches in an actor of Ray Data's pool."""

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
