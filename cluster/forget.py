"""``llumi forget``: the request read, the output locked, the report told.

What is told goes to stdout, for the person who asked: it names what was asked for and not
found. Nothing of it is logged.
"""

from collections.abc import Iterator
from pathlib import Path

import httpx
import typer

from cluster.runner import locked, sweep
from cluster.stages import Way, table
from configs.errors import MissingInput
from configs.settings import Settings
from pipelines import manifest
from pipelines.forgetting import forget as forgetting
from pipelines.forgetting import requests
from pipelines.forgetting.report import ADVICE, Change, Report, Served
from pipelines.forgetting.trained import MARK

BY_HAND = 3
"""Exit code where it is done here and something elsewhere holds what was to be forgotten."""
PROBE_S = 2.0
MERGED = {"models/gm": "gm", "models/im": "im"}
"""Outputs that ``llumi serve`` serves, and their names there."""


def forget(settings: Settings, config: str, ids: Path, *, dry_run: bool, as_json: bool) -> int:
    """Remove what the file ``ids`` names from every output and from the feedback store; returns the exit code."""
    from serving.feedback.forgetting import forgetting as in_the_store

    asked = requests.read(ids)
    with locked(Path(settings.output)):
        sweep(table(settings))
        with in_the_store(settings, dry_run=dry_run) as elsewhere:
            report = forgetting.forget(
                settings,
                asked,
                ratings=rating_files(settings),
                config=config,
                dry_run=dry_run,
                elsewhere=elsewhere,
            )
    report.served = served(settings, report)
    typer.echo(report.model_dump_json(indent=1) if as_json else "\n".join(lines(report)))
    return 0 if report.is_done else BY_HAND


def rating_files(settings: Settings) -> list[Path]:
    """The rating files of the configuration, in the order in which they are read; none where one is missing."""
    way = Way(settings)
    try:
        found = () if way.no_ratings() else way.ratings()["ratings"]
    except MissingInput:
        return []
    assert not isinstance(found, Path)
    return [Path(path) for path in found]


def served(settings: Settings, report: Report) -> list[Served]:
    """The service at the configuration's address, where it answers and models of this output are affected.

    It does not say where its models lie, so it may be the service of another output.
    """
    from serving.address import base_url

    models = [MERGED[model.output] for model in report.models if model.output in MERGED]
    if not models:
        return []
    tls = settings.serving.tls is not None
    url = base_url(settings.serving.host, settings.serving.port, tls=tls)
    try:
        # Whether one of ours is there is all that it is asked, so its certificate is not checked.
        said = httpx.get(f"{url}/healthz", timeout=PROBE_S, trust_env=False, verify=not tls).json()
    except (httpx.HTTPError, ValueError):
        return []
    ours = isinstance(said, dict) and said.get("status") in ("ok", "unavailable")
    return [Served(url=url, models=models)] if ours else []


def trained_on_forgotten(settings: Settings) -> list[str]:
    """A line for each merged model of the output that removed rows went into."""
    root = Path(settings.output)
    made = {name: manifest.read(root / name) for name in MERGED}
    affected = [name for name, found in made.items() if found is not None and MARK in found.figures]
    return [
        f"{root / name} was trained on rows that were forgotten since: `llumi run` trains it again" for name in affected
    ]


def lines(report: Report) -> Iterator[str]:
    """The report for people."""
    asked = ", ".join(f"{n} {kind}" for kind, n in report.asked.items() if n)
    yield f"asked: {asked}" + (" (dry run: nothing was changed)" if report.dry_run else "")
    verb = "would be removed" if report.dry_run else "removed"
    for change in report.changes:
        if change.action != "kept" or change.why:
            yield f"  {change.output}: {outcome(change, verb)}"
    if all(change.action == "kept" for change in report.changes):
        yield "  no output holds any of it"
    if report.unknown:
        yield f"not found in the threads, kept out of later builds all the same: {', '.join(report.unknown)}"
    yield f"kept out of later builds: {report.kept_out} posts, comments and accounts (keyed hashes)"
    if report.models:
        yield "trained on removed rows:"
        yield from (f"  {model.output}" for model in report.models)
        yield f"  {ADVICE.replace('CONFIG', report.models[0].command.split()[-1])}"
    for file in report.outside:
        yield f"outside of the output, not touched: {file.file} holds {file.lines} lines of it; remove them there"
    for service in report.served:
        yield f"a service answers at {service.url}; where it serves {', '.join(service.models)} of this output, stop it"
    yield from report.notes


def outcome(change: Change, verb: str) -> str:
    """What became of one output, in words."""
    if change.action == "rows":
        counts = (
            f"{n:,}{f' of {change.of[kind]:,}' if kind in change.of else ''} {kind}" for kind, n in change.rows.items()
        )
        return f"{verb}: {', '.join(counts).replace('_', ' ')}"
    if change.action == "removed":
        return f"{verb} whole: {change.why}"
    return change.why
