"""``report.html``: one static page with its figures inside, and a CSV for every figure and table.

The page fetches nothing and runs no script. Whatever people or models wrote is escaped by
the template engine; only the SVG drawn by ``plots`` enters as markup.
"""

import csv
import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
from jinja2 import Environment
from markupsafe import Markup

from configs.load import to_yaml
from configs.settings import Settings
from configs.training import MODELS, SCRATCH, STAGES
from pipelines import pages
from pipelines.evaluation import plots, summary
from pipelines.evaluation.drafts import grouped
from pipelines.manifest import code_fingerprint, distribution_version

TEMPLATE = "report.html.j2"
FILE = "report.html"
TABLES = "tables"

LIMITS = (
    "Implicit rewards say which reply a model finds likelier than its reference does; they do not say that what it "
    "writes helps anyone.",
    "Votes are no measure of help: they also follow the time of arrival, visibility and length.",
    "Intervals cover which posts were drawn, not another seed, another training run or another community.",
    "No person has read the texts for this report. It holds no judgement of safety: before anyone in distress sees "
    "a text of these models, people who are qualified have to review it.",
)
SAMPLE_LIMITS = (
    "The sample is a simulation: its community, its replies and its truth are invented. The figures show that the "
    "machinery works, and nothing about real people.",
    "The scorer reads wording only, and DPO2's ratings were simulated from the same truth: a rise by this scorer is "
    "what training aimed at, not independent evidence.",
)

SECTIONS = {
    "summary": "In short",
    "notes": "What to know first",
    "rows": "Rows",
    "training": "Training",
    "rewards": "Preferences",
    "agreement": "Agreement of pairs",
    "quality": "Quality",
    "texts": "Texts that went wrong",
    "examples": "Examples",
    "limits": "Limits",
    "settings": "Settings",
}

Rows = list[dict[str, Any]]


def write(settings: Settings, figures: Mapping[str, Any], texts: pa.Table, notes: Sequence[str], output: Path) -> None:
    """Write the page and its tables into ``output``."""
    tables = flat(figures)
    (output / TABLES).mkdir()
    for name, rows in tables.items():
        write_csv(output / TABLES / f"{name}.csv", rows)
    page = environment().get_template(TEMPLATE).render(context(settings, figures, tables, texts, notes))
    (output / FILE).write_text(page, encoding="utf-8")


def environment() -> Environment:
    """The template engine: everything escaped, every name that is missing an error."""
    found = pages.environment(Path(__file__).parent)
    found.filters["number"] = lambda value, digits: "\u2013" if value is None else f"{value:.{digits}f}"
    found.filters["thousands"] = lambda value: f"{value:,}".replace(",", "\u202f")
    found.filters["words"] = lambda name: str(name).replace("_", " ")
    found.filters["label"] = plots.label
    found.filters["sentence"] = sentence
    return found


def sentence(note: str) -> str:
    """A note with a full stop at its end."""
    return note if note.endswith((".", "!", "?")) else f"{note}."


def context(
    settings: Settings, figures: Mapping[str, Any], tables: Mapping[str, Rows], texts: pa.Table, notes: Sequence[str]
) -> dict[str, Any]:
    """Everything the template names."""
    values: dict[str, Any] = {
        "run": Path(settings.output).name,
        "facts": facts(settings, figures),
        "summary": summary.sentences(figures),
        "percent": f"{100 * settings.evaluation.confidence:g}",
        "notes": notes,
        "funnel": figures["funnel"],
        "tokens": figures.get("tokens", []),
        "curves": curve_plots(figures["curves"]),
        "skipped": {summary.spoken(name): reason for name, reason in figures["skipped"].items()},
        "rewards": figures["rewards_table"],
        "forest": Markup(plots.forest(figures["rewards_table"], "Reward accuracy")),
        "agreement": tables["agreement"],
        "quality": tables["quality"],
        "quality_plot": quality_plot(figures),
        "judge": judge(figures),
        "texts": tables["texts"],
        "max_new_tokens": settings.generation.max_new_tokens,
        "examples": examples(texts, settings.evaluation.examples),
        "limits": [*LIMITS, *(SAMPLE_LIMITS if "quality" in figures else ())],
        "settings": to_yaml(settings),
    }
    optional = ("notes", "agreement", "quality", "examples")
    values["sections"] = [(name, title) for name, title in SECTIONS.items() if name not in optional or values[name]]
    return values


def facts(settings: Settings, figures: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The head of the report: what was evaluated, when, by which code."""
    adapters = [f"{plots.label(model)} {plots.label(stage)}" for model, stage in evaluated(figures)]
    evaluation = settings.evaluation
    return [
        ("Base model", "made here from the corpus" if settings.model.base == SCRATCH else settings.model.base),
        ("Adapters", ", ".join(adapters) or "none"),
        ("Data", "built-in sample (simulated)" if settings.sample else "dumps named in corpus.posts, corpus.comments"),
        ("Made", datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")),
        ("Code", f"llumi {distribution_version()}, sources {code_fingerprint()[:12]}"),
        ("Seeds", f"run {settings.seed}, generation {settings.generation.seed}"),
        (
            "Statistics",
            f"{evaluation.resamples} bootstrap resamples of posts, BCa, {evaluation.confidence:.0%} intervals",
        ),
        ("All figures", "figures.json, tables/*.csv, drafts.parquet and rewards.parquet beside this page"),
    ]


def evaluated(figures: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Models and stages that there are adapters of."""
    return [(m, s) for m in MODELS for s in STAGES if f"{m}/{s}" not in figures["skipped"]]


def curve_plots(curves: Mapping[str, Rows]) -> Rows:
    """One figure a model."""
    found = []
    for model in MODELS:
        runs: dict[str, Rows] = {stage: curves.get(f"adapters/{model}/{stage}", []) for stage in STAGES}
        runs = {stage: points for stage, points in runs.items() if points}
        if runs:
            title = f"Training of {plots.label(model)}: loss, share of pairs ranked right, KL (dashed: held out)"
            found.append({"title": title, "svg": Markup(plots.curves(runs, title))})
    if curves.get("base"):
        title = "Training of the base model as a language model: loss"
        found.insert(0, {"title": title, "svg": Markup(plots.curves({"base": curves["base"]}, title))})
    return found


def quality_plot(figures: Mapping[str, Any]) -> Markup:
    """Means by stage; what stands for people's own replies comes first."""
    found = figures.get("quality", {})
    models: dict[str, dict[str, Any]] = {model: levels(found[model]) for model in MODELS if model in found}
    if "gm" in models and found["replies"]["n"]:
        models["gm"] = {"all replies": found["replies"], **models["gm"]}
    return Markup(plots.qualities(models, "Mean latent quality")) if models else Markup()


def levels(found: Mapping[str, Any]) -> dict[str, Any]:
    """The means among a model's figures, without the differences."""
    return {name: row for name, row in found.items() if "_minus_" not in name}


def judge(figures: Mapping[str, Any]) -> str:
    """How far the scorer can be trusted, in a sentence."""
    found = figures.get("quality", {}).get("judge")
    if not found or found["spearman"] is None:
        return ""
    return (
        f"On {found['n']} replies to test posts, whose true quality is known, its order agrees with the truth at a "
        f"rank correlation of {found['spearman']:.2f}."
    )


def examples(texts: pa.Table, most: int) -> Rows:
    """The first posts of each model with what every stage wrote."""
    groups = []
    by_stage = grouped(texts)
    for model, title in (("gm", "GM: a draft from the post alone"), ("im", "IM: a revision of someone's comment")):
        posts: dict[str, dict[str, Any]] = {}
        for (owner, stage), rows in by_stage.items():
            for row in rows[:most] if owner == model else []:
                entry = {"post": row["post"], "original": row["original"], "texts": {}}
                posts.setdefault(row["post_id"], entry)["texts"][stage] = row["text"]
        if posts:
            groups.append({"title": title, "rows": list(posts.values())})
    return groups


def flat(figures: Mapping[str, Any]) -> dict[str, Rows]:
    """Each figure and table as rows, the way its CSV holds them."""
    found = figures.get("quality", {})
    quality = [
        {"model": model, "what": summary.what(name), **row}
        for model in MODELS
        for name, row in found.get(model, {}).items()
    ]
    if found and found["replies"]["n"]:
        quality.append({"model": "all", "what": "replies of the community", **found["replies"]})
    learned = {"tokens": figures["tokens"]} if figures.get("tokens") else {}
    return {
        **learned,
        "funnel": [row | {"dropped": json.dumps(row["dropped"])} for row in figures["funnel"]],
        "curves": [{"run": run, **point} for run, points in figures["curves"].items() for point in points],
        "rewards": figures["rewards_table"],
        "agreement": [{"rule": summary.what(name), **row} for name, row in figures.get("agreement", {}).items()],
        "quality": [{"verdict": None, **row} for row in quality],
        "texts": [
            {"model": model, "stage": stage, **row}
            for model, stages in figures["texts"].items()
            for stage, row in stages.items()
        ],
    }


def write_csv(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Rows as CSV under the union of their columns."""
    rows = list(rows)
    columns = list(dict.fromkeys(name for row in rows for name in row))
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(rows)
