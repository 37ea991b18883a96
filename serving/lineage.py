"""What a served model was made from, in one form for a run's own model and for an exported one.

An export carries ``lineage.json``. A model that is served out of its run has its manifest, which
names its inputs by fingerprint, and the other manifests of the run lead on from there. Where the
run is not there any more, what is missing is named. Nothing says where files lie.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from configs.errors import DataError
from configs.settings import Settings
from pipelines import manifest
from pipelines.layout import Layout
from pipelines.manifest import Manifest
from pipelines.training import provenance
from pipelines.training.export import summary

SHOWN = ("base", "train/", "pairs", "rated_pairs", "sft_rows", "tokens/")
"""Beginnings of the stages whose settings are told: those that decide what a model learned."""


def lineage(info: Mapping[str, Any]) -> dict[str, Any] | None:
    """The lineage of a model by what ``sources.about`` says of it; None where nothing is known."""
    made, path = info.get("made"), info.get("path")
    if not made:
        return None
    if "stage" not in made or not isinstance(path, str) or not Path(path).is_dir():
        return {name: value for name, value in made.items() if name != "files"}
    try:
        return of_run(Path(path), Manifest.model_validate(made))
    except ValidationError:
        return None  # of another version


def of_run(folder: Path, made: Manifest) -> dict[str, Any]:
    """The lineage of the merged model that ``made`` describes, by what its run holds now.

    A later run may have put another model into ``folder``; what is served is still the one before it.
    """
    root = folder.parent.parent
    sources, missing = provenance.ancestors(provenance.known(root), made.inputs)
    return {
        "manifest": summary(made),
        "stage": made.stage,
        "made_from": {name: source(one) for name, one in sources.items()},
        "not_there_any_more": list(missing),
        "metrics": metrics(root, sources),
    }


def source(made: Manifest) -> dict[str, Any]:
    """One stage that went into the model."""
    rows = {kind: {"read": count.read, "kept": count.kept} for kind, count in made.rows.items()}
    settings = {"settings": made.settings} if made.stage.startswith(SHOWN) else {}
    return {**summary(made), "rows": rows, **settings}


def metrics(root: Path, sources: Mapping[str, Manifest]) -> list[dict[str, Any]]:
    """What the run's evaluation measured of this very adapter; none where it measured another."""
    trained = next((name for name in sources if name.startswith("train/")), None)
    if trained is None:
        return []
    _, model, stage = trained.split("/")
    try:
        evaluation = manifest.read(Layout(root).evaluation)
    except DataError:
        return []
    if evaluation is None:
        return []
    measured = {"confidence": evaluation.settings.get("evaluation", {}).get("confidence", 0.95)}
    settings = Settings.model_validate({"output": str(root), "evaluation": measured})
    adapter = Layout(root).adapter(model, stage)
    return [vars(metric) for metric in provenance.evaluated(settings, model, stage, adapter)]
