"""Ratings in, preference pairs for DPO2 out, laid out like the pairs from votes.

    rated_pairs/{gm,im}/{train,validation,test}/*.parquet      schema PAIR, rule "ratings"

A pair lies in the split of its post, so that no evaluated post enters training. Prompts
are rendered with the same templates as everywhere else, from the thread's own words. Ratings
of the service's answers may be about a post that no thread holds: its words are then those of
the rating file, and its split that of a thread of the same words, else by its id.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from configs.corpus import SplitSettings
from configs.errors import DataError, MissingInput
from configs.load import to_yaml
from configs.prompts import fingerprint, messages, whole_post
from configs.settings import Settings
from configs.training import MODELS
from pipelines.card import card_of
from pipelines.corpus.threads import split_of
from pipelines.feedback.ratings import Rating, read_ratings
from pipelines.feedback.rules import Preference, excluded_raters, preferences, rater_counts, usable
from pipelines.forgetting import kept as forgotten
from pipelines.forgetting.match import in_rating
from pipelines.manifest import Draft, Input, Manifest, fingerprints, writing
from pipelines.pairs.schema import PAIR, SPLITS
from pipelines.retrieval.examples import examples_for

STAGE = "rated_pairs"
RULE = "ratings"
SIMULATED = "ratings are simulated from the sample's truth, no human rated anything"
_POST_COLUMNS = ["post_id", "title", "text", "split"]


def depends(settings: Settings) -> dict[str, Any]:
    """The settings that the pairs depend on; prompt templates count by their text."""
    return {
        "feedback": settings.feedback.model_dump(mode="json", exclude={"panel", "ratings"}),
        "prompts": {model: fingerprint(getattr(settings.prompts, model)) for model in MODELS},
    }


def build(settings: Settings, inputs: Mapping[str, Input], output: Path) -> Manifest:
    """Write the pairs that ``inputs["ratings"]`` (files) show for posts of ``inputs["threads"]``.

    With ``retrieval`` among the inputs, prompts hold its examples.
    """
    files = rating_files(inputs["ratings"])
    with writing(
        output,
        stage=STAGE,
        settings=depends(settings),
        inputs=fingerprints({**inputs, "ratings": files}),
        resolved=to_yaml(settings),
        card=card_of(settings, inputs),
    ) as draft:
        every = read_ratings(files)
        gone = forgotten.load(Path(settings.output), settings.corpus.scrub.author_key)
        rows = [row for row in every if not (gone and in_rating(row.model_dump(), gone))]
        kept, dropped = usable(rows, settings.feedback)
        dropped += Counter({forgotten.REASON: len(every) - len(rows)})
        draft.count("ratings", read=len(every), kept=len(kept), dropped=dropped)
        found, reasons = preferences(kept, settings.feedback)
        if not found:
            raise DataError(f"{len(rows)} ratings show no preference: {because(dropped, reasons)}")
        posts = read_posts(Path(str(inputs["threads"])))
        served = served_posts(kept, posts, settings.corpus.split)
        posts |= served
        draft.figures["served_posts"] = len(served)
        show(posts, {preference.post_id for preference in found}, inputs.get("retrieval"))
        for model in MODELS:
            write_model(draft, settings, model, rows, found, reasons.get(model, Counter()), posts)
        excluded = excluded_raters([row for row in rows if row.missing() is None], settings.feedback)
        draft.figures["raters"] = len({row.rater_id for row in rows})
        draft.figures["excluded_raters"] = rater_counts(excluded)
        if any(row.source == "simulated" for row in rows):
            draft.notes.append(SIMULATED)
    assert draft.manifest is not None
    return draft.manifest


def because(dropped: Mapping[str, int], reasons: Mapping[str, Mapping[str, int]]) -> str:
    """Why rows and items were left out, as names and numbers."""
    parts = [f"{reason} {n}" for reason, n in sorted(dropped.items())]
    parts += [f"{model} {reason} {n}" for model, own in sorted(reasons.items()) for reason, n in sorted(own.items())]
    return ", ".join(parts) or "the files are empty"


def rating_files(value: Input) -> list[Path]:
    """The rating files that an input names: files, or folders that hold ``*.jsonl``."""
    names: Sequence[str | Path] = [value] if isinstance(value, (str, Path)) else list(value)
    files: list[Path] = []
    for path in (Path(name) for name in names):
        inside = sorted(path.glob("*.jsonl")) if path.is_dir() else [path]
        if not inside or not inside[0].is_file():
            raise MissingInput(f"rating file {path} is not there, or is a folder without *.jsonl")
        files.extend(inside)
    if not files:
        raise MissingInput("no rating files were given: set feedback.ratings")
    return files


def read_posts(threads: Path) -> dict[str, dict[str, Any]]:
    """Title, text and split of each post by its id."""
    posts: dict[str, dict[str, Any]] = {}
    for path in sorted(threads.glob("*.parquet")):
        for row in pq.read_table(path, columns=_POST_COLUMNS).to_pylist():
            posts[row["post_id"]] = row
    if not posts:
        raise DataError(f"{threads} holds no threads")
    return posts


def served_posts(
    rows: Iterable[Rating], posts: Mapping[str, Mapping[str, Any]], split: SplitSettings
) -> dict[str, dict[str, Any]]:
    """Posts that the service answered and no thread holds, in the form of ``read_posts``."""
    unknown = {row.post_id: row.post for row in rows if row.is_served() and row.post_id not in posts}
    if not unknown:
        return {}
    known = {whole_post(post["title"], post["text"]): post["split"] for post in posts.values()}
    return {
        post_id: {
            "post_id": post_id,
            "title": post.title,
            "text": post.text,
            "split": known.get(whole_post(post.title, post.text)) or split_of(post_id, split),
        }
        for post_id, post in unknown.items()
    }


def show(posts: dict[str, dict[str, Any]], asked: Collection[str], retrieval: Input | None) -> None:
    """Give the posts that are asked about the examples of their prompts."""
    folder = None if retrieval is None else Path(str(retrieval))
    ids = sorted(posts.keys() & asked)
    shown_for = examples_for(pa.table({"post_id": pa.array(ids, pa.string())}), folder)
    for post_id, shown in zip(ids, shown_for, strict=True):
        posts[post_id] |= {"examples": shown.examples, "example_ids": shown.ids}


def write_model(
    draft: Draft,
    settings: Settings,
    model: str,
    rows: Sequence[Rating],
    found: Iterable[Preference],
    reasons: Counter[str],
    posts: Mapping[str, Mapping[str, Any]],
) -> None:
    """Write one model's pairs by split, and count the fate of every item of that model."""
    own = [preference for preference in found if preference.model == model]
    known = [preference for preference in own if preference.post_id in posts]
    items = {row.item_id for row in rows if row.model == model and not row.is_attention}
    dropped = Counter(reasons)
    dropped["post_not_in_threads"] = len(own) - len(known)
    dropped["no_usable_rating"] = len(items) - len(own) - sum(reasons.values())
    draft.count(f"{model}_items", read=len(items), kept=len(known), dropped=dropped)
    template = getattr(settings.prompts, model)
    sizes = {}
    for split in SPLITS:
        pairs = [pair(p, posts[p.post_id], template) for p in known if posts[p.post_id]["split"] == split]
        folder = draft.path / model / split
        folder.mkdir(parents=True)
        pq.write_table(pa.Table.from_pylist(pairs, PAIR), folder / "part-00000.parquet")
        sizes[split] = len(pairs)
    draft.figures[f"{model}_pairs"] = sizes
    if known:
        draft.figures[f"{model}_mean_margin"] = round(fmean(preference.margin for preference in known), 3)
        draft.figures[f"{model}_mean_agreement"] = round(fmean(preference.agreement for preference in known), 3)


def pair(preference: Preference, post: Mapping[str, Any], template: str) -> dict[str, Any]:
    """A preference as a row of schema PAIR; it has no votes and no times."""
    return {
        "prompt": messages(template, whole_post(post["title"], post["text"]), preference.draft, post["examples"]),
        "chosen": [{"role": "assistant", "content": preference.chosen.text}],
        "rejected": [{"role": "assistant", "content": preference.rejected.text}],
        "post_id": preference.post_id,
        "chosen_id": preference.chosen.id,
        "rejected_id": preference.rejected.id,
        "chosen_score": None,
        "rejected_score": None,
        "chosen_created_utc": None,
        "rejected_created_utc": None,
        "rule": RULE,
        "split": post["split"],
        "example_ids": post["example_ids"],
    }
