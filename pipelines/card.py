"""Data cards: ``DATA_CARD.md`` in each data output, ready to be published beside it.

The card answers the questions of Datasheets for Datasets (Gebru et al. 2021, CACM 64:12)
and begins with the metadata block that Hugging Face reads. It is rendered from manifests
and settings alone, and of a manifest's figures only numbers, true and false, and days pass:
so a card cannot hold what somebody wrote or is called, whatever a stage records.

    with writing(output, stage=..., ..., card=card_of(settings, inputs)) as draft:

``llumi forget`` renders it again from the counts that are left.
"""

import re
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any, TypeAlias

import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from configs.card import CardSettings
from configs.settings import Settings
from pipelines import manifest as manifests
from pipelines.manifest import CARD, Input, Manifest

Card: TypeAlias = Callable[[Manifest], str]
TEMPLATE = "card.md.j2"
SPLITS = ("train", "validation", "test")
MOST_ROWS = 60
"""Most rows of a table in the card; the manifest has them all."""
SIMULATED = "The built-in sample of LLUMI: a simulated community. Nobody wrote, read or rated any of it."
REDDIT_TERMS = "https://redditinc.com/policies/data-api-terms"
PAIR_ROW = "a prompt with two replies, the chosen and the rejected one"
ROWS = {
    "corpus": ("threads", "a post of an online support community with the comments that answer it", "posts"),
    "sft_rows": ("SFT rows", "a prompt and a reply to learn from, for the model GM or IM", None),
    "pairs": ("preference pairs from votes", PAIR_ROW, None),
    "revisions": ("revisions", "a draft and the reply that it should become", None),
    "retrieval": ("index of similar posts", "a post with well-received replies, as vectors and as words", "entries"),
    "rated_pairs": ("preference pairs from ratings", PAIR_ROW, None),
}
"""By stage: what the output is, what one row is, and the kind of row in the manifest that counts them."""
SIZES = ((10**3, "n<1K"), (10**4, "1K<n<10K"), (10**5, "10K<n<100K"), (10**6, "100K<n<1M"), (10**7, "1M<n<10M"))
TOLD_ELSEWHERE = frozenset({"forgotten", "subreddits", "dates", "scrub"})
"""Figures that have a place of their own in the card."""
NOT_PUBLISHED = frozenset({"author_key", "forgotten"})
"""Settings that are of use to who holds the key only."""
_DAY = re.compile(r"\d{4}-\d{2}(-\d{2})?")


def card_of(settings: Settings, inputs: Mapping[str, Input] | None = None) -> Card:
    """The function that renders a stage's card from its manifest; ``inputs`` are the stage's own.

    Communities, dates and cleaning of rows made of threads are told by the threads' manifest.
    """
    threads = (inputs or {}).get("threads")
    folder = Path(str(threads)) if isinstance(threads, str | Path) else None

    def render(made: Manifest) -> str:
        corpus = made if made.stage == "corpus" else folder and manifests.read(folder)
        return card(made, corpus or None, settings.card, simulated=settings.sample is not None)

    return render


def card(made: Manifest, corpus: Manifest | None, about: CardSettings, *, simulated: bool) -> str:
    """The card as Markdown. ``corpus`` is the manifest of the threads that the rows were made of."""
    title, row, _ = ROWS.get(made.stage, (made.stage.replace("_", " "), "a row of this stage's output", None))
    values = {
        "metadata": yaml.safe_dump(metadata(made, title, about, simulated), sort_keys=False, allow_unicode=True),
        "title": title,
        "row": row,
        "made": made,
        "is_threads": made.stage == "corpus",
        "has_pairs": "pairs" in made.stage,
        "figures": sections(made.figures),
        "corpus": corpus,
        "communities": tables(corpus.figures.get("subreddits", {})) if corpus else [],
        "days": days(corpus),
        "english": bool(corpus and corpus.settings.get("cleaning", {}).get("drop_not_english", False)),
        "scrubbing": tables(corpus.figures.get("scrub", {})) if corpus else [],
        "forgotten": forgotten(made),
        "about": about,
        "source": SIMULATED if simulated else about.source,
        "simulated": simulated,
        "card": CARD,
        "terms": REDDIT_TERMS,
        "settings": yaml.safe_dump(publishable(made.settings), sort_keys=False, allow_unicode=True).strip(),
    }
    return environment().get_template(TEMPLATE).render(values)


def metadata(made: Manifest, title: str, about: CardSettings, simulated: bool) -> dict[str, Any]:
    """Hugging Face's block: languages, licence, size, and which files are which split."""
    found: dict[str, Any] = {"pretty_name": f"LLUMI {title}", "language": ["en"]}
    if simulated:
        found["license"] = "apache-2.0"
    else:
        name = about.licence or "not to be passed on; the terms of the source apply"
        found |= {"license": "other", "license_name": name, "license_link": REDDIT_TERMS}
    found |= {
        "annotations_creators": ["machine-generated" if simulated else "found"],
        "source_datasets": ["original"],
        "task_categories": ["text-generation"],
        "tags": ["llumi", "peer-support", "simulated" if simulated else "reddit", made.stage.replace("_", "-")],
        "size_categories": [size(count(made))],
    }
    if configs := files_by_split(made):
        found["configs"] = configs
    return found


def days(corpus: Manifest | None) -> list[str]:
    """First and last day of posting, where the threads tell both."""
    dates = corpus.figures.get("dates") if corpus else None
    found = [dates.get(name) for name in ("first_post", "last_post")] if isinstance(dates, Mapping) else []
    return [str(day) for day in found] if found and all(map(_is_day, found)) else []


def publishable(value: Any) -> Any:
    """Settings without what is nobody else's business: the key, and where files of this machine lie."""
    if isinstance(value, Mapping):
        return {str(name): publishable(item) for name, item in value.items() if name not in NOT_PUBLISHED}
    if isinstance(value, list | tuple):
        return [publishable(item) for item in value]
    if isinstance(value, str) and value.startswith(("/", "~", "./", "../")):
        return Path(value).name
    return value


def count(made: Manifest) -> int:
    """Rows in the output: posts of threads, for all others the rows of both models."""
    kind = ROWS.get(made.stage, ("", "", None))[2]
    kinds = [kind] if kind else [name for name in made.rows if name.split("_")[0] in {"gm", "im"}] or list(made.rows)
    return sum(made.rows[name].kept for name in kinds if name in made.rows)


def size(rows: int) -> str:
    """Hugging Face's word for a number of rows."""
    return next((name for limit, name in SIZES if rows < limit), "n>10M")


def files_by_split(made: Manifest) -> list[dict[str, Any]]:
    """Hugging Face's ``configs``: for rows by model and split one a model, for threads one."""
    parts = [Path(name).parts for name in made.files if name.endswith(".parquet")]
    models = sorted({part[0] for part in parts if len(part) == 3 and part[1] in SPLITS})
    if models:
        return [
            {
                "config_name": model,
                "data_files": [{"split": split, "path": f"{model}/{split}/*.parquet"} for split in SPLITS],
            }
            for model in models
        ]
    if any(len(part) == 1 for part in parts):
        return [{"config_name": "default", "data_files": "*.parquet"}]
    return []


def forgotten(made: Manifest) -> int:
    """Rows of all kinds that were removed because somebody asked."""
    return sum(rows.dropped.get("forgotten", 0) for rows in made.rows.values())


def sections(figures: Mapping[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """The figures under their names, those that are one number together."""
    here = {name: value for name, value in figures.items() if name not in TOLD_ELSEWHERE}
    several = {name: value for name, value in here.items() if isinstance(value, Mapping)}
    single = {name: value for name, value in here.items() if name not in several}
    return {"Counts": tables(single)} | {name: tables(value) for name, value in several.items()}


def tables(value: Any) -> list[dict[str, Any]]:
    """A figure as one or more tables: each a caption, columns and rows; nothing but numbers and days in the cells."""
    if not isinstance(value, Mapping):
        return []
    found: list[dict[str, Any]] = []
    plain = {str(name): item for name, item in value.items() if _passes(item)}
    if plain:
        found.append(_table("", [(name, {"": item}) for name, item in plain.items()]))
    inner = {str(name): item for name, item in value.items() if isinstance(item, Mapping)}
    flat = [(name, {str(n): i for n, i in item.items() if _passes(i)}) for name, item in inner.items()]
    if any(cells for _, cells in flat):
        found.append(_table("", [(name, cells) for name, cells in flat if cells]))
    for name, item in inner.items():
        deeper = {n: i for n, i in item.items() if isinstance(i, Mapping)}
        found += [table | {"caption": _join(name, table["caption"])} for table in tables(deeper)]
    return found


def _table(caption: str, rows: list[tuple[str, dict[str, Any]]]) -> dict[str, Any]:
    columns = list(dict.fromkeys(name for _, cells in rows for name in cells))
    shown = [[name, *(_cell(cells.get(column)) for column in columns)] for name, cells in rows[:MOST_ROWS]]
    return {"caption": caption, "columns": columns, "rows": shown, "more": max(0, len(rows) - MOST_ROWS)}


def _passes(value: Any) -> bool:
    return value is None or isinstance(value, bool | int | float) or bool(_is_day(value))


def _is_day(value: Any) -> bool:
    return isinstance(value, str) and _DAY.fullmatch(value) is not None


def _cell(value: Any) -> str:
    if value is None:
        return "\u2013"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _join(*names: str) -> str:
    return ", ".join(name for name in names if name)


@cache
def environment() -> Environment:
    """The template engine: Markdown, so nothing is escaped but what would break a table; missing names are errors."""
    found = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=False,  # Markdown out; what enters are numbers and names of settings
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    found.filters["cell"] = lambda value: str(value).replace("|", "\\|").replace("\n", " ")
    found.filters["words"] = lambda name: str(name).replace("_", " ")
    found.filters["thousands"] = lambda value: f"{value:,}"
    return found
