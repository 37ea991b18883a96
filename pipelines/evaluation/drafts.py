"""What the models write: drafts and revisions for test posts, from every stage, on equal terms.

Each stage gets the same posts, prompts and seed. On the built-in sample the simulation's own
scorer then judges every text; without known truth no quality is claimed, only how many texts
are empty, cut off or repeat themselves.
"""

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from configs.prompts import messages, whole_post
from configs.settings import Settings
from pipelines.evaluation import rows as held_out
from pipelines.generation.several import generate_many
from pipelines.pairs.schema import MESSAGES
from pipelines.retrieval.examples import examples_for

log = logging.getLogger("llumi.evaluation")

DRAFT = pa.schema(
    [
        ("model", pa.string()),
        ("stage", pa.string()),
        ("post_id", pa.string()),
        ("original_id", pa.string()),
        ("post", pa.string()),
        ("original", pa.string()),
        ("text", pa.string()),
        ("finish_reason", pa.string()),
        ("new_tokens", pa.int64()),
        ("flaws", pa.list_(pa.string())),
        ("quality", pa.float64()),
        ("original_quality", pa.float64()),
    ]
)
"""One row a text written; ``original`` is the reply that IM revised, qualities are null without known truth."""

TASK = pa.schema(
    [
        ("post_id", pa.string()),
        ("original_id", pa.string()),
        ("post", pa.string()),
        ("original", pa.string()),
        ("prompt", MESSAGES),
    ]
)
"""One row a text to write."""

FLAWS = ("empty", "cut_off", "repeated")
"""What makes a text degenerate: no words, ended by the token limit, some four words three times."""


def write(
    settings: Settings,
    threads: pa.Table,
    sft: Path,
    base: str,
    adapters: Mapping[str, Mapping[str, Path]],
    judged: bool,
    retrieval: Path | None = None,
) -> tuple[pa.Table, dict[str, dict[str, Any]]]:
    """Texts by every stage of every model (schema DRAFT), and by model/stage how many prompts got none.

    ``judged``: with the simulation's quality. ``retrieval``: where the examples of the prompts lie.
    """
    tasks = {
        model: gm_tasks(settings, threads, retrieval) if model == "gm" else im_tasks(settings, threads, sft)
        for model in adapters
    }
    names = {f"{model}/{stage}": (model, stage) for model in adapters for stage in adapters[model]}
    requests = {name: as_requests(tasks[model]) for name, (model, _) in names.items()}
    chosen = {name: adapters[model][stage] for name, (model, stage) in names.items()}
    log.info("writing %d texts", sum(table.num_rows for table in requests.values()))
    answers = generate_many(requests, base, chosen, settings)
    tables, counted = [DRAFT.empty_table()], {}
    for name, (model, stage) in names.items():
        tables.append(texts(model, stage, tasks[model], answers[name], judged))
        kept, read = tables[-1].num_rows, tasks[model].num_rows
        counted[name] = {"read": read, "kept": kept, "dropped": {"prompt_too_long": read - kept}}
    return pa.concat_tables(tables), counted


def as_requests(tasks: pa.Table) -> pa.Table:
    """The columns that generation asks for."""
    return pa.table({"request_id": tasks["post_id"], "prompt": tasks["prompt"]})


def gm_tasks(settings: Settings, threads: pa.Table, retrieval: Path | None = None) -> pa.Table:
    """Prompts for ``evaluation.posts`` test posts, with examples as in training."""
    chosen = held_out.choose(threads, settings.evaluation.posts, settings.seed)
    rows = []
    shown = examples_for(chosen, retrieval)
    for thread, found in zip(chosen.select(["post_id", "title", "text"]).to_pylist(), shown, strict=True):
        post = whole_post(thread["title"], thread["text"])
        prompt = messages(settings.prompts.gm, post, examples=found.examples)
        rows.append({"post_id": thread["post_id"], "post": post, "prompt": prompt})
    return pa.Table.from_pylist(rows, schema=TASK)


def im_tasks(settings: Settings, threads: pa.Table, sft: Path) -> pa.Table:
    """Prompts of IM's test rows, one a post, with the replies to revise."""
    rows = held_out.test_revisions(sft, settings.evaluation.posts, settings.seed)
    originals = held_out.reply_texts(threads)
    posts = {row["post_id"]: row for row in threads.select(["post_id", "title", "text"]).to_pylist()}
    tasks = []
    for row in rows.to_pylist():
        post = posts[row["post_id"]]
        tasks.append(
            {
                "post_id": row["post_id"],
                "original_id": row["original_id"],
                "post": whole_post(post["title"], post["text"]),
                "original": originals[row["original_id"]],
                "prompt": row["prompt"],
            }
        )
    return pa.Table.from_pylist(tasks, schema=TASK)


def texts(model: str, stage: str, tasks: pa.Table, answers: pa.Table, judged: bool) -> pa.Table:
    """What one stage wrote for ``tasks`` (schema DRAFT); prompts too long for the model get no row."""
    written = {row["request_id"]: row for row in answers.to_pylist()}
    rows = []
    for task in tasks.drop_columns(["prompt"]).to_pylist():
        out = written[task["post_id"]]
        if out["finish_reason"] == "too_long":
            continue
        text = out["text"].strip()
        row = {
            "model": model,
            "stage": stage,
            "text": text,
            "finish_reason": out["finish_reason"],
            "new_tokens": out["new_tokens"],
            "flaws": flaws(text, out["finish_reason"]),
        }
        if judged:
            row["quality"] = quality(text, task["post"])
            row["original_quality"] = quality(task["original"], task["post"]) if task["original"] else None
        rows.append(task | row)
    return pa.Table.from_pylist(rows, schema=DRAFT)


def quality(text: str, post: str) -> float:
    """Latent quality as the simulation's scorer judges it; only texts of the built-in sample have one."""
    from pipelines.sample import scorer

    return scorer.quality(text, post)


def flaws(text: str, finish_reason: str | None) -> list[str]:
    """Which of FLAWS a text has."""
    words = text.lower().split()
    runs = Counter(zip(words, words[1:], words[2:], words[3:], strict=False))
    found = {
        "empty": not words,
        "cut_off": finish_reason == "length",
        "repeated": max(runs.values(), default=0) >= 3,
    }
    return [name for name in FLAWS if found[name]]


def counts(drafts: pa.Table) -> dict[str, dict[str, dict[str, Any]]]:
    """By model and stage: texts, each flaw, distinct texts, mean words."""
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for (model, stage), rows in grouped(drafts).items():
        flawed = Counter(flaw for row in rows for flaw in row["flaws"])
        found.setdefault(model, {})[stage] = {
            "n": len(rows),
            **{flaw: flawed[flaw] for flaw in FLAWS},
            "distinct": len({row["text"] for row in rows}),
            "words": sum(len(row["text"].split()) for row in rows) / len(rows),
        }
    return found


def grouped(drafts: pa.Table) -> dict[tuple[str, str], Sequence[dict[str, Any]]]:
    """Rows by model and stage, in the order in which they were written."""
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in drafts.to_pylist():
        groups.setdefault((row["model"], row["stage"]), []).append(row)
    return dict(groups)
