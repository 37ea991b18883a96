"""``llumi status``: deployments, replicas, versions, queue, rates, health and recent errors by name."""

import json
import sys
from collections import Counter
from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any

from rich.table import Table

from cluster import session
from cluster.plan import printed
from configs.settings import Settings

if TYPE_CHECKING:
    from serving.watching.status import DeploymentStatus, ServiceStatus

WIDTH = 140
"""Columns where the output goes to no terminal."""
UNWELL = 1
"""Exit code where the service runs and is not well."""


def status(settings: Settings, *, window_s: float, as_json: bool, debug: bool) -> int:
    """Print the service's state; returns 0 where it is well, 1 where it is not.

    Raises UsageError where no service of this configuration runs, ClusterError where its cluster
    does not answer.
    """
    from cluster.rollout import joined
    from serving.access.tls import own_context
    from serving.address import base_url
    from serving.watching.status import check_deployed, look

    serving = settings.serving
    url = base_url(serving.host, serving.port, tls=serving.tls is not None)
    with joined(settings, debug=debug):
        check_deployed()
        if not debug:
            session.hush()  # Serve's own logger takes to the terminal once it was asked something
        found = look(url, window_s, own_context(serving))
    if as_json:
        sys.stdout.write(json.dumps(as_values(found), indent=2) + "\n")
    else:
        show(found)
    return 0 if found.well else UNWELL


def show(found: "ServiceStatus") -> None:
    """The tables."""
    console = printed()
    if not console.is_terminal:
        console.width = WIDTH
    since = "" if found.since is None else f", deployed {datetime.fromtimestamp(found.since):%Y-%m-%d %H:%M:%S}"
    console.print(f"{found.url}: {found.health}{since}; numbers of the last {found.window_s:g} s", highlight=False)
    console.print(deployments_table(found), "", highlight=False)
    for part in found.deployments:
        if part.message:
            console.print(f"{part.name}: {part.message}", highlight=False, markup=False, soft_wrap=True)
    routes = routes_table(found)
    if routes.row_count:
        console.print(routes, "", highlight=False)
    safety = ", ".join(f"{name} {count}" for name, count in safety_counts(found).items())
    if safety:
        console.print(f"safety: {safety}\n", highlight=False, soft_wrap=True)
    if found.errors:
        console.print(errors_table(found), highlight=False)
    else:
        console.print("no errors", highlight=False)


def deployments_table(found: "ServiceStatus") -> Table:
    """One line a deployment."""
    from serving.watching import definitions as d

    table = Table(box=None, pad_edge=False)
    numeric = ["in\nprogress", "\nqueued", "\nanswers/s", "\ntokens/s", "first token\np50 / p95"]
    for name in ("\ndeployment", "\nstate", "\nreplicas", "\nserves", *numeric):
        table.add_column(name, justify="right" if name in numeric else "left", no_wrap=True)
    for part in found.deployments:
        serves = "\n".join(
            f"{v.model} {v.version or '?'}" + ("" if v.share == 1 else f" ({v.share:.0%})") for v in part.versions
        )
        seen, known = part.seen, part.answered > 0
        ingress = part.name == "ingress"
        progress = seen.gauges.get((d.IN_PROGRESS if ingress else d.ANSWERS_IN_PROGRESS).name, {})
        answers = seen.rate(d.REQUESTS) if ingress else answered(part) / (seen.seconds or 1)
        table.add_row(
            part.name if part.app == f"llumi-{part.name}" or ingress else f"{part.app}/{part.name}",
            part.status.lower(),
            replicas(part.replicas),
            serves,
            f"{sum(progress.values()):.0f}" if known else "?",
            "?" if part.queued is None else str(part.queued),
            f"{answers:.2f}" if known else "?",
            "" if ingress else f"{seen.rate(d.NEW_TOKENS):.1f}" if known else "?",
            "" if ingress else " / ".join(seconds(seen.quantile(d.FIRST_TOKEN, q)) for q in (0.5, 0.95)),
        )
    return table


def answered(part: "DeploymentStatus") -> float:
    """Answers that a deployment of models ended in the window."""
    from serving.watching import definitions as d

    rows = part.seen.histograms.get(d.GENERATION_SECONDS.name, {}).values()
    return sum(sum(row[:-1]) for row in rows)


def routes_table(found: "ServiceStatus") -> Table:
    """One line a route that was asked for in the window."""
    from serving.watching import definitions as d
    from serving.watching.recent import merged

    seen = merged(part.seen for part in found.deployments)
    table = Table(box=None, pad_edge=False)
    for name in ("route", "requests", "4xx", "5xx", "p50", "p95"):
        table.add_column(name, justify="left" if name == "route" else "right")
    by_route: dict[str, dict[str, float]] = {}
    for (route, status), count in seen.counters.get(d.REQUESTS.name, {}).items():
        by_route.setdefault(route, {})[status] = count
    for route, counts in sorted(by_route.items()):
        classes = [sum(n for status, n in counts.items() if status.startswith(first)) for first in "45"]
        quantiles = [seconds(seen.quantile(d.REQUEST_SECONDS, q, (route,))) for q in (0.5, 0.95)]
        table.add_row(route, f"{sum(counts.values()):.0f}", *(f"{n:.0f}" for n in classes), *quantiles)
    return table


def safety_counts(found: "ServiceStatus") -> dict[str, int]:
    """What triage, guard and limits did in the window, by name; of a model in two versions by version too."""
    from serving.watching import definitions as d
    from serving.watching.recent import merged

    seen = merged(part.seen for part in found.deployments)
    served = Counter(version.model for part in found.deployments for version in part.versions)
    shown = {d.TRIAGED: "risk", d.ANSWERS: "answers", d.GUARDED: "guard", d.REGENERATED: "anew", d.REFUSED: "refused"}
    counts: Counter[str] = Counter()
    for metric, word in {**shown, d.LIMITED: "limited"}.items():
        for values, count in sorted(seen.counters.get(metric.name, {}).items()):
            labels = dict(zip(metric.labels, values, strict=True))
            of = f" ({labels['model']} {labels['version']})" if served[labels.get("model", "")] > 1 else ""
            counts[f"{word} {values[0]}{of}"] += int(count)
    return dict(counts)


def errors_table(found: "ServiceStatus") -> Table:
    """One line an error's code, the latest first."""
    table = Table(box=None, pad_edge=False)
    table.add_column("error")
    table.add_column(f"in the last {found.window_s:g} s", justify="right")
    table.add_column("last", justify="right")
    for error in found.errors:
        table.add_row(error.code, str(error.count), f"{duration(error.ago_s)} ago")
    return table


def replicas(states: Mapping[str, int]) -> str:
    """``2``, or ``1 + 1 starting``."""
    others = [f"{count} {state.lower()}" for state, count in states.items() if count and state != "RUNNING"]
    return " + ".join([str(states.get("RUNNING", 0)), *others])


def seconds(value: float | None) -> str:
    """A time of an answer, or that none was seen."""
    return "-" if value is None else f"{1000 * value:.0f} ms" if value < 1 else f"{value:.1f} s"


def duration(value: float) -> str:
    """Seconds in the unit that reads best."""
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if value >= size:
            return f"{value / size:.0f} {unit}"
    return f"{value:.0f} s"


def as_values(found: "ServiceStatus") -> dict[str, Any]:
    """The same as JSON values; times in seconds, rates a second."""
    from serving.watching import definitions as d
    from serving.watching.recent import merged

    seen = merged(part.seen for part in found.deployments)
    return {
        "url": found.url,
        "well": found.well,
        "health": found.health,
        "deployed": found.since,
        "window_s": found.window_s,
        "deployments": [one_deployment(part) for part in found.deployments],
        "requests": [
            {"route": route, "status": int(status), "count": int(count)}
            for (route, status), count in sorted(seen.counters.get(d.REQUESTS.name, {}).items())
        ],
        "safety": safety_counts(found),
        "errors": [vars(error) for error in found.errors],
    }


def one_deployment(part: "DeploymentStatus") -> dict[str, Any]:
    """One deployment as JSON values; None for what nobody told."""
    from serving.watching import definitions as d

    known = part.answered > 0
    progress = d.IN_PROGRESS if part.name == "ingress" else d.ANSWERS_IN_PROGRESS
    ended = part.seen.total(d.REQUESTS) if part.name == "ingress" else answered(part)
    return {
        "application": part.app,
        "deployment": part.name,
        "status": part.status,
        "message": part.message,
        "replicas": part.replicas,
        "versions": [vars(version) for version in part.versions],
        "queued": part.queued,
        "in_progress": int(sum(part.seen.gauges.get(progress.name, {}).values())) if known else None,
        "answers_per_s": ended / (part.seen.seconds or 1) if known else None,
        "tokens_per_s": part.seen.rate(d.NEW_TOKENS) if known else None,
        "first_token_s": {f"p{int(100 * q)}": part.seen.quantile(d.FIRST_TOKEN, q) for q in (0.5, 0.95)},
    }
