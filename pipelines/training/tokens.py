"""Rows to token ids, once, on CPUs, before any GPU is taken: a Ray Data pass, one task a file.

Each task streams its file through ``encode`` into one Parquet file of the same name, so the
output - and with it the order of training - does not depend on how many CPUs took part. What
is not kept is counted under its reason: ``beyond_max_rows`` (a seeded choice among all rows,
made before tokenising), ``empty``, and ``too_long`` or, where prompts are cut, ``completion_too_long``.
The rows' ids stay beside their tokens, so that anything a model was trained on can be traced
back to its post. The output is keyed by the rows, the base with its chat template and tokenizer
(``templates.py``), and the settings in ``depends``; a few rows are decoded again and shown in
``masking.html`` (``masking.py``).
"""

import hashlib
import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from functools import cache, partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from configs.errors import DataError, MissingInput, StageOrderError
from configs.load import to_yaml
from configs.settings import Settings
from configs.training import ModelName, StageName, StageSettings
from pipelines.manifest import Draft, Input, Manifest, fingerprints, read, require, writing
from pipelines.training import masking, templates
from pipelines.training.cutting import CompletionTooLong, Encoded, encode_fitting
from pipelines.training.encode import EmptyCompletion, RowTooLong
from pipelines.training.lengths import Lengths
from pipelines.training.weights import base_name, load_tokenizer

logger = logging.getLogger("llumi.tokens")

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
        ("margin", pa.float32()),
    ]
)
"""DPO: ``length`` is that of the prompt with the longer of the two replies, in tokens; ``margin`` how many net
votes the chosen reply has over the rejected one, null for pairs from ratings."""
PAIR_KEYS = ("post_id", "chosen_id", "rejected_id")
KEYS = {"sft": ("post_id", "comment_id", "original_id"), "dpo": PAIR_KEYS}
"""Columns that name a row."""
REFERENCE_COLUMNS = ("ref_chosen_logps", "ref_rejected_logps")
"""What TRL calls the reference's log-probabilities of a pair's two replies (summed over tokens, in nats)."""
MARGIN = "margin"
"""DPO's column of a pair's margin: how much better the chosen reply did, null where its rule measures none."""


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
        "too_long": settings.training.too_long,
        "max_rows": row_limits(settings, stage),
        "seed": settings.seed,
        **templates.of_settings(settings),
    }


def row_limits(settings: Settings, stage: StageName) -> dict[str, int]:
    """Most rows a split; 0 = all."""
    own: StageSettings = getattr(settings.training, stage)
    return {"train": own.max_rows, "validation": settings.training.validation_rows}


def build(
    settings: Settings, inputs: Mapping[str, Input], output: Path, *, model: ModelName, stage: StageName
) -> Manifest:
    """Tokenise ``inputs["rows"]``/model/{train,validation} for ``inputs["base"]`` into ``output``/{train,validation}.

    Raises MissingInput where a split's folder is not there, DataError where no training row is left
    or one is masked wrongly.
    """
    base = base_name(inputs["base"])
    load_tokenizer(base, settings.model.revision)
    rows = Path(str(inputs["rows"])) / model
    needed = depends(settings, model, stage) | templates.of(base, settings.model.revision)
    tell_changes(output, needed)
    with writing(
        output,
        stage=stage_name(model, stage),
        settings=needed,
        inputs=fingerprints(inputs),
        resolved=to_yaml(settings),
    ) as draft:
        limits, lengths = row_limits(settings, stage), {}
        for split in SPLITS:
            task = partial(
                encode_file,
                kind=kind_of(stage),
                base=base,
                revision=settings.model.revision,
                max_length=settings.training.max_length,
                seed=settings.seed,
                cut=settings.training.too_long == "cut_prompt",
            )
            done = encode_split(
                rows / split,
                draft.path / split,
                task,
                limit=limits[split],
                keys=KEYS[kind_of(stage)],
                seed=settings.seed,
            )
            count(draft, split, done)
            lengths[split] = sum((Lengths(file["lengths"]) for file in done), Lengths())
            if split == "train":
                examined = masking.lowest(record for file in done for record in masking.loaded(file["examined"]))
        draft.figures["lengths"] = {split: found.figures(needed["max_length"]) for split, found in lengths.items()}
        train = draft.rows["train"]
        if train.kept == 0:
            raise DataError(f"{rows / 'train'}: no training row is left of {train.read} read; dropped: {train.dropped}")
        masking.report(draft, stage_name(model, stage), examined, needed)
    assert draft.manifest is not None
    return draft.manifest


def tell_changes(output: Path, needed: Mapping[str, Any]) -> None:
    """Say by name which of the settings that tokens depend on are others than those of the output that is there."""
    made = read(output)
    changed = [name for name, value in needed.items() if made and made.settings.get(name) != value]
    if changed:
        logger.info("%s: made again, as these changed: %s", made.stage if made else output, ", ".join(changed))


def check(tokens: Path, base: str, revision: str | None, command: str) -> None:
    """Refuse tokens that another chat template or tokenizer made than those of the base as it is now.

    Raises StageOrderError naming which of the two changed, and the command that makes them again.
    """
    made, now = require(tokens, command), templates.of(base, revision)
    if changed := [name for name in templates.NAMES if made.settings.get(name) != now[name]]:
        raise StageOrderError(
            f"{tokens} was made with another {' and '.join(changed)} than {base} has now: run `{command}`"
        )


def count(draft: Draft, split: str, done: Iterable[Mapping[str, Any]]) -> None:
    """The fate of every row of a split into the manifest, with its tokens and the rows whose prompt was cut."""
    totals: Counter[str] = Counter({"kept": 0, "tokens": 0, "cut": 0})
    for file in done:
        totals.update({name: n for name, n in file["counts"].items() if n})
    for figure in ("tokens", "cut"):
        draft.figures[f"{split}_{figure}"] = totals.pop(figure)
    kept = totals.pop("kept")
    draft.count(split, read=kept + sum(totals.values()), kept=kept, dropped=totals)


def encode_split(
    source: Path, target: Path, task: partial, *, limit: int, keys: tuple[str, ...], seed: int
) -> list[dict[str, Any]]:
    """Encode every file of one split; returns what ``encode_file`` returns of each."""
    import ray

    files = sorted(source.glob("*.parquet"))
    if not files:
        raise MissingInput(f"{source} holds no Parquet file: run the stage that makes these rows first")
    target.mkdir(parents=True)
    bound = highest_pick(files, keys, limit, seed)
    work = [{"source": str(file), "target": str(target / file.name), "bound": bound} for file in files]
    return ray.data.from_items(work, override_num_blocks=len(work)).map(task).take_all()


def encode_file(
    item: Mapping[str, Any],
    *,
    kind: str,
    base: str,
    revision: str | None,
    max_length: int,
    seed: int,
    cut: bool = False,
) -> dict[str, Any]:
    """Encode the file ``item["source"]`` into ``item["target"]``.

    Returns ``counts`` by fate, with tokens and cut prompts, the ``lengths``, and what was ``examined`` of a few rows.
    """
    tokenizer = cached_tokenizer(base, revision)
    schema, encode_row = (SFT_TOKENS, sft_row) if kind == "sft" else (DPO_TOKENS, dpo_row)
    counts, lengths, few = Counter({"kept": 0, "tokens": 0, "cut": 0}), Lengths(), masking.Few(seed)
    with pq.ParquetWriter(item["target"], schema) as writer:
        for batch in pq.ParquetFile(item["source"]).iter_batches(batch_size=BATCH):
            kept = []
            for row in batch.to_pylist():
                if item["bound"] is not None and pick(row, KEYS[kind], seed) > item["bound"]:
                    counts["beyond_max_rows"] += 1
                    continue
                try:
                    found, encoded = encode_row(tokenizer, row, max_length, cut)
                except CompletionTooLong:
                    counts["completion_too_long"] += 1
                except RowTooLong:
                    counts["too_long"] += 1
                except EmptyCompletion:
                    counts["empty"] += 1
                else:
                    counts.update(kept=1, tokens=encoded["length"], cut=int(found.cut))
                    lengths.add(len(found.prompt_ids), map(len, found.completions))
                    kept.append({name: encoded.get(name, row.get(name)) for name in schema.names})
                    few.offer(pick(row, KEYS[kind], few.seed), row, found, kept[-1])
            writer.write_batch(pa.RecordBatch.from_pylist(kept, schema=schema))
    examined = masking.dumped(masking.examine(tokenizer, kind, *kept_row) for kept_row in few.rows())
    return {"counts": dict(counts), "lengths": lengths.as_lists(), "examined": examined}


def sft_row(
    tokenizer: Any, row: Mapping[str, Any], max_length: int, cut: bool = False
) -> tuple[Encoded, dict[str, Any]]:
    """One SFT row as ids and labels."""
    found = encode_fitting(tokenizer, row["prompt"], [row["completion"]], max_length, cut=cut)
    prompt, (completion,) = found.prompt_ids, found.completions
    labels = [IGNORED] * len(prompt) + completion
    return found, {"input_ids": prompt + completion, "labels": labels, "length": found.length}


def dpo_row(
    tokenizer: Any, row: Mapping[str, Any], max_length: int, cut: bool = False
) -> tuple[Encoded, dict[str, Any]]:
    """One preference pair as ids."""
    found = encode_fitting(tokenizer, row["prompt"], [row["chosen"], row["rejected"]], max_length, cut=cut)
    chosen, rejected = found.completions
    ids = {"prompt_ids": found.prompt_ids, "chosen_ids": chosen, "rejected_ids": rejected}
    return found, {**ids, "length": found.length, "margin": margin_of(row)}


def margin_of(row: Mapping[str, Any]) -> float | None:
    """Net votes that the chosen reply has over the rejected one, None where it was not chosen by votes."""
    scores = row.get("chosen_score"), row.get("rejected_score")
    return None if None in scores else float(scores[0] - scores[1])  # type: ignore[operator]


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
