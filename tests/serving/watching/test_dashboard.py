"""The Grafana dashboard: in Grafana's own form, its queries valid, and about what is really exported."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import promql_parser as promql
import pytest
from grafana_foundation_sdk.cog import encoder, plugins
from grafana_foundation_sdk.models.dashboard import Dashboard

from serving.watching import definitions as d

DASHBOARD = Path(__file__).parents[3] / "cluster" / "grafana" / "llumi.json"
SERVE = {
    "ray_serve_deployment_queued_queries": {"application", "deployment"},
    "ray_serve_deployment_replica_healthy": {"application", "deployment"},
    "ray_serve_deployment_replica_starts_total": {"application", "deployment"},
}
"""What Serve itself exports; ``test_on_ray`` sees them."""
VARIABLES = {"$__rate_interval": "5m", "$model": "gm"}


@pytest.fixture(scope="module")
def board() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(DASHBOARD.read_text(encoding="utf-8"))
    return found


def queries(board: dict[str, Any]) -> list[str]:
    """Every expression, with Grafana's variables filled in."""
    found = [target["expr"] for panel in board["panels"] for target in panel.get("targets", ())]
    for variable, value in VARIABLES.items():
        found = [query.replace(variable, value) for query in found]
    return found


def parts(expr: Any) -> Iterator[Any]:
    """An expression and all within it."""
    yield expr
    for name in ("lhs", "rhs", "expr", "param", "selector", "vector_selector"):
        if getattr(expr, name, None) is not None:
            yield from parts(getattr(expr, name))
    for argument in getattr(expr, "args", ()) or ():
        yield from parts(argument)


def selectors(query: str) -> list[Any]:
    return [part for part in parts(promql.parse(query)) if isinstance(part, promql.VectorSelector)]


def names(board: dict[str, Any]) -> set[str]:
    """The metrics that the dashboard asks for."""
    return {selector.name for query in queries(board) for selector in selectors(query)}


def labels_of() -> dict[str, set[str]]:
    """Labels by exported name."""
    ours = {name: {*metric.labels, "le"} for metric in d.ALL for name in metric.exported}
    return ours | SERVE


def lost(given: Any, kept: Any, at: str = "") -> list[str]:
    """Where ``kept`` lacks or changes what was given."""
    if isinstance(given, dict) and isinstance(kept, dict):
        return [x for key in given for x in lost(given[key], kept.get(key, ...), f"{at}.{key}")]
    if isinstance(given, list) and isinstance(kept, list) and len(given) == len(kept):
        return [x for i, pair in enumerate(zip(given, kept, strict=True)) for x in lost(*pair, f"{at}[{i}]")]
    return [] if given == kept else [at]


def as_grafana_reads_it(board: dict[str, Any]) -> dict[str, Any]:
    """Through the types that Grafana generates from its schema, and back."""
    plugins.register_default_plugins()
    text = encoder.JSONEncoder().encode(Dashboard.from_json(board))
    read: dict[str, Any] = json.loads(text)
    return read


def test_grafana_knows_every_field_of_the_dashboard(board: dict[str, Any]) -> None:
    assert lost(board, as_grafana_reads_it(board)) == []


def test_a_field_that_grafana_does_not_know_would_be_found(board: dict[str, Any]) -> None:
    wrong = json.loads(json.dumps(board))
    wrong["panels"][1]["fieldConfig"]["defaults"]["units"] = "s"
    wrong["panels"][1]["targets"][0]["query"] = "up"
    assert lost(wrong, as_grafana_reads_it(wrong)) == [
        ".panels[1].fieldConfig.defaults.units",
        ".panels[1].targets[0].query",
    ]


def test_panels_have_ids_of_their_own_and_do_not_overlap(board: dict[str, Any]) -> None:
    ids = [panel["id"] for panel in board["panels"]]
    assert len(set(ids)) == len(ids)
    taken: dict[tuple[int, int], int] = {}
    for panel in board["panels"]:
        at = panel["gridPos"]
        assert at["x"] + at["w"] <= 24
        for cell in [(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])]:
            assert taken.setdefault(cell, panel["id"]) == panel["id"]


def test_each_query_asks_for_metrics_and_labels_that_are_exported(board: dict[str, Any]) -> None:
    known = labels_of()
    asked = queries(board)
    assert len(asked) > 20
    for query in asked:
        for selector in selectors(query):
            assert selector.name in known, query
            matched = {matcher.name for matcher in selector.matchers.matchers}
            assert matched <= known[selector.name], query
        for part in parts(promql.parse(query)):
            grouped = getattr(getattr(part, "modifier", None), "labels", None) or []
            inside = set.union(*(known[selector.name] for selector in selectors(query)))
            assert set(grouped) <= inside, query


def test_every_metric_of_the_service_is_on_the_dashboard(board: dict[str, Any]) -> None:
    asked = names(board)
    unseen = [metric.name for metric in d.ALL if not asked & set(metric.exported)]
    assert unseen == []


def test_the_model_variable_reads_a_label_that_is_exported(board: dict[str, Any]) -> None:
    variables = {variable["name"]: variable for variable in board["templating"]["list"]}
    assert variables["model"]["query"]["query"] == f"label_values({d.NEW_TOKENS.exported[0]}, model)"
    assert "model" in d.NEW_TOKENS.labels
