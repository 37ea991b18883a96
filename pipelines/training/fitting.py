"""Whether an adapter fits its base, read from the files' headers before any worker loads weights.

Names and shapes of a base are in its safetensors headers, in the index that lies beside them in
Hugging Face's cache, or, where neither is at hand, in a model that is made of its configuration
without memory for its weights. PEFT itself would refuse a target that matches no layer only
where none matches, on every worker, after the weights; and an adapter of another base with the
same shapes it never refuses.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from configs.errors import ConfigError, ModelNotFound, StageOrderError
from configs.settings import Settings
from pipelines import manifest
from pipelines.manifest import Input
from pipelines.training.plan import portable_name
from pipelines.training.weights import ADAPTER_CONFIG, CONFIG, base_name, first_line, header, is_whole_model

Shapes = dict[str, tuple[int, ...]]
"""Shape of each weight by its name without ``.weight``; that of a linear layer is (outputs, inputs)."""
PEFT_PREFIX = "base_model.model."
LORA_A, LORA_B = ".lora_A.weight", ".lora_B.weight"


def check_targets(settings: Settings, base: str) -> None:
    """Raises ConfigError naming each of ``training.lora.targets`` that is no layer of ``base``."""
    if settings.training.mode == "full":
        return
    layers = {name for name, shape in shapes(base, settings.model.revision).items() if len(shape) == 2}
    missing = [target for target in settings.training.lora.targets if not matched(target, layers)]
    if missing:
        known = sorted({name.rpartition(".")[2] for name in layers if not name.isdigit()})
        raise ConfigError(
            f"training.lora.targets: {', '.join(missing)} match no linear layer of {portable_name(base)}; "
            f"it has {', '.join(known)}"
        )


def matched(target: str, layers: set[str]) -> bool:
    """Whether a target names a layer, as PEFT reads a list of them: the whole name, or the end of it after a dot."""
    return any(layer == target or layer.endswith(f".{target}") for layer in layers)


def check_start(settings: Settings, inputs: Mapping[str, Input], command: str) -> None:
    """Refuse ``inputs["start"]`` unless it is what this mode continues, made on ``inputs["base"]``.

    ``command`` makes the stage before. Raises StageOrderError naming what differs.
    """
    start, base = Path(str(inputs["start"])), base_name(inputs["base"])
    if not any((start / name).is_file() for name in (CONFIG, ADAPTER_CONFIG)):
        raise StageOrderError(f"{start} holds no model and no adapter: run `{command}` first")
    full, whole = settings.training.mode == "full", is_whole_model(start)
    if full != whole:
        held = "a whole model (training.mode: full)" if whole else "an adapter (training.mode: lora or qlora)"
        raise StageOrderError(
            f"{start} holds {held} and training.mode is {settings.training.mode}: set the mode that it was trained "
            f"in, or run `{command}`"
        )
    if reason := other_base(settings, inputs, start) or ("" if whole else misfit(start, base, settings)):
        raise StageOrderError(f"{start} was trained on another base: {reason}; run `{command}`")


def other_base(settings: Settings, inputs: Mapping[str, Input], start: Path) -> str:
    """What says that ``start`` was made on another base, empty where nothing does."""
    made = manifest.read(start)
    if made is None or "base" not in made.inputs:
        return ""
    if made.inputs["base"] != manifest.fingerprint(inputs["base"]):
        return f"{inputs['base']} was made again since, or model.base is another"
    if made.settings.get("revision") != settings.model.revision:
        return f"its revision was {made.settings.get('revision')}, model.revision is {settings.model.revision}"
    return ""


def misfit(adapter: Path, base: str, settings: Settings) -> str:
    """The first layer of the adapter that the base has not, or has in other sizes; empty where all fit."""
    has = shapes(base, settings.model.revision)
    for layer, sizes in layers_of(adapter).items():
        if layer not in has:
            return f"{layer} is no layer of {portable_name(base)}"
        if has[layer] != sizes:
            return f"{layer} is {by(sizes)} in the adapter and {by(has[layer])} in {portable_name(base)}"
    return ""


def layers_of(adapter: Path) -> Shapes:
    """The layers that a LoRA adapter changes, with their shapes, from its factors': B (outputs, r), A (r, inputs)."""
    factors: Shapes = {}
    for file in sorted(adapter.glob("*.safetensors")):
        factors |= {name: tuple(tensor["shape"]) for name, tensor in tensors(file)}
    found: Shapes = {}
    for name, shape in factors.items():
        if name.endswith(LORA_A):
            layer = name.removesuffix(LORA_A)
            found[layer.removeprefix(PEFT_PREFIX)] = (factors[layer + LORA_B][0], shape[1])
    return found


def shapes(base: str, revision: str | None = None) -> Shapes:
    """Shapes of a base's weights; reads no weights. Raises ModelNotFound where the base cannot be found."""
    files = files_of(base, revision)
    if files:
        return {name.removesuffix(".weight"): tuple(t["shape"]) for file in files for name, t in tensors(file)}
    return of_configuration(base, revision)


def files_of(base: str, revision: str | None) -> list[Path]:
    """The safetensors files of a folder, or of a name in Hugging Face's cache; empty where not all are at hand."""
    if Path(base).is_dir():
        return sorted(Path(base).glob("*.safetensors"))
    from huggingface_hub import try_to_load_from_cache

    def cached(name: str) -> Path | None:
        found = try_to_load_from_cache(base, name, revision=revision)
        return Path(found) if isinstance(found, str) else None

    names = ["model.safetensors"]
    if index := cached("model.safetensors.index.json"):
        names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
    paths = [cached(name) for name in names]
    return [path for path in paths if path] if all(paths) else []


def of_configuration(base: str, revision: str | None) -> Shapes:
    """Shapes of a model that is made of the base's configuration, on torch's ``meta`` device."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    try:
        config = AutoConfig.from_pretrained(base, revision=revision)
    except (OSError, ValueError) as error:
        raise ModelNotFound(f"model.base: {base} has no configuration that can be read: {first_line(error)}") from None
    with torch.device("meta"):
        model: Any = AutoModelForCausalLM.from_config(config)
    return {name.removesuffix(".weight"): tuple(weight.shape) for name, weight in model.named_parameters()}


def tensors(file: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Name and description of each tensor in a safetensors file."""
    with file.open("rb") as opened:
        described = json.loads(header(opened))
    yield from ((name, tensor) for name, tensor in described.items() if name != "__metadata__")


def by(shape: tuple[int, ...]) -> str:
    """A shape in words: ``4096 x 1024``."""
    return " x ".join(map(str, shape))
