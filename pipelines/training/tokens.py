"""Rows to token ids, once, on CPUs, before any GPU is taken: a Ray Data pass, one task a file.

Each task streams its file through ``encode`` into one Parquet file of the same name, so the
output - and with it the order of training - does not depend on how many CPUs took part. What
is not kept is counted under its reason: ``beyond_max_rows`` (a seeded choice among all rows,
made before tokenising), ``empty`` and ``too_long``. The rows' ids stay beside their tokens, so
that anything a model was trained on can be traced back to its post.
"""

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from functools import cache, partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from configs.errors import DataError, MissingInput
from configs.load import to_yaml
from configs.settings import Settings
from configs.training import ModelName, StageName, StageSettings
from pipelines.manifest import Input, Manifest, fingerprints, writing
from pipelines.training.encode import EmptyCompletion, RowTooLong, encode
from pipelines.training.weights import base_name, load_tokenizer

SPLITS = ("train", "validation")
BATCH = 1000
IGNORED = -100
IDS = pa.list_(pa.int32())
SFT_TOKENS = pa.schema(
    [("input_ids", IDS), ("labels", IDS), ("length", pa.int32()), ("post_id", pa.string()), ("comment_id", pa.string())]
)
"""SFT: ``labels`` repeats the completion's ids and is -100 on the prompt; ``length`` in tokens."""
DPO_TOKENS = pa.schema(
    [
        ("prompt_ids", IDS),
        ("chosen_ids", IDS),
        ("rejected_ids", IDS),
        ("length", pa.int32()),
        ("post_id", pa.string()),
        ("chosen_id", pa.string()),
        ("rejected_id", pa.string()),
    ]
)
"""DPO: ``length`` is that of the prompt with the longer of the two replies, in tokens."""
PAIR_KEYS = ("post_id", "chosen_id", "rejected_id")
KEYS = {"sft": ("post_id", "comment_id", "original_id"), "dpo": PAIR_KEYS}
"""Columns that name a row."""
REFERENCE_COLUMNS = ("ref_chosen_logps", "ref_rejected_logps")
"""What TRL calls the reference's log-probabilities of a pair's two replies (summed over tokens, in nats)."""


def kind_of(stage: StageName) -> str:
    """``sft`` or ``dpo``: which trainer, and with it which columns, the stage takes."""
    return "sft" if stage == "sft" else "dpo"


def stage_name(model: ModelName, stage: StageName) -> str:
    """Name of this stage in manifests."""
    return f"tokens/{model}/{stage}"


def depends(settings: Settings, model: ModelName, stage: StageName) -> dict[str, Any]:
    """The settings that the tokens depend on."""
    return {
        "model": model,
        "stage": stage,
        "revision": settings.model.revision,
        "max_length": settings.training.max_length,
        "max_rows": row_limits(settings, stage),
        "seed": settings.seed,
    }


def row_limits(settings: Settings, stage: StageName) -> dict[str, int]:
    """Most rows a split; 0 = all."""
    own: StageSettings = getattr(settings.training, stage)
    return {"train": own.max_rows, "validation": settings.training.validation_rows}


def build(
    settings: Settings, inputs: Mapping[str, Input], output: Path, *, model: ModelName, stage: StageName
) -> Manifest:
    """Tokenise ``inputs["rows"]``/model/{train,validation} for ``inputs["base"]`` into ``output``/{train,validation}.

    Raises MissingInput where a split's folder is not there, DataError where no training row is left.
    """
    base = base_name(inputs["base"])
    load_tokenizer(base, settings.model.revision)
    rows = Path(str(inputs["rows"])) / model
    with writing(
        output,
        stage=stage_name(model, stage),
        settings=depends(settings, model, stage),
        inputs=fingerprints(inputs),
        resolved=to_yaml(settings),
    ) as draft:
        limits = row_limits(settings, stage)
        for split in SPLITS:
            counts = encode_split(
                rows / split,
                draft.path / split,
                partial(
                    encode_file,
                    kind=kind_of(stage),
                    base=base,
                    revision=settings.model.revision,
                    max_length=settings.training.max_length,
                    seed=settings.seed,
                ),
                limit=limits[split],
                keys=KEYS[kind_of(stage)],
                seed=settings.seed,
            )
            kept, tokens = counts.pop("kept"), counts.pop("tokens")
            draft.count(split, read=kept + sum(counts.values()), kept=kept, dropped=counts)
            draft.figures[f"{split}_tokens"] = tokens
        train = draft.rows["train"]
        if train.kept == 0:
            raise DataError(f"{rows / 'train'}: no training row is left of {train.read} read; dropped: {train.dropped}")
    assert draft.manifest is not None
    return draft.manifest


def encode_split(source: Path, target: Path, task: partial, *, limit: int, keys: tuple[str, ...], seed: int) -> Counter:
    """Encode every file of one split; returns rows kept and dropped by reason, and tokens."""
    import ray

    files = sorted(source.glob("*.parquet"))
    if not files:
        raise MissingInput(f"{source} holds no Parquet file: run the stage that makes these rows first")
    target.mkdir(parents=True)
    bound = highest_pick(files, keys, limit, seed)
    work = [{"source": str(file), "target": str(target / file.name), "bound": bound} for file in files]
    done = ray.data.from_items(work, override_num_blocks=len(work)).map(task).take_all()
    totals = Counter({"kept": 0, "tokens": 0})
    for counts in done:
        totals.update({name: n for name, n in counts.items() if n})
    return totals


def encode_file(
    item: Mapping[str, Any], *, kind: str, base: str, revision: str | None, max_length: int, seed: int
) -> dict[str, int]:
    """Encode the file ``item["source"]`` into ``item["target"]``; returns counts by fate, and tokens."""
    tokenizer = cached_tokenizer(base, revision)
    schema, encode_row = (SFT_TOKENS, sft_row) if kind == "sft" else (DPO_TOKENS, dpo_row)
    counts = Counter({"kept": 0, "tokens": 0, "too_long": 0, "empty": 0, "beyond_max_rows": 0})
    with pq.ParquetWriter(item["target"], schema) as writer:
        for batch in pq.ParquetFile(item["source"]).iter_batches(batch_size=BATCH):
            kept = []
            for row in batch.to_pylist():
                if item["bound"] is not None and pick(row, KEYS[kind], seed) > item["bound"]:
                    counts["beyond_max_rows"] += 1
                    continue
                try:
                    encoded = encode_row(tokenizer, row, max_length)
                except RowTooLong:
                    counts["too_long"] += 1
                except EmptyCompletion:
                    counts["empty"] += 1
                else:
                    counts["kept"] += 1
                    counts["tokens"] += encoded["length"]
                    kept.append({name: encoded.get(name, row.get(name)) for name in schema.names})
            writer.write_batch(pa.RecordBatch.from_pylist(kept, schema=schema))
    return dict(counts)


def sft_row(tokenizer: Any, row: Mapping[str, Any], max_length: int) -> dict[str, Any]:
    """One SFT row as ids and labels."""
    prompt, completion = encode(tokenizer, row["prompt"], row["completion"], max_length)
    labels = [IGNORED] * len(prompt) + completion
    return {"input_ids": prompt + completion, "labels": labels, "length": len(labels)}


def dpo_row(tokenizer: Any, row: Mapping[str, Any], max_length: int) -> dict[str, Any]:
    """One preference pair as ids."""
    prompt, chosen = encode(tokenizer, row["prompt"], row["chosen"], max_length)
    _, rejected = encode(tokenizer, row["prompt"], row["rejected"], max_length)
    length = len(prompt) + max(len(chosen), len(rejected))
    return {"prompt_ids": prompt, "chosen_ids": chosen, "rejected_ids": rejected, "length": length}


def highest_pick(files: Iterable[Path], keys: tuple[str, ...], limit: int, seed: int) -> int | None:
    """The draw of the last row that is still chosen, None where all are."""
    if limit == 0:
        return None
    draws = sorted(pick(row, keys, seed) for file in files for row in key_rows(file, keys))
    return draws[limit - 1] if len(draws) > limit else None


def key_rows(file: Path, keys: tuple[str, ...]) -> Iterator[dict[str, Any]]:
    """The columns of a file that name its rows."""
    for batch in pq.ParquetFile(file).iter_batches(columns=list(keys)):
        yield from batch.to_pylist()


def pick(row: Mapping[str, Any], keys: tuple[str, ...], seed: int) -> int:
    """A row's draw in the choice of ``max_rows``: by its ids and the seed only, so it never depends on order."""
    text = "|".join([str(seed), *(str(row[key]) for key in keys)])
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")


@cache
def cached_tokenizer(base: str, revision: str | None) -> Any:
    """The tokenizer, loaded once a process."""
    return load_tokenizer(base, revision)
