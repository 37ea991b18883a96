"""The evaluation stage: held-out figures of every adapter there is, and the report that shows them.

    build(settings, {"threads": ..., "sft": ..., "pairs": ..., "base": ..., "adapters/gm/sft": ...}, output)

Optional inputs are ``rated_pairs``, ``truth`` (the sample's truth.parquet), and any other
stage's folder under its own name (``sample``, ``tokens/gm/sft``), whose row counts and notes
the report then shows.
"""

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from configs.load import to_yaml
from configs.prompts import fingerprint
from configs.settings import Settings
from configs.training import MODELS, STAGES
from pipelines import manifest
from pipelines.evaluation import agreement, drafts, quality, report, rewards, summary
from pipelines.evaluation import rows as held_out
from pipelines.manifest import Draft, Input, Manifest, fingerprints, writing
from pipelines.pairs.exposure_model import Exposure

log = logging.getLogger("llumi.evaluation")

STAGE = "evaluation"
FIGURES = "figures.json"
REPORT = "report.html"


def depends(settings: Settings) -> dict[str, Any]:
    """The settings that the figures depend on."""
    training = settings.training
    return {
        "seed": settings.seed,
        "evaluation": settings.evaluation.model_dump(mode="json", exclude={"actors"}),
        "generation": settings.generation.model_dump(mode="json"),
        "pairs": settings.pairs.model_dump(mode="json"),
        "prompts": {name: fingerprint(template) for name, template in settings.prompts.model_dump().items()},
        "training": {"max_length": training.max_length, "bf16": training.bf16}
        | {f"{stage}.beta": getattr(training, stage).beta for stage in STAGES[1:]},
    }


def build(settings: Settings, inputs: Mapping[str, Input], output: Path) -> Manifest:
    """Write report.html, figures.json, tables/*.csv, drafts.parquet and rewards.parquet to ``output``."""
    with writing(
        output,
        stage=STAGE,
        settings=depends(settings),
        inputs=fingerprints(inputs),
        resolved=to_yaml(settings),
    ) as draft:
        sources = manifests(inputs)
        figures, texts = measure(settings, inputs, draft)
        figures["skipped"] = summary.skipped(inputs)
        figures["funnel"] = summary.funnel({**sources, STAGE: draft})
        figures["tokens"] = summary.tokenised(sources)
        draft.figures = summary.headline(figures)
        draft.notes = summary.notes(sources, figures)
        (draft.path / FIGURES).write_text(json.dumps(figures, indent=1, allow_nan=False), encoding="utf-8")
        report.write(settings, figures, texts, draft.notes, draft.path)
    assert draft.manifest is not None
    return draft.manifest


def measure(settings: Settings, inputs: Mapping[str, Input], draft: Draft) -> tuple[dict[str, Any], pa.Table]:
    """All figures, and the texts that the models wrote."""
    base, adapters = str(inputs["base"]), adapters_in(inputs)
    folders = {kind: folder(inputs, name) for kind, name in rewards.SOURCES.items() if name in inputs}
    threads = held_out.test_threads(folder(inputs, "threads"))
    truth = qualities(inputs)

    table, logps = rewards.measure(settings, folders, base, adapters)
    log.info("scored %d held-out pairs", logps.num_rows)
    pq.write_table(logps, draft.path / "rewards.parquet")
    for name, counted in rewards.conserved(logps).items():
        draft.count(f"pairs/{name}", **counted)

    shown = folder(inputs, "retrieval") if "retrieval" in inputs else None
    texts, unwritten = drafts.write(settings, threads, folder(inputs, "sft"), base, adapters, truth is not None, shown)
    pq.write_table(texts, draft.path / "drafts.parquet")
    for name, counted in unwritten.items():
        draft.count(f"texts/{name}", **counted)

    figures: dict[str, Any] = {
        "rewards": {model: {} for model in adapters},
        "rewards_table": [row.as_dict() for row in table],
        "texts": drafts.counts(texts),
        "curves": {name: summary.curve(folder(inputs, name)) for name in trained(inputs)},
    }
    for row in table:
        if row.headline:
            figures["rewards"][row.model][row.policy] = row.as_dict()
    if truth is not None:
        rated_pairs = folder(inputs, "rated_pairs") if "rated_pairs" in inputs else None
        exposure = Exposure.read(folder(inputs, "exposure")) if "exposure" in inputs else None
        figures["agreement"] = agreement.measure(settings, threads, exposure, truth, rated_pairs)
        figures["quality"] = quality.measure(settings, texts, threads, truth)
    return figures, texts


def folder(inputs: Mapping[str, Input], name: str) -> Path:
    """The input ``name`` as a path."""
    return Path(str(inputs[name]))


def adapters_in(inputs: Mapping[str, Input]) -> dict[str, dict[str, Path]]:
    """The adapters given, by model and stage in the order of training."""
    found: dict[str, dict[str, Path]] = {}
    for model in MODELS:
        for stage in STAGES:
            if f"adapters/{model}/{stage}" in inputs:
                found.setdefault(model, {})[stage] = folder(inputs, f"adapters/{model}/{stage}")
    return found


def trained(inputs: Mapping[str, Input]) -> list[str]:
    """Names of the inputs that training wrote, and that may hold curves."""
    made_here = ["base"] if isinstance(inputs.get("base"), Path) else []
    return made_here + [name for name in inputs if name.startswith("adapters/")]


def qualities(inputs: Mapping[str, Input]) -> dict[str, float] | None:
    """True quality by comment_id, where there is a truth."""
    if "truth" not in inputs:
        return None
    table = pq.read_table(folder(inputs, "truth"), columns=["comment_id", "quality"])
    known = zip(table["comment_id"].to_pylist(), table["quality"].to_pylist(), strict=True)
    return {name: value for name, value in known if value is not None}


def manifests(inputs: Mapping[str, Input]) -> dict[str, Manifest]:
    """The manifest of each input that is a stage's folder."""
    found = {name: manifest.read(value) for name, value in inputs.items() if isinstance(value, Path)}
    return {name: value for name, value in found.items() if value is not None}
