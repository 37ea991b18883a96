"""SFT rows: for GM well-received replies, for IM the steps from a draft to its revision."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from configs.errors import DataError
from configs.load import to_yaml
from configs.prompts import fingerprint
from configs.settings import Settings
from configs.training import MODELS
from pipelines.card import card_of
from pipelines.corpus.notes import Notes, record_rows
from pipelines.manifest import Input, Manifest, fingerprints, writing
from pipelines.pairs import gm
from pipelines.pairs.im import rows as im
from pipelines.pairs.replies import Replies
from pipelines.pairs.rows import Made, write_tables
from pipelines.pairs.schema import SFT, SPLITS
from pipelines.retrieval.examples import examples_for

STAGE = "sft_rows"


def depends(settings: Settings) -> dict[str, Any]:
    """The settings that SFT rows depend on, the prompts' wording among them."""
    return {
        "sft": settings.sft.model_dump(mode="json"),
        "prompts": {name: fingerprint(getattr(settings.prompts, name)) for name in MODELS},
    }


def build(settings: Settings, inputs: Mapping[str, Input], output: Path) -> Manifest:
    """SFT rows from ``threads`` and ``revisions`` of ``inputs``: ``{gm,im}/{train,validation,test}/*.parquet`` of SFT.

    With ``retrieval`` among the inputs, prompts hold its examples. Raises DataError where no
    reply can be learned from.
    """
    folders = {name: Path(str(value)) for name, value in inputs.items()}
    with writing(
        output,
        stage=STAGE,
        settings=depends(settings),
        inputs=fingerprints(inputs),
        resolved=to_yaml(settings),
        card=card_of(settings, inputs),
    ) as draft:
        make = partial(rows_of, settings=settings, revisions=folders["revisions"], retrieval=folders.get("retrieval"))
        account = write_tables(folders["threads"], make, SFT, draft.path)
        for kind in ("threads", *MODELS):
            record_rows(draft, kind, account[kind])
        for model in MODELS:
            draft.figures[model] = {split: account[f"rows:{model}"][split] for split in SPLITS}
        if not draft.figures["gm"]["train"]:
            raise DataError(
                f"no SFT rows for gm in the training split; lower sft.min_score={settings.sft.min_score},"
                " or read more dumps"
            )
        if not draft.figures["im"]["train"]:
            raise DataError(
                "no SFT rows for im in the training split; loosen the pair rule (pairs) or improvement.floor_quantile,"
                " or read more dumps"
            )
    assert draft.manifest is not None
    return draft.manifest


def rows_of(
    threads: pa.Table, file: Path, notes: Notes, settings: Settings, revisions: Path, retrieval: Path | None
) -> Made:
    """The SFT rows of some threads of a file, for both models.

    In the manifest, ``gm`` counts replies, ``im`` revisions, ``threads`` those that gave any row.
    """
    shown = examples_for(threads, retrieval, file)
    replies = Replies.of(threads)
    learned, over, below = gm.well_received(replies, settings.sft)
    notes.add("gm", None, len(learned))
    notes.add("gm", "over_post_cap", over)
    notes.add("gm", "score_too_low", below)
    steps = im.of_slice(revisions, file, threads)
    notes.add("im", None, steps.num_rows)
    made = {
        "gm": gm.sft_table(threads, replies, learned, settings.prompts.gm, shown),
        "im": im.sft_table(threads, steps, settings.prompts.im, shown),
    }
    used = len({post for table in made.values() for post in table["post_id"].to_pylist()})
    notes.add("threads", None, used)
    notes.add("threads", "no_reply_to_learn_from", threads.num_rows - used)
    for model, table in made.items():
        for split, count in zip(*np.unique(table["split"].to_numpy(), return_counts=True), strict=True):
            notes.add(f"rows:{model}", str(split), int(count))
        yield model, table
