"""The base stage: where ``model.base`` is ``scratch``, a small language model is trained on the corpus.

It goes through the very code of the other stages - Ray Train, DeepSpeed, checkpoints - with all
weights trained and whole conversations for rows.
"""

import random
import shutil
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from configs import prompts as templates
from configs.errors import DataError
from configs.load import to_yaml
from configs.settings import Settings
from pipelines.layout import Layout
from pipelines.manifest import Draft, Input, Manifest, fingerprints, key_of, writing
from pipelines.training import curves, devices, modes, scratch
from pipelines.training.build import in_the_result
from pipelines.training.card import card
from pipelines.training.fit import fit
from pipelines.training.plan import Plan
from pipelines.training.planner import check as planner

STAGE = "base"
LM_TOKENS = pa.schema([("input_ids", pa.list_(pa.int32())), ("length", pa.int32())])
"""Rows of language modelling: every token is learned; ``length`` in tokens."""
TOKENIZER_CONVERSATIONS = 50_000
"""Most conversations the tokenizer is trained on."""


def depends(settings: Settings) -> dict[str, Any]:
    """The settings that the base depends on."""
    return {
        "scratch": settings.model.scratch.model_dump(mode="json"),
        "attention": settings.model.attention,
        "prompts": {name: templates.fingerprint(name) for name in (settings.prompts.gm, settings.prompts.im)},
        "own": settings.training.base.model_dump(mode="json"),
        "training": in_the_result(settings.training, "lora", "mode"),
        "seed": settings.seed,
    }


def build(settings: Settings, inputs: Mapping[str, Input], output: Path) -> Manifest:
    """Train tokenizer and model on the training split of ``inputs["threads"]``; writes a whole Hugging Face folder.

    Raises DataError where that split has no reply.
    """
    modes.check(settings, devices.look(settings))
    needed, prints = depends(settings), fingerprints(inputs)
    key = key_of(STAGE, needed, prints)
    with writing(output, stage=STAGE, settings=needed, inputs=prints, resolved=to_yaml(settings)) as draft:
        work = draft.path / "work"
        prepare(settings, Path(str(inputs["threads"])), work, draft)
        planner.check_base(settings, str(work / "base"))
        draft.figures |= fit(plan_of(settings, key, work, draft.path))
        shutil.rmtree(work)
        last = curves.last_values(curves.load(draft.path))
        draft.figures["last"] = last
        draft.notes.append("made from the training split of this run's corpus; of no use outside of a demonstration")
        text = card(model="base", stage=STAGE, base="none", key=key, inputs=prints, settings=needed, figures=last)
        (draft.path / "README.md").write_text(text, encoding="utf-8")
    assert draft.manifest is not None
    return draft.manifest


def prepare(settings: Settings, threads: Path, work: Path, draft: Draft) -> None:
    """Write the tokenizer, the untrained model's configuration and the rows of both splits below ``work``."""

    def documents(split: str) -> Iterator[list[dict[str, str]]]:
        return scratch.conversations(threads, split, settings.prompts, settings.seed)

    sizes = settings.model.scratch
    texts = map(scratch.as_text, islice(documents("train"), TOKENIZER_CONVERSATIONS))
    tokenizer = scratch.train_tokenizer(texts, sizes.vocabulary, sizes.max_positions)
    tokenizer.save_pretrained(work / "base")
    scratch.model_config(sizes, tokenizer).save_pretrained(work / "base")
    limits = {"train": settings.training.base.max_rows, "validation": settings.training.validation_rows}
    for split, limit in limits.items():
        write_rows(settings, scratch.rows_of(tokenizer, documents(split)), limit, work / "tokens" / split, draft)
    if draft.rows["train"].kept == 0:
        raise DataError(f"{threads}: the training split has no reply to train a base on; set model.base to a model")
    draft.figures["vocabulary"] = len(tokenizer)


def write_rows(settings: Settings, rows: Iterator[list[int]], limit: int, folder: Path, draft: Draft) -> None:
    """One split's rows, up to ``limit`` of them (0: all) by a seeded choice, as Parquet in ``folder``."""
    every = list(rows)
    fitting = [ids for ids in every if len(ids) <= settings.training.max_length]
    random.Random(settings.seed).shuffle(fitting)
    kept = fitting[: limit or None]
    dropped = {"too_long": len(every) - len(fitting), "beyond_max_rows": len(fitting) - len(kept)}
    draft.count(folder.name, read=len(every), kept=len(kept), dropped=dropped)
    folder.mkdir(parents=True)
    table = pa.table({"input_ids": kept, "length": [len(ids) for ids in kept]}, schema=LM_TOKENS)
    pq.write_table(table, folder / "rows.parquet")


def plan_of(settings: Settings, key: str, work: Path, output: Path) -> Plan:
    """The run that trains the weights."""
    name = f"{STAGE}-{key[:12]}"
    return Plan(
        name=name,
        task="lm",
        tokens=str((work / "tokens").resolve()),
        reference=None,
        base=str((work / "base").resolve()),
        revision=None,
        start=None,
        output=str(output.resolve()),
        storage=str((Layout(Path(settings.output)).checkpoints / name).resolve()),
        attention=settings.model.attention,
        stage=settings.training.base,
        training=settings.training,
        seed=settings.seed,
        kernels=settings.model.use_kernels,
        logs=str(Layout(Path(settings.output)).logs.resolve()),
        selector=settings.cluster.pools.selector("training"),
    )
