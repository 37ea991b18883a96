"""Preference pairs from votes, for GM and IM, and a table of every rule beside the chosen one."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from configs.errors import DataError
from configs.load import to_yaml
from configs.prompts import fingerprint
from configs.settings import Settings
from configs.training import MODELS
from pipelines.card import card_of
from pipelines.corpus.notes import Account, Notes, record_rows
from pipelines.manifest import Draft, Input, Manifest, fingerprints, writing
from pipelines.pairs import gm, im
from pipelines.pairs.gm import Thread
from pipelines.pairs.old_rows import Rows, note_pair, shares, timing_notes, write_rows
from pipelines.pairs.old_rules import RULES, Replies, post_allowed, select
from pipelines.pairs.schema import PAIR, SPLITS

STAGE = "pairs"


def depends(settings: Settings) -> dict[str, Any]:
    """The settings that pairs depend on, the prompts' wording among them."""
    return {
        "pairs": settings.pairs.model_dump(mode="json"),
        "prompts": {name: fingerprint(getattr(settings.prompts, name)) for name in MODELS},
    }


def build(settings: Settings, inputs: Mapping[str, Input], output: Path) -> Manifest:
    """Pairs from the ``threads`` of ``inputs``: ``{gm,im}/{train,validation,test}/*.parquet`` of PAIR.

    Raises DataError where the training split gets no pair, or the timing rule is asked of
    threads without usable timestamps.
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
        account = write_rows(threads, rows_of, settings, PAIR, draft.path)
        for kind in ("threads", *MODELS):
            record_rows(draft, kind, account[kind])
        record_figures(draft, account)
        if not draft.figures["gm"]["train"]["pairs"]:
            raise DataError(
                f"no pairs in the training split; lower pairs.min_score={settings.pairs.min_score},"
                f" pairs.min_ratio={settings.pairs.min_ratio:g}, pairs.min_post_score={settings.pairs.min_post_score},"
                " or read more dumps"
            )
    assert draft.manifest is not None
    return draft.manifest


def rows_of(thread: Thread, settings: Settings, notes: Notes) -> Rows:
    """The pairs of one thread, for both models.

    In the manifest, ``threads`` counts those with any pair, ``gm`` the candidate pairs of the
    rule of which the caps leave some, ``im`` the pairs of GM, each of which gives one for IM.
    """
    split, rule = thread["split"], settings.pairs.rule
    if not post_allowed(thread["score"], settings.pairs):
        notes.add("threads", "post_score_too_low")
        return
    if len(thread["comments"]) < 2:
        notes.add("threads", "too_few_replies")
        return
    replies = Replies.of(thread["comments"])
    note_rules(thread, replies, settings, notes)
    selection = select(replies, settings.pairs)
    notes.add("threads", None if selection.pairs else "no_pair")
    notes.add("gm", None, len(selection.pairs))
    notes.add("gm", "over_reply_cap", selection.over_reply_cap)
    notes.add("gm", "over_post_cap", selection.over_post_cap)
    asked = gm.prompt(thread, settings.prompts.gm) if selection.pairs else []
    for pair in selection.pairs:
        note_pair(notes, f"gm:{split}", thread, pair)
        yield "gm", gm.pair_row(thread, asked, pair, rule)
        row = im.preference_row(thread, replies, pair, settings.pairs, settings.prompts.im)
        notes.add("im", None)
        notes.add(f"im:{split}", "pairs")
        notes.add(f"im:{split}", "rejected_is_draft", int(row["rejected_id"] == replies.ids[pair[1]]))
        yield "im", row


def note_rules(thread: Thread, replies: Replies, settings: Settings, notes: Notes) -> None:
    """Count what each rule would make of the thread, under the same caps."""
    for rule in RULES:
        selection = select(replies, settings.pairs, rule)
        notes.add(f"rule:{rule}", "candidates", selection.candidates)
        notes.add(f"rule:{rule}", "posts", int(bool(selection.pairs)))
        for pair in selection.pairs:
            note_pair(notes, f"rule:{rule}", thread, pair)


def record_figures(draft: Draft, account: Account) -> None:
    """Pairs a split and model, and the rules side by side."""
    draft.figures["gm"] = {split: shares(account[f"gm:{split}"]) for split in SPLITS}
    draft.figures["im"] = {
        split: {name: account[f"im:{split}"][name] for name in ("pairs", "rejected_is_draft")} for split in SPLITS
    }
    draft.figures["rules"] = {
        rule: {
            "candidates": account[f"rule:{rule}"]["candidates"],
            "posts": account[f"rule:{rule}"]["posts"],
            **shares(account[f"rule:{rule}"]),
        }
        for rule in RULES
    }
