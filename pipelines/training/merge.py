"""Base and adapter become one model, which any server of Hugging Face folders can load.

Merging adds the adapter's product to the base's weights, so nothing may change but rounding:
before anything is written, the merged model must give the adapter's logits. It runs as a Ray
task, since the machine that drives a cluster need not have the memory for the weights.

Where full fine-tuning left a whole model there is nothing to merge: its files are linked, or
copied where the file system cannot. An adapter trained on 4 bits (QLoRA) is merged into the
base as it was published, not into what was left of it in 4 bits.
"""

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from configs.errors import TrainingError
from configs.load import to_yaml
from configs.settings import Settings
from configs.training import ModelName
from pipelines import pools
from pipelines.manifest import Input, Manifest, fingerprints, key_of, writing
from pipelines.training import artefacts, provenance
from pipelines.training.card import card
from pipelines.training.plan import portable_name
from pipelines.training.weights import base_name, is_whole_model, load_model, load_tokenizer

TOLERANCE = {"float32": 1e-4, "bfloat16": 5e-2}
"""Largest difference of a logit, relative to the largest logit, by the weights' precision."""
WEIGHTS = ".safetensors"
"""What may be linked: all else is small, and some of it is written again in place."""
PROBE_ROWS, PROBE_TOKENS = 4, 64


def stage_name(model: ModelName) -> str:
    """Name of this stage in manifests."""
    return f"merge/{model}"


def depends(settings: Settings, model: ModelName) -> dict[str, Any]:
    """The settings that the merged model depends on."""
    return {"model": model, "revision": settings.model.revision, "bf16": settings.training.bf16}


def build(settings: Settings, inputs: Mapping[str, Input], output: Path, *, model: ModelName) -> Manifest:
    """Merge ``inputs`` "adapter" into "base"; writes weights, tokenizer, generation settings and card.

    Raises TrainingError with both numbers where the merged model answers differently.
    """
    import ray

    base, adapter = base_name(inputs["base"]), Path(str(inputs["adapter"])).resolve()
    name, needed, prints = stage_name(model), depends(settings, model), fingerprints(inputs)
    with writing(output, stage=name, settings=needed, inputs=prints, resolved=to_yaml(settings)) as draft:
        task = ray.remote(num_cpus=1, max_retries=1, label_selector=pools.selector(settings, "data"))(merge)
        target = str(draft.path.resolve())
        difference, allowed = ray.get(
            task.remote(base, str(adapter), target, settings.model.revision, settings.training.bf16)
        )
        if difference > allowed:
            raise TrainingError(
                f"merging {model} changed its answers: a logit differs by {difference:.2e}, at most {allowed:.0e} is "
                "rounding; train the adapter again on this base"
            )
        draft.figures["largest_logit_difference"] = difference
        last = provenance.last_figures(adapter)
        artefacts.write_generation(draft.path, settings.generation)
        text = card(
            model=model,
            stage=adapter.name,
            base=portable_name(base),
            key=key_of(name, needed, prints),
            inputs=prints,
            settings=needed,
            figures={**last, **draft.figures},
            merged=True,
            about=provenance.about(settings, model, adapter.name, inputs, prints, last),
        )
        (draft.path / "README.md").write_text(text, encoding="utf-8")
    assert draft.manifest is not None
    return draft.manifest


def merge(base: str, adapter: str, target: str, revision: str | None, bf16: bool) -> tuple[float, float]:
    """Merge into ``target``; returns the largest relative difference of a logit, and the largest allowed.

    Nothing is written where the difference is not allowed.
    """
    if is_whole_model(Path(adapter)):
        take(Path(adapter), Path(target))
        return 0.0, 0.0
    import torch
    from peft import PeftModel

    tokenizer = load_tokenizer(base, revision)
    model = PeftModel.from_pretrained(load_model(base, revision, bf16=bf16), adapter).eval()
    generator = torch.Generator().manual_seed(0)
    probe = torch.randint(len(tokenizer), (PROBE_ROWS, PROBE_TOKENS), generator=generator)
    with torch.no_grad():
        before = model(input_ids=probe).logits.float()
        merged = model.merge_and_unload(safe_merge=True)
        after = merged(input_ids=probe).logits.float()
    difference = float((after - before).abs().max() / before.abs().max().clamp(min=1))
    allowed = TOLERANCE["bfloat16" if bf16 else "float32"]
    if difference <= allowed:
        merged.save_pretrained(target)
        tokenizer.save_pretrained(target)
        merged.generation_config.save_pretrained(target)
    return difference, allowed


def take(whole: Path, target: Path) -> None:
    """The files of a whole model into ``target``, without copying weights where the disk is the same."""
    target.mkdir(parents=True, exist_ok=True)
    for file in artefacts.loadable(whole):
        if file.suffix != WEIGHTS or not linked(file, target / file.name):
            shutil.copy2(file, target / file.name)


def linked(file: Path, name: Path) -> bool:
    """Give ``file`` a second name; False on another disk, or a file system without links."""
    try:
        os.link(file, name)
    except OSError:
        return False
    return True
