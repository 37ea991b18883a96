"""The reference's log-probabilities, once before each DPO stage, so that training holds no second model.

DPO compares the policy with the model it started from (Rafailov et al. 2023, eq. 7), which never
changes while it trains: what that model thinks of a reply is computed here by a pool of Ray Data
actors, and read by every epoch and every restart. The cost beside computing it in each step: rounding
no longer cancels between the two, which only bfloat16 makes visible.

Prompts that several pairs share and replies that stand in several pairs are run once. Which
rows go through the model together depends on the tokens' files alone, so that any number of
actors gives the same numbers.
"""

import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from configs.errors import StageOrderError, TrainingError
from configs.load import to_yaml
from configs.settings import Settings
from configs.training import ModelName, StageName
from pipelines import pools
from pipelines.manifest import Draft, Input, Manifest, fingerprints, read, require, writing
from pipelines.training.planner import check as planner
from pipelines.training.tokens import PAIR_KEYS, REFERENCE_COLUMNS, SPLITS
from pipelines.training.weights import base_name, weights_hash

logger = logging.getLogger("llumi.reference")

REFERENCE = pa.schema([*((key, pa.string()) for key in PAIR_KEYS), *((c, pa.float32()) for c in REFERENCE_COLUMNS)])
"""One row beside each tokenised pair, in files of the same names: sums over a reply's tokens, in nats."""
SIDES = ("prompt", "chosen", "rejected")
PAIRS = 256
"""Most pairs that an actor is given at once."""
MOST_TOKENS = 16_384
"""Padded tokens of one pass through the model."""

Item = Mapping[str, Any]
"""A piece of work: so many rows from ``start`` on in a row group of a file."""


def stage_name(model: ModelName, stage: StageName) -> str:
    """Name of this stage in manifests."""
    return f"reference/{model}/{stage}"


def depends(settings: Settings, model: ModelName, stage: StageName) -> dict[str, Any]:
    """The settings that the numbers depend on; rows, template and ``max_length`` are in the tokens' key."""
    return {
        "model": model,
        "stage": stage,
        "revision": settings.model.revision,
        "attention": settings.model.attention,
        "bf16": settings.training.bf16,
        "four_bit": settings.training.mode == "qlora",
    }


def build(
    settings: Settings, inputs: Mapping[str, Input], output: Path, *, model: ModelName, stage: StageName
) -> Manifest:
    """Score ``inputs["tokens"]`` under ``inputs["base"]`` with the adapter ``inputs["start"]``.

    Writes {train,validation}/*.parquet (columns REFERENCE). Raises StageOrderError where an input
    is not there, TrainingError naming a row that the reference has no finite number for.
    """
    command = f"llumi train CONFIG --model {model} --stage {stage}"
    tokens, start, base = Path(str(inputs["tokens"])), Path(str(inputs["start"])).resolve(), base_name(inputs["base"])
    require(tokens, command)
    planner.check_reference(settings, base)
    with writing(
        output,
        stage=stage_name(model, stage),
        settings=depends(settings, model, stage),
        inputs=fingerprints(inputs),
        resolved=to_yaml(settings),
    ) as draft:
        draft.figures["weights"] = weights_hash(base, settings.model.revision, start)
        found = score(tokens.resolve(), base, start, settings)
        for split in SPLITS:
            rows = sum(write(file, draft.path / split / file.name, found) for file in files_of(tokens, split))
            draft.count(split, read=rows, kept=rows)
        logger.info("%s/%s: %d pairs scored", model, stage, sum(count.kept for count in draft.rows.values()))
        describe(draft, found)
    assert draft.manifest is not None
    return draft.manifest


def score(tokens: Path, base: str, start: Path, settings: Settings) -> dict[tuple[str, str], np.ndarray]:
    """For each file of tokens, by split and name, its rows' log-probabilities [rows, 2]: chosen, rejected."""
    import ray

    work = list(items(tokens))
    if not work:
        return {}
    scored = ray.data.from_items(work, override_num_blocks=len(work)).map(
        Referee,
        compute=ray.data.ActorPoolStrategy(
            min_size=min(settings.training.least_workers, len(work)),
            max_size=min(settings.training.most_workers, len(work)),
        ),
        fn_constructor_args=(tokens, base, start, settings),
        num_cpus=settings.training.cpus_per_worker,
        num_gpus=settings.training.gpus_per_worker or None,
        label_selector=pools.selector(settings, "training"),
    )
    pieces: dict[tuple[str, str], list[tuple[int, int, np.ndarray]]] = {}
    for row in scored.take_all():
        piece = np.stack([row["chosen"], row["rejected"]], axis=1)
        pieces.setdefault((row["split"], row["file"]), []).append((row["group"], row["start"], piece))
    return {file: np.concatenate([piece for _, _, piece in sorted(parts)]) for file, parts in pieces.items()}


def items(tokens: Path, pairs: int = PAIRS) -> Iterator[dict[str, Any]]:
    """The work, file by file; each row is in exactly one item."""
    for split in SPLITS:
        for file in files_of(tokens, split):
            metadata = pq.read_metadata(file)
            for group in range(metadata.num_row_groups):
                rows = metadata.row_group(group).num_rows
                for start in range(0, rows, pairs):
                    piece = {"group": group, "start": start, "rows": min(pairs, rows - start)}
                    yield {"split": split, "file": file.name, **piece}


def files_of(tokens: Path, split: str) -> list[Path]:
    """A split's files in the order in which training reads them."""
    return sorted((tokens / split).glob("*.parquet"))


class Referee:
    """The reference in memory, in an actor of Ray Data's pool; without dropout, as the policy is at its start."""

    def __init__(self, tokens: Path, base: str, start: Path, settings: Settings):
        from pipelines.generation.scoring import Policies

        self.tokens = tokens
        self.policies = Policies(base, {"reference": str(start)}, settings)

    def __call__(self, item: Item) -> dict[str, Any]:
        from pipelines.generation.logprobs import logps_of_many

        file = pq.ParquetFile(self.tokens / item["split"] / item["file"])
        rows = file.read_row_group(item["group"], [f"{name}_ids" for name in SIDES])
        prompts, chosen, rejected = (column.to_pylist() for column in rows.slice(item["start"], item["rows"]))
        with self.policies.under("reference") as model:
            logps = logps_of_many(model, list(zip(prompts * 2, chosen + rejected, strict=True)), MOST_TOKENS)
        return {**item, "chosen": logps[: len(prompts)], "rejected": logps[len(prompts) :]}


def scored_again(tokens: Path, scored: Path, model: Any) -> list[float]:
    """Margins in nats of the first pairs under ``model`` and the stored reference: log-ratio chosen less rejected.

    The model runs the very batches that gave the stored numbers, so that where it is the
    reference all are 0 in any precision; as many batches as it takes to hold a whole pair.
    """
    from pipelines.generation.logprobs import completion_logps, passes

    item = next(items(tokens))
    where = Path(item["split"]) / item["file"]
    rows = pq.ParquetFile(tokens / where).read_row_group(item["group"], [f"{name}_ids" for name in SIDES])
    prompts, chosen, rejected = (column.to_pylist() for column in rows.slice(0, item["rows"]))
    stored = pq.read_table(scored / where, columns=list(REFERENCE_COLUMNS)).slice(0, item["rows"]).to_pylist()
    found: dict[Any, float] = {}
    for batch in passes(list(zip(prompts * 2, chosen + rejected, strict=True)), MOST_TOKENS):
        found.update(zip(batch, completion_logps(model, batch), strict=True))
        margins = [
            found[good] - row["ref_chosen_logps"] - (found[bad] - row["ref_rejected_logps"])
            for prompt, reply, other, row in zip(prompts, chosen, rejected, stored, strict=True)
            if (good := (tuple(prompt), tuple(reply))) in found and (bad := (tuple(prompt), tuple(other))) in found
        ]
        if margins:
            break
    return margins


def write(file: Path, target: Path, found: Mapping[tuple[str, str], np.ndarray]) -> int:
    """Write the rows beside those of one file of tokens; returns how many.

    Raises TrainingError naming the first row whose log-probability is not a finite number.
    """
    keys = pq.read_table(file, columns=list(PAIR_KEYS))
    logps = found.get((target.parent.name, file.name), np.empty((0, 2)))
    bad = np.flatnonzero(~np.isfinite(logps).all(axis=1))
    if len(bad):
        row = keys.slice(int(bad[0]), 1).to_pylist()[0]
        raise TrainingError(
            f"the reference gives {len(bad)} of {len(logps)} pairs no finite log-probability, the first is {row}: "
            "check the adapter this stage continues, or train in float32 (training.bf16: false)"
        )
    columns = [pa.array(logps[:, side], pa.float32()) for side in (0, 1)]
    target.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_arrays([*keys.itercolumns(), *columns], schema=REFERENCE), target)
    return len(logps)


def describe(draft: Draft, found: Mapping[tuple[str, str], np.ndarray]) -> None:
    """How often the reference already prefers the chosen reply, by split."""
    for split in SPLITS:
        logps = [part for (name, _), part in found.items() if name == split]
        if logps:
            whole = np.concatenate(logps)
            draft.figures[f"{split}_chosen_likelier"] = round(float((whole[:, 0] > whole[:, 1]).mean()), 4)


def check(settings: Settings, inputs: Mapping[str, Input], model: ModelName, stage: StageName) -> None:
    """Refuse ``inputs["reference"]`` unless it was made from the very tokens, base and adapter of this run.

    Raises StageOrderError naming what is missing or differs, and the command that makes it.
    """
    command = f"llumi train CONFIG --model {model} --stage {stage}"
    if "reference" not in inputs:
        raise StageOrderError(f"{stage} needs its reference's log-probabilities: run `{command}`")
    folder = Path(str(inputs["reference"]))
    made = read(folder)
    if made is None:
        raise StageOrderError(f"{folder} is not complete: run `{command}` first")
    sources = fingerprints({name: inputs[name] for name in ("tokens", "base", "start")})
    differing = different(made.inputs, sources) + different(made.settings, depends(settings, model, stage))
    weights = weights_hash(base_name(inputs["base"]), settings.model.revision, Path(str(inputs["start"])))
    if not differing and made.figures.get("weights") != weights:
        differing = ["weights"]
    if differing:
        raise StageOrderError(
            f"{folder} holds log-probabilities of another reference or of other rows ({', '.join(differing)} changed "
            f"since): run `{command}`, with --force if need be"
        )


def different(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """Names whose values differ."""
    return [name for name in sorted({*one, *other}) if one.get(name) != other.get(name)]
