"""One training stage: tokens, a base and the adapter before it in, an adapter out.

A worker that dies is replaced and training goes on from the last checkpoint; a driver that
dies leaves the checkpoints, and the same command finds them by the run's name, which is made
of the stage and a hash of its inputs and settings.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from configs.errors import StageOrderError
from configs.load import to_yaml
from configs.settings import Settings
from configs.training import ModelName, StageName, StageSettings, TrainingSettings
from pipelines.layout import Layout
from pipelines.manifest import Draft, Input, Manifest, RowCount, fingerprints, key_of, require, writing
from pipelines.training import curves, reference
from pipelines.training.card import card
from pipelines.training.fit import fit
from pipelines.training.plan import Plan, portable_name
from pipelines.training.tokens import kind_of
from pipelines.training.weights import base_name, load_tokenizer

NOT_IN_THE_RESULT = ("base", "sft", "dpo1", "dpo2", "max_failures", "keep_checkpoints", "placement", "cpus_per_worker")
"""Training settings that leave this adapter as it is: other stages', and how faults are borne."""


def stage_name(model: ModelName, stage: StageName) -> str:
    """Name of this stage in manifests."""
    return f"train/{model}/{stage}"


def depends(settings: Settings, model: ModelName, stage: StageName) -> dict[str, Any]:
    """The settings that the adapter depends on."""
    own: StageSettings = getattr(settings.training, stage)
    return {
        "model": model,
        "stage": stage,
        "revision": settings.model.revision,
        "attention": settings.model.attention,
        "seed": settings.seed,
        "own": own.model_dump(mode="json"),
        "training": in_the_result(settings.training),
    }


def in_the_result(training: TrainingSettings, *others: str) -> dict[str, Any]:
    """The training settings that weights depend on; ``others`` do not matter besides."""
    kept = training.model_dump(mode="json", exclude={*NOT_IN_THE_RESULT, *others})
    return {**kept, "workers": training.most_workers}  # a step's rows; how many workers share them is no matter


def build(
    settings: Settings, inputs: Mapping[str, Input], output: Path, *, model: ModelName, stage: StageName
) -> Manifest:
    """Train one adapter from ``inputs`` "tokens", "base" and, after SFT, "start" and "reference".

    "start" is the adapter before, "reference" what ``reference.py`` computed of it. Raises
    StageOrderError where an input is not complete or the reference is that of something else,
    ModelNotFound or ConfigError for a base that cannot be used, TrainingError where training fails.
    """
    if stage != "sft":
        if "start" not in inputs:
            raise StageOrderError(
                f"{stage} continues an adapter: run `llumi train CONFIG --model {model} --stage sft` first"
            )
        reference.check(settings, inputs, model, stage)
    name, needed, prints = stage_name(model, stage), depends(settings, model, stage), fingerprints(inputs)
    plan = plan_of(settings, inputs, output, model, stage, key_of(name, needed, prints))
    load_tokenizer(plan.base, plan.revision)
    with writing(output, stage=name, settings=needed, inputs=prints, resolved=to_yaml(settings)) as draft:
        summary = fit(plan.into(draft.path))
        describe(draft, plan, model, stage, needed, prints, summary)
    assert draft.manifest is not None
    return draft.manifest


def plan_of(
    settings: Settings, inputs: Mapping[str, Input], output: Path, model: ModelName, stage: StageName, key: str
) -> Plan:
    """The run's plan, named by stage and key so that a second start finds the first one's checkpoints."""
    name = f"{model}-{stage}-{key[:12]}"
    start = scored = None
    if stage != "sft":
        start, scored = (str(Path(str(inputs[name])).resolve()) for name in ("start", "reference"))
    return Plan(
        name=name,
        task="sft" if kind_of(stage) == "sft" else "dpo",
        tokens=str(Path(str(inputs["tokens"])).resolve()),
        reference=scored,
        base=base_name(inputs["base"]),
        revision=settings.model.revision,
        start=start,
        output=str(output.resolve()),
        storage=str((Layout(Path(settings.output)).checkpoints / name).resolve()),
        attention=settings.model.attention,
        stage=getattr(settings.training, stage),
        training=settings.training,
        seed=settings.seed,
    )


def describe(
    draft: Draft,
    plan: Plan,
    model: ModelName,
    stage: StageName,
    settings: Mapping[str, Any],
    inputs: Mapping[str, str],
    summary: Mapping[str, Any],
) -> None:
    """Figures into the manifest, and the model card beside the weights."""
    last = curves.last_values(curves.load(draft.path))
    draft.figures |= {**summary, "last": last}
    tokenised = require(Path(plan.tokens), f"llumi train CONFIG --model {model} --stage {stage}")
    draft.rows |= {split: RowCount(read=count.kept, kept=count.kept) for split, count in tokenised.rows.items()}
    text = card(
        model=model,
        stage=stage,
        base=portable_name(plan.base),
        key=key_of(stage_name(model, stage), settings, inputs),
        inputs=inputs,
        settings=settings,
        figures=last,
    )
    (draft.path / "README.md").write_text(text, encoding="utf-8")
