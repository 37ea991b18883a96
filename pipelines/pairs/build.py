"""Preference pairs from votes, for GM and IM, and a report of what every rule would really select on."""

import logging
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from configs.errors import DataError
from configs.load import to_yaml
from configs.pairs import PairSettings, RuleName
from configs.prompts import fingerprint
from configs.settings import Settings
from configs.training import MODELS
from pipelines.card import card_of
from pipelines.corpus.notes import Account, Notes, record_rows
from pipelines.manifest import Draft, Input, Manifest, fingerprints, writing
from pipelines.pairs import bias, bias_report, gm
from pipelines.pairs.exposure_model import Exposure
from pipelines.pairs.im import rows as im
from pipelines.pairs.replies import Replies
from pipelines.pairs.rows import Made, write_tables
from pipelines.pairs.rules import cautions, rule_of, rules
from pipelines.pairs.schema import PAIR, SPLITS
from pipelines.pairs.select import Selection, select_all
from pipelines.retrieval.examples import examples_for

STAGE = "pairs"
log = logging.getLogger("llumi.pairs")


def depends(settings: Settings) -> dict[str, Any]:
    """The settings that pairs depend on, the prompts' wording among them."""
    return {
        "pairs": settings.pairs.model_dump(mode="json"),
        "prompts": {name: fingerprint(getattr(settings.prompts, name)) for name in MODELS},
    }


def build(settings: Settings, inputs: Mapping[str, Input], output: Path) -> Manifest:
    """Pairs of GM from ``threads`` by the rule and its ``exposure``, of IM from ``revisions``, all stages' outputs.

    Writes ``{gm,im}/{train,validation,test}/*.parquet`` of PAIR; with ``retrieval`` among the inputs
    the prompts hold its examples. ``report.html`` and ``tables/*.csv`` tell what the rule and every
    other one select on; with the sample's ``truth`` also how often they are right. Raises DataError
    where the training split gets no pair, or the rule asks for an order of arrival that the threads
    do not tell.
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
        model = Exposure.read(folders["exposure"])
        rule = rule_of(settings.pairs, model)
        draft.notes += cautions(settings.pairs, model)
        maker = Maker(settings, model, folders["revisions"], folders.get("retrieval"))
        account = write_tables(folders["threads"], maker, PAIR, draft.path)
        for kind in ("threads", *MODELS):
            record_rows(draft, kind, account[kind])
        record_figures(draft, account, [str(name) for name in rules(settings.pairs, model)], settings.pairs)
        bias_report.write(draft, settings, model, folders)
        log.info("rule %s: %d pairs", rule.name, draft.rows["gm"].kept)
    assert draft.manifest is not None
    return draft.manifest


def record_figures(draft: Draft, account: Account, names: list[str], settings: PairSettings) -> None:
    """Pairs by model and split, and the rules side by side; raises DataError where there is nothing to train on."""
    for model in MODELS:
        draft.figures[model] = {split: shares(account[f"{model}:{split}"]) for split in SPLITS}
    draft.figures |= bias.figures(account, names)
    if not draft.figures["gm"]["train"]["pairs"]:
        raise DataError(f"no pairs in the training split; {loosened(settings)}, or read more dumps")


def loosened(settings: PairSettings) -> str:
    """What to change where a rule gives no pairs."""
    matched = settings.matched
    values: dict[RuleName, str] = {
        "matched": f"lower pairs.matched.min_margin={matched.min_margin:g} or widen"
        f" pairs.matched.window_hours={matched.window_hours:g}",
        "shp": f"lower pairs.min_score={settings.min_score} or pairs.min_ratio={settings.min_ratio:g}",
        "paper": f"lower pairs.min_gap={settings.min_gap} or raise pairs.top_share={settings.top_share:g}",
        "margin": f"lower pairs.min_gap={settings.min_gap}",
    }
    post = f"lower pairs.min_post_score={settings.min_post_score}"
    return f"{values[settings.rule]}, {post}" if settings.rule in values else post


@dataclass(frozen=True)
class Maker:
    """Makes the pairs of a slice of threads, and counts what every rule would make of it."""

    settings: Settings
    exposure: Exposure
    revisions: Path
    retrieval: Path | None

    def __call__(self, threads: pa.Table, file: Path, notes: Notes) -> Made:
        """Rows of PAIR with their model.

        In the manifest, ``threads`` counts those with any pair, ``gm`` the candidates of the rule,
        of which balance and caps leave some, ``im`` revisions.
        """
        pairs, prompts = self.settings.pairs, self.settings.prompts
        replies = Replies.of(threads, self.exposure)
        found = select_all(replies, rules(pairs, self.exposure), pairs)
        bias.note_rules(replies, found, notes)
        ours = found[pairs.rule]
        note_threads(threads, replies, ours, pairs.min_post_score, notes)
        notes.add("gm", None, len(ours.pairs))
        notes.add("gm", "unbalanced", int(ours.unbalanced.sum()))
        notes.add("gm", "over_cap", ours.over_cap)
        revisions = im.of_slice(self.revisions, file, threads)
        notes.add("im", None, revisions.num_rows)
        shown = examples_for(threads, self.retrieval, file)
        made = {
            "gm": gm.pair_table(threads, ours.pairs, prompts.gm, pairs.rule, shown),
            "im": im.pair_table(threads, revisions, prompts.im, pairs.rule, shown),
        }
        for model, rows in made.items():
            note_splits(model, rows, notes)
            yield model, rows


def note_threads(threads: pa.Table, replies: Replies, found: Selection, min_post_score: int, notes: Notes) -> None:
    """How each thread ended: with pairs, or why without."""
    low = threads["score"].fill_null(0).to_numpy() < min_post_score
    few = np.bincount(replies.posts, minlength=threads.num_rows) < 2
    paired = np.bincount(found.pairs.posts, minlength=threads.num_rows) > 0
    notes.add("threads", "post_score_too_low", int(low.sum()))
    notes.add("threads", "too_few_replies", int((few & ~low).sum()))
    notes.add("threads", None, int(paired.sum()))
    notes.add("threads", "no_pair", int((~paired & ~few & ~low).sum()))


def note_splits(model: str, rows: pa.Table, notes: Notes) -> None:
    """Pairs, those whose chosen reply came earlier or is longer, and those that reject the draft, by split.

    What has no time of posting, a teacher's revision, did not come earlier.
    """
    earlier = pc.less(rows["chosen_created_utc"], rows["rejected_created_utc"])
    lengths = [pc.utf8_length(texts(rows[side])) for side in ("chosen", "rejected")]
    parts = {
        "pairs": pc.is_valid(rows["post_id"]),
        "earlier": pc.fill_null(earlier, False),
        "longer": pc.greater(*lengths),
        "rejected_is_draft": pc.fill_null(pc.equal(rows["rejected_id"], rows["original_id"]), False),
    }
    for split in SPLITS:
        own = pc.equal(rows["split"], split)
        for name, part in parts.items():
            notes.add(f"{model}:{split}", name, pc.sum(pc.and_(own, part)).as_py() or 0)


def texts(turns: pa.ChunkedArray) -> pa.Array:
    """The words of conversations of one turn (MESSAGES)."""
    return pc.struct_field(pc.list_flatten(turns.combine_chunks()), "content")


def shares(counts: Counter[str | None]) -> dict[str, Any]:
    """Pairs, with the shares of those whose chosen reply came earlier and was longer, and that reject the draft."""
    pairs = counts["pairs"]
    share = {name: round(counts[name] / pairs, 4) if pairs else None for name in ("earlier", "longer")}
    found = {"pairs": pairs, "chosen_earlier": share["earlier"], "chosen_longer": share["longer"]}
    return found | {"rejected_is_draft": counts["rejected_is_draft"]}
