"""From what a model was made, and what is known of it: read from manifests, for its card and its exports.

A manifest names its inputs by fingerprint, and an output's fingerprint is that of its manifest.
So whatever lies below the run's folder leads back from weights to threads, without a list of
stages. What was removed since is not found and is said to be so; nothing is guessed.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from configs.errors import DataError
from configs.settings import Settings
from pipelines import card as data_card
from pipelines import manifest
from pipelines.layout import Layout
from pipelines.manifest import Input, Manifest

DEPTH = 3
"""Folders below the root in which manifests are looked for: ``adapters/gm/sft``."""
ACCURACY = "eval_rewards/accuracies"
LOSS = "eval_loss"


@dataclass(frozen=True)
class Metric:
    """A held-out figure with its interval; ``low`` and ``high`` are None where none can be told."""

    name: str
    """As Hugging Face's metadata calls it: ``accuracy``, ``loss``, ``quality_change``."""
    label: str
    """In words, with what it was measured on."""
    value: float
    low: float | None
    high: float | None
    n: int
    """Rows or posts that it was measured on."""
    method: str
    """How the interval was made, or why there is none."""


@dataclass(frozen=True)
class About:
    """What a card tells beyond the model's own settings."""

    sources: Mapping[str, Manifest]
    """Manifests of everything it was made from that is still there, by stage, nearest first."""
    missing: tuple[str, ...]
    """Inputs whose manifests are not there any more."""
    metrics: tuple[Metric, ...]
    measured: str
    """Where ``metrics`` come from: ``evaluation`` or ``training``."""
    licence: str
    """Under which the data may be passed on, empty where nobody said."""
    simulated: bool
    """Whether the community was invented."""
    code: str
    """SHA-256 (hex) of the sources that made it."""
    version: str
    """Version of the distribution that made it."""


def about(
    settings: Settings,
    model: str,
    stage: str,
    inputs: Mapping[str, Input],
    prints: Mapping[str, str],
    last: Mapping[str, float],
    *,
    made: Manifest | None = None,
    adapter: Path | None = None,
) -> About:
    """What is known of the adapter of ``model`` after ``stage``, or of a model merged from it.

    ``inputs`` and ``prints`` are what it was made from and their fingerprints, ``last`` the last
    values of its training curves. ``made`` is its own manifest where it has one already, and
    ``adapter`` its folder where an evaluation may have measured it.
    """
    root = Path(settings.output)
    sources, missing = ancestors(known(root, inputs), prints)
    metrics = evaluated(settings, model, stage, adapter) if adapter else ()
    return About(
        sources=sources,
        missing=missing,
        metrics=metrics or trained(settings, sources, model, stage, last),
        measured="evaluation" if metrics else "training",
        licence=settings.card.licence,
        simulated=settings.sample is not None,
        code=made.code if made else manifest.code_fingerprint(),
        version=made.version if made else manifest.distribution_version(),
    )


def last_figures(adapter: Path) -> dict[str, float]:
    """The last values of an adapter's training curves, up to the step that was kept; none where it is no more."""
    made = manifest.read(adapter)
    return dict(made.figures.get("last", {})) if made else {}


def known(root: Path, inputs: Mapping[str, Input] | None = None) -> dict[str, Manifest]:
    """Every manifest below ``root``, and those of ``inputs``, by fingerprint; hidden folders are no outputs."""
    folders = [
        file.parent
        for depth in range(1, DEPTH + 1)
        for file in sorted(root.glob("/".join(["*"] * depth) + f"/{manifest.FILE}"))
        if not any(name.startswith(".") for name in file.relative_to(root).parts)
    ]
    folders += [value for value in (inputs or {}).values() if isinstance(value, Path)]
    return dict(readable(folders))


def readable(folders: list[Path]) -> Iterator[tuple[str, Manifest]]:
    """Fingerprint and manifest of each complete output; one of another version is passed over."""
    for folder in folders:
        try:
            made = manifest.read(folder)
        except DataError:
            continue
        if made is not None:
            yield manifest.fingerprint(folder), made


def ancestors(known: Mapping[str, Manifest], prints: Mapping[str, str]) -> tuple[dict[str, Manifest], tuple[str, ...]]:
    """The manifests that ``prints`` lead to, by stage and nearest first, and the inputs that lead nowhere."""
    found: dict[str, Manifest] = {}
    missing: list[str] = []
    near = dict(prints)
    while near:
        farther: dict[str, str] = {}
        for name, print_ in near.items():
            made = known.get(print_)
            if made is None:
                missing.append(name)
            elif made.stage not in found:
                found[made.stage] = made
                farther |= {f"{made.stage}: {below}": value for below, value in made.inputs.items()}
        near = farther
    return found, tuple(dict.fromkeys(missing))


def evaluated(settings: Settings, model: str, stage: str, adapter: Path) -> tuple[Metric, ...]:
    """What the evaluation stage measured of this very adapter; nothing where it measured another or is not made."""
    try:
        made = manifest.read(Layout(Path(settings.output)).evaluation)
    except DataError:
        return ()
    if made is None or made.inputs.get(f"adapters/{model}/{stage}") != manifest.fingerprint(adapter):
        return ()
    found = []
    confidence = f"{settings.evaluation.confidence:.0%}"
    reward = made.figures.get("rewards", {}).get(model, {}).get(stage)
    if reward and reward["accuracy"] is not None:
        label = "share of held-out pairs whose chosen reply is ranked first, against the model it started from"
        ends = reward["low"], reward["high"]
        found.append(Metric("accuracy", label, reward["accuracy"], *ends, reward["n"], f"{confidence}, over posts"))
    for what, row in made.figures.get("quality", {}).get(model, {}).items():
        if row["mean"] is not None and (what == stage or what.startswith(f"{stage}_minus_")):
            label = f"true quality of texts for held-out posts, {what.replace('_', ' ')} (simulated judge)"
            name = "quality_change" if "_minus_" in what else "quality"
            ends = row["low"], row["high"]
            found.append(Metric(name, label, row["mean"], *ends, row["n"], f"{confidence}, over posts"))
    return tuple(found)


def trained(
    settings: Settings, sources: Mapping[str, Manifest], model: str, stage: str, last: Mapping[str, float]
) -> tuple[Metric, ...]:
    """The last figures of training on its validation split: Wilson's interval over pairs, Student's over batches."""
    tokens = sources.get(f"tokens/{model}/{stage}")
    n = tokens.rows["validation"].kept if tokens and "validation" in tokens.rows else 0
    found = []
    confidence = settings.evaluation.confidence
    if n and ACCURACY in last:
        from pipelines.evaluation.statistics import wilson

        share = last[ACCURACY]
        method = f"{confidence:.0%}, Wilson over pairs, as if each had a post of its own"
        label = "share of validation pairs whose chosen reply is ranked first, against the model it started from"
        found.append(Metric("accuracy", label, share, *wilson(round(share * n), n, confidence), n, method))
    if LOSS in last:
        low, high = student(last, confidence)
        method = "one batch: no interval" if low is None else f"{confidence:.0%}, Student's t over batches of rows"
        found.append(Metric("loss", "loss on the validation split", last[LOSS], low, high, n, method))
    return tuple(found)


def student(last: Mapping[str, float], confidence: float) -> tuple[float | None, float | None]:
    """The interval of the held-out loss from its standard error over batches, where there were two or more."""
    if "eval_loss_se" not in last:
        return None, None
    from scipy import stats

    reach = stats.t.ppf((1 + confidence) / 2, last["eval_batches"] - 1) * last["eval_loss_se"]
    return last[LOSS] - float(reach), last[LOSS] + float(reach)


def data_facts(sources: Mapping[str, Manifest], model: str, stage: str) -> dict[str, str]:
    """The main figures of the data cards behind a model, in words: posts, days, communities, rows, what was removed."""
    facts: dict[str, str] = {}
    if corpus := sources.get("corpus"):
        facts["posts read"] = f"{data_card.count(corpus):,}"
        facts["posted"] = " to ".join(data_card.days(corpus)) or "not known"
        communities = corpus.figures.get("subreddits")
        if isinstance(communities, Mapping) and communities:
            facts["communities"] = ", ".join(sorted(map(str, communities)))
    rows = (
        next((sources[name] for name in ("pairs", "rated_pairs") if name in sources), None) if stage != "sft" else None
    )
    if rows is not None and (rule := rule_of(rows)):
        facts["pair rule"] = rule
    if tokens := sources.get(f"tokens/{model}/{stage}"):
        for split, count in tokens.rows.items():
            lost = ", ".join(f"{n:,} {reason.replace('_', ' ')}" for reason, n in count.dropped.items())
            facts[f"rows, {split}"] = f"{count.kept:,} of {count.read:,}" + (f" (left out: {lost})" if lost else "")
    gone = sum(data_card.forgotten(made) for name, made in sources.items() if name in data_card.ROWS)
    if gone:
        facts["rows removed on request"] = f"{gone:,}"
    return facts


def rule_of(rows: Manifest) -> str | None:
    """The pair rule that rows from votes were made by."""
    own: Any = rows.settings.get("pairs", rows.settings)
    rule = own.get("rule") if isinstance(own, Mapping) else None
    return rule if isinstance(rule, str) else None
