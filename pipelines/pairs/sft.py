"""SFT rows: for GM well-received replies, for IM the steps from a less to a more liked reply."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from configs.errors import DataError
from configs.load import to_yaml
from configs.prompts import fingerprint
from configs.settings import Settings
from configs.training import MODELS
from pipelines.card import card_of
from pipelines.corpus.notes import Notes, record_rows
from pipelines.manifest import Input, Manifest, fingerprints, writing
from pipelines.pairs import gm, im
from pipelines.pairs.gm import Thread
from pipelines.pairs.old_rows import Rows, timing_notes, write_rows
from pipelines.pairs.old_rules import Replies, post_allowed, select
from pipelines.pairs.schema import SFT, SPLITS

STAGE = "sft_rows"


def depends(settings: Settings) -> dict[str, Any]:
    """The settings that SFT rows depend on, the prompts' wording among them."""
    return {
        "sft": settings.sft.model_dump(mode="json"),
        "pairs": settings.pairs.model_dump(mode="json"),
        "prompts": {name: fingerprint(getattr(settings.prompts, name)) for name in MODELS},
    }


def build(settings: Settings, inputs: Mapping[str, Input], output: Path) -> Manifest:
    """SFT rows from the ``threads`` of ``inputs``: ``{gm,im}/{train,validation,test}/*.parquet`` of SFT.

    Raises DataError where no reply can be learned from.
    """
    threads = Path(str(inputs["threads"]))
    with writing(
        output,
        stage=STAGE,
        settings=depends(settings),
        inputs=fingerprints(inputs),
        resolved=to_yaml(settings),
        card=card_of(settings, inputs),
    ) as draft:
        draft.notes += timing_notes(threads, settings.pairs)
        account = write_rows(threads, rows_of, settings, SFT, draft.path)
        for kind in ("threads", *MODELS):
            record_rows(draft, kind, account[kind])
        for model in MODELS:
            draft.figures[model] = {split: account[f"rows:{model}"][split] for split in SPLITS}
            if not draft.figures[model]["train"]:
                raise DataError(
                    f"no SFT rows for {model} in the training split; lower sft.min_score={settings.sft.min_score},"
                    f" pairs.min_score={settings.pairs.min_score} or pairs.min_ratio={settings.pairs.min_ratio:g},"
                    " or read more dumps"
                )
    assert draft.manifest is not None
    return draft.manifest


def rows_of(thread: Thread, settings: Settings, notes: Notes) -> Rows:
    """The SFT rows of one thread, for both models.

    In the manifest, ``gm`` counts replies, ``im`` candidate pairs of the rule, ``threads``
    those that gave any row.
    """
    learned, over = gm.learned(thread, settings.sft)
    pairs = _pairs(thread, settings, notes)
    notes.add("gm", None, len(learned))
    notes.add("gm", "over_post_cap", over)
    notes.add("gm", "score_too_low", len(thread["comments"]) - len(learned) - over)
    notes.add("threads", None if learned or pairs else "no_reply_to_learn_from")
    asked = gm.prompt(thread, settings.prompts.gm) if learned else []
    for reply in learned:
        notes.add("rows:gm", thread["split"])
        yield "gm", gm.sft_row(thread, asked, reply)
    for pair in pairs:
        notes.add("rows:im", thread["split"])
        yield "im", im.improved_row(thread, pair, settings.prompts.im)


def _pairs(thread: Thread, settings: Settings, notes: Notes) -> list[tuple[int, int]]:
    if not post_allowed(thread["score"], settings.pairs):
        return []
    selection = select(Replies.of(thread["comments"]), settings.pairs)
    notes.add("im", None, len(selection.pairs))
    notes.add("im", "over_reply_cap", selection.over_reply_cap)
    notes.add("im", "over_post_cap", selection.over_post_cap)
    return selection.pairs
