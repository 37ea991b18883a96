"""Which engine a replica runs, decided here and nowhere else: what serves a request only knows the protocol.

Separate models are merged ones, each in its own engine. Where they share a base, its weights are in
memory once: with vLLM one engine holds it and an adapter is named a request; the transformers engine
cannot mix adapters in one batch, so each model gets an engine of its own over the same base tensors.
"""

from collections.abc import Mapping
from pathlib import Path

from configs.serving import EngineSettings, GenerationSettings
from pipelines.generation.engine import Engine


def made(
    models: Mapping[str, str], base: str | None, engine: EngineSettings, generation: GenerationSettings, *, gpu: bool
) -> dict[str, Engine]:
    """An engine for each model, not started.

    ``models`` are folders of merged models, or with a ``base`` those of their adapters.
    """
    if base is None:
        return {name: one(folder, None, engine, generation, gpu=gpu) for name, folder in models.items()}
    if len(models) == 1:
        return {name: one(base, Path(folder), engine, generation, gpu=gpu) for name, folder in models.items()}
    from pipelines.generation.shared import shared

    return shared(base, {name: Path(folder) for name, folder in models.items()}, engine, generation, gpu=gpu)


def one(
    model: str, adapter: Path | None, engine: EngineSettings, generation: GenerationSettings, *, gpu: bool
) -> Engine:
    """One model's engine."""
    from pipelines.generation.transformers_engine import TransformersEngine

    return TransformersEngine(model, adapter, engine, generation, gpu=gpu)
