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
from pipelines.training import artefacts, curves, devices, fitting, modes, provenance, reference, tokens, vllm_rules
from pipelines.training.card import card
from pipelines.training.fit import fit
from pipelines.training.plan import Plan, portable_name
from pipelines.training.planner import check as planner
from pipelines.training.readiness import ready
from pipelines.training.weights import base_name, is_whole_model, load_tokenizer

BEFORE: dict[StageName, StageName] = {"dpo1": "sft", "dpo2": "dpo1"}
"""The stage that each continues."""
OTHER_STAGES = ("base", "sft", "dpo1", "dpo2")
FAULTS = ("memory_check", "max_failures", "keep_checkpoints", "upload", "divergence")
REPORTS = ("report_to", "mlflow_uri", "wandb_online")
NOT_IN_THE_RESULT = (*OTHER_STAGES, *FAULTS, *REPORTS, "placement", "interface", "cpus_per_worker", "offload", "ingest")
"""Training settings that leave this adapter as it is: other stages', how faults are borne, where memory is found."""


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

    "start" is the adapter (or whole model) before, "reference" what ``reference.py`` computed of it. Raises
    ConfigError for a mode that these machines cannot run, StageOrderError where an input is not complete or is
    that of something else, ModelNotFound or ConfigError for a base that cannot be used, TrainingError where
    training fails.
    """
    modes.check(settings, devices.look(settings))
    fitting.check_targets(settings, base_name(inputs["base"]))
    if stage != "sft":
        if "start" not in inputs:
            raise StageOrderError(
                f"{stage} continues an adapter: run `llumi train CONFIG --model {model} --stage sft` first"
            )
        fitting.check_start(settings, inputs, f"llumi train CONFIG --model {model} --stage {BEFORE[stage]}")
        reference.check(settings, inputs, model, stage)
    name, needed, prints = stage_name(model, stage), depends(settings, model, stage), fingerprints(inputs)
    plan = plan_of(settings, inputs, output, model, stage, key_of(name, needed, prints))
    plan = ready(plan, stage, require(Path(plan.tokens), f"llumi train CONFIG --model {model} --stage {stage}").rows)
    load_tokenizer(plan.base, plan.revision)
    planner.check(settings, model, stage, plan.base)
    tokens.check(Path(plan.tokens), plan.base, plan.revision, f"llumi train CONFIG --model {model} --stage {stage}")
    with writing(output, stage=name, settings=needed, inputs=prints, resolved=to_yaml(settings)) as draft:
        summary = fit(plan.into(draft.path))
        describe(draft, plan, model, stage, summary)
        artefacts.write_generation(draft.path, settings.generation)
        write_card(draft, plan, settings, inputs, model, stage)
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
        task="sft" if tokens.kind_of(stage) == "sft" else "dpo",
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
        kernels=settings.model.use_kernels,
        logs=str(Layout(Path(settings.output)).logs.resolve()),
        selector=settings.cluster.pools.selector("training"),
    )


def describe(
    draft: Draft,
    plan: Plan,
    model: ModelName,
    stage: StageName,
    summary: Mapping[str, Any],
) -> None:
    """Figures and row counts into the manifest."""
    last = curves.last_values(curves.load(draft.path), until=summary.get("exported_step"))
    draft.figures |= {**summary, "last": last}
    if plan.label_noise is not None:
        draft.figures["label_noise"] = plan.label_noise
    tokenised = require(Path(plan.tokens), f"llumi train CONFIG --model {model} --stage {stage}")
    draft.rows |= {split: RowCount(read=count.kept, kept=count.kept) for split, count in tokenised.rows.items()}


def write_card(
    draft: Draft, plan: Plan, settings: Settings, inputs: Mapping[str, Input], model: ModelName, stage: StageName
) -> None:
    """The model card beside the weights; ``llumi export`` writes it again once an evaluation has measured them."""
    needed, prints, last = depends(settings, model, stage), fingerprints(inputs), draft.figures["last"]
    text = card(
        model=model,
        stage=stage,
        base=portable_name(plan.base),
        key=key_of(stage_name(model, stage), needed, prints),
        inputs=prints,
        settings=needed,
        figures=last,
        whole=is_whole_model(draft.path),
        rank=vllm_rules.rank_of(draft.path),
        about=provenance.about(settings, model, stage, inputs, prints, last),
    )
    (draft.path / "README.md").write_text(text, encoding="utf-8")
