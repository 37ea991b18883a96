"""``pairs/report.html``: what the pair rule really selects on, beside every other rule; a CSV for each table.

One static page with its figures inside: it fetches nothing and runs no script, and holds
numbers and names of rules only, no word that anybody wrote.
"""

import csv
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from jinja2 import Environment
from markupsafe import Markup

from configs.load import to_yaml
from configs.pairs import RuleName
from configs.settings import Settings
from pipelines import manifest, pages
from pipelines.manifest import Draft
from pipelines.pairs.bias import GAPS, QUANTILES
from pipelines.pairs.exposure_model import Exposure
from pipelines.pairs.rows import thread_files

FILE = "report.html"
TEMPLATE = "report.html.j2"
TABLES = "tables"
BAND = (0.45, 0.55)
"""Shares of pairs chosen earlier, and longer, between which a rule counts as balanced."""
SUMMARIES: Mapping[RuleName, str] = {
    "matched": "two replies that arrived close together; of their scores what arrival explains is taken off, a wide "
    "margin has to be left; as many longer as shorter and earlier as later replies are chosen",
    "shp": "the chosen reply came no earlier and has the higher score by a ratio (Ethayarajh et al. 2022)",
    "paper": "the corpus' top votes over its bottom votes, with a gap (LLUMI, arXiv 2605.30273)",
    "askell": "the higher rounded log-score (Askell et al. 2021, arXiv 2112.00861)",
    "margin": "a gap of votes, whoever came first",
    "naive": "the higher score, whoever came first",
}
GAP_LABELS = {
    "score_gap": ("Votes", "net votes, chosen less rejected"),
    "arrival_gap": ("Time of posting", "hours, chosen less rejected: right of 0 the chosen reply came later"),
    "rank_gap": ("Order of arrival", "places, chosen less rejected: right of 0 the chosen reply came later"),
    "length_gap": ("Length", "characters, chosen less rejected: right of 0 the chosen reply is longer"),
}
LIMITS = (
    "Votes say what a community rewards, which is not what helps. A rule can free them of when a reply came and how "
    "long it is; it cannot free them of who wrote it, how it is phrased, or who votes.",
    "Balance is set on the training split and within strata of the margin. It holds for the pairs as a whole, not "
    "for every community or topic in them.",
    "The order of arrival is that of the replies that were kept: removed comments, bots and answers to comments "
    "leave no gap in it.",
    "Quantiles come from histograms of values rounded to two digits.",
)
TRUTH_LIMITS = (
    "Agreement is measured on the built-in sample, whose community, votes and truth are simulated: the simulation's "
    "votes are exposure x appeal x noise, which suits a rule that takes exposure off. It shows that the machinery "
    "works, and nothing about real people.",
)
Rows = list[dict[str, Any]]


def write(draft: Draft, settings: Settings, exposure: Exposure, folders: Mapping[str, Path]) -> None:
    """Write the page and its tables into the draft; with ``truth`` in ``folders`` measure agreement first."""
    if "truth" in folders:
        draft.figures["agreement"] = measured(settings, exposure, folders["threads"], folders["truth"])
    figures = draft.figures
    tables = flat(figures, exposure)
    (draft.path / TABLES).mkdir()
    for name, rows in tables.items():
        write_csv(draft.path / TABLES / f"{name}.csv", rows)
    page = environment().get_template(TEMPLATE).render(context(draft, settings, exposure, folders, tables))
    (draft.path / FILE).write_text(page, encoding="utf-8")


def measured(settings: Settings, exposure: Exposure, threads: Path, truth: Path) -> dict[str, Any]:
    """Every rule's agreement with the sample's truth; the sample is small, so the driver does it."""
    from pipelines.evaluation.statistics import Resampling  # scipy.stats, which only this needs
    from pipelines.pairs import bias_truth

    table = pa.concat_tables([pq.read_table(file) for file in thread_files(threads)]).sort_by("post_id")
    found = bias_truth.judged(table, settings.pairs, exposure, qualities(truth))
    return dict(bias_truth.agreement(found, settings.pairs.rule, Resampling.of(settings)))


def qualities(truth: Path) -> dict[str, float]:
    """True quality by comment_id, of those that have one."""
    known = pq.read_table(truth, columns=["comment_id", "quality"])
    values = zip(known["comment_id"].to_pylist(), known["quality"].to_pylist(), strict=True)
    return {name: value for name, value in values if value is not None}


def environment() -> Environment:
    """The template engine: everything escaped, every name that is missing an error."""
    found = pages.environment(Path(__file__).parent)
    found.filters["percent"] = lambda value: "" if value is None else f"{100 * value:.1f}"
    found.filters["number"] = number
    found.filters["plain"] = lambda value: "" if value is None else f"{value:,.10g}".replace(",", "\u202f")
    found.filters["thousands"] = lambda value: f"{value:,}".replace(",", "\u202f")
    return found


def number(value: float | None, digits: int = 3) -> str:
    """A number to so many digits, never a negative zero; empty where there is none."""
    return "" if value is None else f"{round(value, digits) + 0.0:.{digits}f}"


def context(
    draft: Draft, settings: Settings, exposure: Exposure, folders: Mapping[str, Path], tables: Mapping[str, Rows]
) -> dict[str, Any]:
    """Everything the template names."""
    from pipelines.pairs import bias_plots as plots  # matplotlib

    figures, used = draft.figures, settings.pairs.rule
    rules, agreement = figures["rules"], figures.get("agreement", {})
    names = list(rules)
    return {
        "run": Path(settings.output).name,
        "used": used,
        "facts": facts(draft, settings, folders),
        "summary": sentences(figures, used),
        "notes": draft.notes,
        "rules": rules,
        "summaries": SUMMARIES,
        "band": BAND,
        "splits": tables["splits"],
        "confounding": Markup(plots.confounding(rules, used)),
        "overlap": Markup(plots.overlap(names, figures["overlap"])),
        "gaps": [
            {"title": title, "svg": Markup(plots.shares(rules, gap, title, label))}
            for gap, (title, label) in GAP_LABELS.items()
        ],
        "gap_rows": tables["gaps"],
        "quantiles": [f"q{round(100 * q):02d}" for q in QUANTILES],
        "agreement": agreement,
        "agreement_plot": Markup(plots.agreement(agreement, used)) if agreement else "",
        "exposure": exposure,
        "exposure_plot": Markup(plots.exposure_curves(exposure)) if exposure.curves else "",
        "correlation": correlation(folders),
        "confidence": f"{100 * settings.evaluation.confidence:g}",
        "limits": [*LIMITS, *(TRUTH_LIMITS if agreement else ())],
        "settings": to_yaml(settings),
    }


def facts(draft: Draft, settings: Settings, folders: Mapping[str, Path]) -> list[tuple[str, str]]:
    """The head of the page."""
    corpus = manifest.read(folders["threads"])
    found = corpus.figures if corpus else {}
    communities = ", ".join(found.get("subreddits", {})) or "unknown"
    dates = found.get("dates", {})
    pairs = draft.rows["gm"]
    return [
        ("Rule", f"{settings.pairs.rule}: {SUMMARIES[settings.pairs.rule]}"),
        ("Communities", communities if len(communities) < 200 else f"{len(found['subreddits'])} communities"),
        ("Posts", f"{dates['first_post']} to {dates['last_post']}" if dates else "unknown"),
        ("Pairs", f"{pairs.kept:,} of {pairs.read:,} candidates, at most {settings.pairs.max_per_post} a post"),
        ("Made", datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")),
    ]


def correlation(folders: Mapping[str, Path]) -> Mapping[str, float | None]:
    """How arrival and score go together within threads, before and after the model, as its stage found."""
    made = manifest.read(folders["exposure"])
    return made.figures.get("arrival_correlation", {}) if made else {}


def sentences(figures: Mapping[str, Any], used: str) -> list[str]:
    """What the page says first."""
    own = figures["rules"][used]
    found = [f"{used} gives {own['pairs']:,} pairs from {own['posts']:,} posts."]
    if own["pairs"]:
        for what, share in (("came earlier", own["chosen_earlier"]), ("is longer", own["chosen_longer"])):
            verdict = "balanced" if BAND[0] <= share <= BAND[1] else "not balanced"
            found.append(f"Its chosen reply {what} in {share:.1%} of pairs ({verdict}: 45 to 55 % is).")
    others = {name: row["chosen_earlier"] for name, row in figures["rules"].items() if name != used and row["pairs"]}
    if others:
        worst = max(others, key=lambda name: abs(others[name] - 0.5))
        found.append(f"By {worst} the chosen reply came earlier in {others[worst]:.1%} of pairs.")
    if used in figures.get("agreement", {}):
        row = figures["agreement"][used]
        found.append(f"On the sample {row['mean']:.1%} of its pairs agree with the true quality.")
    return found


def flat(figures: Mapping[str, Any], exposure: Exposure) -> dict[str, Rows]:
    """Each table as rows, the way its CSV holds them."""
    rules = figures["rules"]
    plain = {name: {key: value for key, value in row.items() if key not in GAPS} for name, row in rules.items()}
    found: dict[str, Rows] = {
        "rules": [{"rule": name, **row} for name, row in plain.items()],
        "gaps": [{"rule": name, "gap": gap, **rules[name][gap]} for gap in GAPS for name in rules],
        "overlap": [
            {"rule": first, "other": second, "jaccard": figures["overlap"][first][second]}
            for first in rules
            for second in rules
            if first != second
        ],
        "splits": [
            {"model": model, "split": split, **row} for model in ("gm", "im") for split, row in figures[model].items()
        ],
        "exposure": [
            {"replies_from": curve.size_from, "threads": curve.threads, "rank": rank, "fall": fall}
            for curve in exposure.curves
            for rank, fall in enumerate(curve.fall, start=1)
        ],
    }
    if "agreement" in figures:
        found["agreement"] = [agreement_row(name, row) for name, row in figures["agreement"].items()]
    return {name: rows for name, rows in found.items() if rows}


def agreement_row(name: str, row: Mapping[str, Any]) -> dict[str, Any]:
    """One rule's agreement as a flat row."""
    parts = {part: row[part] for part in ("minus", "clearest", "clearest_minus") if part in row}
    flattened = {f"{part}_{key}": value for part, values in parts.items() for key, value in values.items()}
    return {"rule": name, **{key: value for key, value in row.items() if key not in parts}, **flattened}


def write_csv(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Rows as CSV under the union of their columns."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(rows)
