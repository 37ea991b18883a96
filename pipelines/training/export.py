"""What leaves a run: a model's folder as anybody may load it, without what is only of use here.

Only files that a server needs are taken, by name: settings name folders of this machine, reports
may show texts. The card is written again, since an evaluation may have measured the model after
it was trained, and so are the sampling settings. ``lineage.json`` says what the folder is, for
people and for the next export to the same place; ``SHA256SUMS`` is written last, so that where
it is, the export is whole. Where it goes is ``delivery``'s part.
"""

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from configs import prompts
from configs.errors import ConfigError, DataError, StageOrderError, UsageError
from configs.settings import Settings
from configs.training import SCRATCH, STAGES, ModelName, StageName
from pipelines import manifest
from pipelines.forgetting.trained import MARK
from pipelines.layout import Layout
from pipelines.manifest import Manifest
from pipelines.training import artefacts, provenance, vllm_rules
from pipelines.training.card import card
from pipelines.training.plan import portable_name
from pipelines.training.weights import is_whole_model

LINEAGE = "lineage.json"
WEIGHTS = ".safetensors"
FORMAT = 1
"""Version of ``lineage.json``."""
Form = Literal["merged", "adapter"]
FolderLayout = Literal["plain", "hub"]
GIT_ATTRIBUTES = "".join(
    f"{name} filter=lfs diff=lfs merge=lfs -text\n" for name in ("*.safetensors", "tokenizer.json")
)


@dataclass(frozen=True)
class Choice:
    """One model to export."""

    model: ModelName
    stage: StageName
    form: Form
    folder: Path
    made: Manifest


def choose(settings: Settings, model: ModelName, form: Form, stage: StageName | None, last: StageName) -> Choice:
    """The complete output of ``model`` after ``stage``, merged or as it was trained.

    Without a stage: what was merged, or the adapter after ``last``. Raises StageOrderError naming the
    command where it is not there, or where another adapter was merged than is meant or there now.
    """
    at = Layout(Path(settings.output))
    if form == "adapter":
        stage = stage or last
        folder = at.adapter(model, stage)
        made = manifest.require(folder, f"llumi train CONFIG --model {model} --stage {stage}")
        return Choice(model, stage, form, folder, made)
    folder, again = at.model(model), "llumi run CONFIG --until models"
    made = manifest.require(folder, again)
    found = merged_stage(at, model, made)
    if found is None and MARK not in made.figures:
        raise StageOrderError(f"{folder} was merged from another adapter than is there now: run `{again}`")
    merged = found or last  # marking a model as trained on forgotten rows changes its fingerprint
    later = [name for name in STAGES[STAGES.index(merged) + 1 :] if (at.adapter(model, name) / manifest.FILE).is_file()]
    if stage is not None and stage != merged:
        raise StageOrderError(f"{folder} was merged after {merged}, not after {stage}: give --stage {stage} --adapter")
    if stage is None and later:
        raise StageOrderError(
            f"{folder} was merged after {merged}, and {later[-1]} was trained since: run `{again}`, or give "
            f"--stage {merged} --merged"
        )
    return Choice(model, merged, form, folder, made)


def merged_stage(at: Layout, model: str, made: Manifest) -> StageName | None:
    """The stage whose adapter the model was merged from, None where that adapter is no more."""
    complete = (stage for stage in STAGES if (at.adapter(model, stage) / manifest.FILE).is_file())
    prints = {manifest.fingerprint(at.adapter(model, stage)): stage for stage in complete}
    return prints.get(made.inputs["adapter"])


def prepare(
    choice: Choice, settings: Settings, work: Path, layout: FolderLayout, *, forgotten: bool
) -> dict[str, Path]:
    """The files of the export by name: those that are copied as they are, and those written into ``work``.

    ``forgotten`` lets a model pass that removed rows went into. Raises UsageError where it did and
    may not, DataError where files are not those that were written, ConfigError where vLLM could
    not load an adapter.
    """
    at, folder = Layout(Path(settings.output)), choice.folder
    about = about_of(choice, settings, at)
    check_whole(choice)
    check_forgotten(choice, about, allowed=forgotten)
    if is_adapter := not is_whole_model(folder):
        check_vllm(choice)
    work.mkdir(parents=True)
    files = {file.name: file for file in artefacts.loadable(folder)}
    for name, file in files.items():
        if file.suffix != WEIGHTS:
            files[name] = Path(shutil.copyfile(file, work / name))
    artefacts.write_generation(work, settings.generation)
    texts = {"README.md": card_of(choice, settings, about), LINEAGE: dump(identity(choice, settings, about))}
    if wording := prompt_of(choice, settings, about):
        texts["prompt.md"] = wording
    if layout == "hub":
        texts |= {".gitattributes": GIT_ATTRIBUTES, "LICENSE": licence(choice, settings, about, is_adapter)}
    for name, text in texts.items():
        (work / name).write_text(text, encoding="utf-8")
    return files | {name: work / name for name in (artefacts.GENERATION_CONFIG, *texts)}


def about_of(choice: Choice, settings: Settings, at: Layout) -> provenance.About:
    """What is known of the model, measured by the evaluation stage where that is made."""
    adapter = at.adapter(choice.model, choice.stage)
    complete = adapter if (adapter / manifest.FILE).is_file() else None
    last = provenance.last_figures(adapter)
    inputs = {} if complete is None else {"adapter": complete}
    return provenance.about(
        settings, choice.model, choice.stage, inputs, choice.made.inputs, last, made=choice.made, adapter=complete
    )


def check_whole(choice: Choice) -> None:
    """Raises DataError where a file has another size than when it was made, or is gone."""
    now = manifest.sizes(choice.folder)
    wanted = {name: size for name, size in choice.made.files.items() if name.endswith((".safetensors", ".json"))}
    for name, size in wanted.items():
        if now.get(name) != size:
            raise DataError(f"{choice.folder / name} has {now.get(name, 0)} bytes, {size} were written; make it again")


def check_forgotten(choice: Choice, about: provenance.About, *, allowed: bool) -> None:
    """Raises UsageError where rows that were forgotten since went into the model, unless that is ``allowed``."""
    marked = [name for name, made in {choice.made.stage: choice.made, **about.sources}.items() if MARK in made.figures]
    if marked and not allowed:
        raise UsageError(
            f"{choice.folder} was trained on rows that were forgotten since ({', '.join(marked)}): `llumi run CONFIG` "
            "trains it again; --forgotten exports it all the same"
        )


def check_vllm(choice: Choice) -> None:
    """Raises ConfigError naming each reason for which vLLM could not load the adapter."""
    if found := vllm_rules.violations(choice.folder):
        raise ConfigError(
            f"vLLM {vllm_rules.VLLM} cannot load the adapter {choice.folder}: {'; '.join(found)}; export it --merged"
        )


def card_of(choice: Choice, settings: Settings, about: provenance.About) -> str:
    """The model card, with what is known by now."""
    adapter = Layout(Path(settings.output)).adapter(choice.model, choice.stage)
    return card(
        model=choice.model,
        stage=choice.stage,
        base=base_of(settings),
        key=choice.made.key,
        inputs=choice.made.inputs,
        settings=choice.made.settings,
        figures=provenance.last_figures(adapter),
        merged=choice.form == "merged",
        whole=is_whole_model(choice.folder),
        rank=vllm_rules.rank_of(choice.folder),
        about=about,
    )


def base_of(settings: Settings) -> str:
    """The base's name as it is known elsewhere."""
    base = settings.model.base
    folder = Path(base).expanduser()
    if base == SCRATCH:
        return "base"
    return portable_name(str(folder.absolute())) if folder.is_dir() or base.startswith((".", "/", "~")) else base


def identity(choice: Choice, settings: Settings, about: provenance.About) -> dict[str, Any]:
    """What the folder is: model, stage and form, the keys of all it was made from, and how well it does."""
    return {
        "llumi_export": FORMAT,
        "model": choice.model,
        "stage": choice.stage,
        "form": choice.form,
        "base": {"name": base_of(settings), "revision": settings.model.revision},
        "manifest": summary(choice.made),
        "made_from": {name: summary(made) for name, made in about.sources.items()},
        "not_there_any_more": list(about.missing),
        "trained_on_forgotten": MARK in choice.made.figures,
        "metrics": {"measured_by": about.measured, "figures": [vars(metric) for metric in about.metrics]},
    }


def summary(made: Manifest) -> dict[str, str]:
    """One manifest in a line."""
    return {name: getattr(made, name) for name in ("key", "code", "version", "created")}


def prompt_of(choice: Choice, settings: Settings, about: provenance.About) -> str | None:
    """The template that the model's prompts were worded by; None where another one is set by now."""
    name = getattr(settings.prompts, choice.model)
    for made in about.sources.values():
        used = made.settings.get("prompts")
        known = used.get(choice.model) if isinstance(used, Mapping) else None
        if isinstance(known, str):
            return prompts.source(name) if prompts.fingerprint(name) == known else None
    return prompts.source(name)


def licence(choice: Choice, settings: Settings, about: provenance.About, is_adapter: bool) -> str:
    """What is known of the terms; whoever publishes the folder has to put their own in its place."""
    what = "adapter" if is_adapter else "model"
    data = about.licence or "no licence was named for it (card.licence), so the terms of its source apply"
    if about.simulated:
        data = "it is simulated, and under Apache-2.0 as LLUMI is"
    return (
        f"This {what} was made by LLUMI, whose code is under Apache-2.0. That covers the code only.\n\n"
        f"Base model: {base_of(settings)}. Its licence applies to everything made from its weights.\n"
        f"Data: {data}.\n\n"
        "Read the section Intended use of README.md before you pass this on.\n"
    )


def dump(value: Mapping[str, Any]) -> str:
    """JSON as it is written to files."""
    return json.dumps(value, indent=1, sort_keys=True) + "\n"
