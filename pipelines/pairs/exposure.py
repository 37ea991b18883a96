"""The stage ``exposure``: what the order of arrival does to votes, fitted on the corpus itself.

    exposure.json   the model (``exposure_model``), read by every pair rule that needs it
    exposure.svg    its curves
    curves.csv      the numbers behind them

One pass over the threads: tasks hand on the numbers of a bounded draw of training threads
(no words) and a histogram of all training scores; the fit takes seconds on the driver.
"""

import csv
import logging
from collections import Counter
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from configs.errors import DataError
from configs.load import to_yaml
from configs.settings import Settings
from pipelines import manifest
from pipelines.corpus.notes import Notes, record_rows
from pipelines.manifest import Draft, Input, Manifest, fingerprints, writing
from pipelines.pairs.exposure_balance import balanced, tally
from pipelines.pairs.exposure_fit import arrival_correlation, fit
from pipelines.pairs.exposure_model import FILE, Exposure
from pipelines.pairs.replies import Replies, hashed
from pipelines.pairs.rows import tables_of, thread_files

STAGE = "exposure"
CURVES = "curves.csv"
PLOT = "exposure.svg"
DRAWN = pa.schema(
    [
        ("post_id", pa.string()),
        ("post_score", pa.int64()),
        ("comment_id", pa.string()),
        ("score", pa.int64()),
        ("created_utc", pa.int64()),
        ("length", pa.int64()),
    ]
)
"""What the fit sees of a reply."""
log = logging.getLogger("llumi.exposure")


def depends(settings: Settings) -> dict[str, Any]:
    """The settings that the model depends on: of the rules those that it holds quantiles or shares for."""
    pairs = settings.pairs
    return {
        "exposure": settings.exposure.model_dump(mode="json"),
        "pairs": pairs.model_dump(
            mode="json",
            include={"matched", "max_per_post", "max_per_reply", "min_post_score", "top_share", "bottom_share"},
        ),
    }


def build(settings: Settings, inputs: Mapping[str, Input], output: Path) -> Manifest:
    """The exposure model of the ``threads`` of ``inputs``, from their training split.

    Raises DataError where no training thread has two replies.
    """
    threads = Path(str(inputs["threads"]))
    with writing(
        output, stage=STAGE, settings=depends(settings), inputs=fingerprints(inputs), resolved=to_yaml(settings)
    ) as draft:
        rows, notes = drawn(threads, settings.exposure.max_threads)
        record_rows(draft, "threads", notes["threads"])
        if not rows.num_rows:
            raise DataError(f"{threads}: no thread of the training split has two replies; read more dumps")
        replies = replies_of(rows)
        histogram = {int(str(score)): count for score, count in notes["score"].items()}
        model = fit(replies, histogram, usable(threads), settings.exposure, settings.pairs)
        model = balanced(model, replies, settings.pairs)
        (draft.path / FILE).write_text(model.model_dump_json(indent=1), encoding="utf-8")
        record(draft, model, replies, settings)
        log.info("fitted on %d threads, %d replies", model.threads, model.replies)
    assert draft.manifest is not None
    return draft.manifest


def usable(threads: Path) -> bool:
    """Whether the threads' timestamps tell the order of arrival, as their manifest says."""
    corpus = manifest.read(threads)
    return corpus is None or bool(corpus.figures.get("usable_timestamps", True))


def drawn(threads: Path, most: int) -> tuple[pa.Table, dict[str, Counter[str | None]]]:
    """The replies (DRAWN) of at most about ``most`` training threads of two replies or more, and the notes."""
    files = thread_files(threads)
    total = sum(pq.read_metadata(file).num_rows for file in files)
    tables, notes = tables_of(files, partial(gather, share=min(1.0, most / max(1, total))), DRAWN)
    # the order of the tasks' ends must not show: sums of floats depend on it
    return pa.concat_tables([DRAWN.empty_table(), *tables]).sort_by([("post_id", "ascending")]), notes


def gather(threads: pa.Table, notes: Notes, share: float) -> pa.Table:
    """The replies of a table of THREAD that are drawn, as DRAWN; a thread is drawn by the hash of its post's id."""
    training = pc.equal(threads["split"], "train")
    notes.add("threads", "not_training", threads.num_rows - (pc.sum(training).as_py() or 0))
    threads = threads.filter(training)
    scores = pc.value_counts(pc.struct_field(pc.list_flatten(threads["comments"].combine_chunks()), "score"))
    for score, count in zip(scores.field(0).to_pylist(), scores.field(1).to_pylist(), strict=True):
        notes.add("score", str(score), count)
    several = pc.greater(pc.list_value_length(threads["comments"]), 1)
    notes.add("threads", "too_few_replies", threads.num_rows - (pc.sum(several).as_py() or 0))
    threads = threads.filter(several)
    kept = threads.filter(pa.array(hashed(threads["post_id"]) / 2.0**64 < share))
    notes.add("threads", "not_drawn", threads.num_rows - kept.num_rows)
    notes.add("threads", None, kept.num_rows)
    comments = kept["comments"].combine_chunks()
    flat, owners = pc.list_flatten(comments), pc.list_parent_indices(comments)
    columns = {
        "post_id": kept["post_id"].take(owners),
        "post_score": pc.fill_null(kept["score"], 0).take(owners),
        "comment_id": pc.struct_field(flat, "comment_id"),
        "score": pc.struct_field(flat, "score"),
        "created_utc": pc.struct_field(flat, "created_utc"),
        "length": pc.cast(pc.utf8_length(pc.struct_field(flat, "text")), pa.int64()),
    }
    return pa.table(columns, schema=DRAWN)


def replies_of(rows: pa.Table) -> Replies:
    """DRAWN, sorted by post, as Replies."""
    encoded = pc.dictionary_encode(rows["post_id"].combine_chunks())
    posts = encoded.indices.to_numpy().astype(np.int64)
    first = np.flatnonzero(np.append(True, posts[1:] != posts[:-1]))
    return Replies.made(rows, posts, rows["post_score"].to_numpy()[first], None)


def record(draft: Draft, model: Exposure, replies: Replies, settings: Settings) -> None:
    """What the model found, into the manifest, the plot and the table."""
    figures: dict[str, Any] = {
        "threads": model.threads,
        "replies": model.replies,
        "usable_timestamps": model.usable_timestamps,
        "paper": {"top_score": model.top_score, "bottom_score": model.bottom_score},
    }
    if not model.usable_timestamps:
        draft.notes.append(
            "The threads do not tell the order of arrival, so nothing was fitted: the rule matched cannot be used."
        )
        draft.figures |= figures
        return
    adjusted = replies.under(model)
    pairs = tally(model, adjusted, settings.pairs) if model.kept else None
    draft.figures |= figures | {
        "arrival_correlation": {
            "log_score": arrival_correlation(replies, replies.adjusted),
            "adjusted": arrival_correlation(replies, adjusted.adjusted),
        },
        "curves": [
            curve.model_dump(exclude={"fall"}) | {"at_rank_5": at_rank(curve.fall, 5)} for curve in model.curves
        ],
        "training_pairs": None if pairs is None else int(pairs.sum()),
    }
    with (draft.path / CURVES).open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["replies_from", "rank", "fall"])
        writer.writerows([c.size_from, rank, fall] for c in model.curves for rank, fall in enumerate(c.fall, start=1))
    from pipelines.pairs.bias_plots import exposure_curves  # matplotlib, which looking for current stages needs not

    (draft.path / PLOT).write_text(exposure_curves(model), encoding="utf-8")


def at_rank(fall: list[float], rank: int) -> float | None:
    """The fall at a rank, None where threads of that size have no such reply."""
    return fall[rank - 1] if len(fall) >= rank else None
