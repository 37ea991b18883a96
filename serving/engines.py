"""Which engine a replica runs, decided here and nowhere else: what serves a request only knows the protocol.

Separate models are merged ones, each in its own engine. Where they share a base, its weights are in
memory once: with vLLM one engine holds it and an adapter is named a request; the transformers engine
cannot mix adapters in one batch, so each model gets an engine of its own over the same base tensors.
"""

from collections.abc import Mapping
from pathlib import Path

from configs.serving import EngineSettings
from pipelines.generation.engine import Engine


def made(models: Mapping[str, str], base: str | None, engine: EngineSettings, *, gpu: bool) -> dict[str, Engine]:
    """An engine for each model, not started.

    ``models`` are folders of merged models, or with a ``base`` those of their adapters.
    """
    if base is None:
        return {name: one(folder, None, engine, gpu=gpu) for name, folder in models.items()}
    if len(models) == 1:
        return {name: one(base, Path(folder), engine, gpu=gpu) for name, folder in models.items()}
    adapters = {name: Path(folder) for name, folder in models.items()}
    if engine.kind == "vllm":
        from pipelines.generation.vllm_engine import shared as shared_by_vllm

        return shared_by_vllm(base, adapters, engine)
    from pipelines.generation.shared import shared

    return shared(base, adapters, engine, gpu=gpu)


def one(model: str, adapter: Path | None, engine: EngineSettings, *, gpu: bool) -> Engine:
    """One model's engine."""
    if engine.kind == "vllm":
        from pipelines.generation.vllm_engine import VllmEngine

        return VllmEngine(model, adapter, engine)
    from pipelines.generation.transformers_engine import TransformersEngine

    return TransformersEngine(model, adapter, engine, gpu=gpu)
