"""Two models over one base in one process: its weights are in memory once, an adapter's are the model's own.

Continuous batching has one set of weights a forward pass, so requests of two adapters never share a
batch: each adapter gets a skeleton of the model whose parameters *are* the base's tensors, with the
adapter's small matrices beside them, and an engine with a loop and a cache of its own. That halves
the weights and not the work; where most memory is cache, two deployments cost little more and scale apart.
"""

import copy
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from threading import Lock
from typing import Any

from configs.errors import ModelNotFound, UsageError
from configs.serving import EngineSettings
from pipelines.generation.engine import Engine
from pipelines.generation.loaded import LoadedModel, end_ids
from pipelines.generation.transformers_engine import TransformersEngine
from pipelines.training.weights import ADAPTER_CONFIG, base_name, is_whole_model, load_model, load_tokenizer


def shared(base: str, adapters: Mapping[str, Path], engine: EngineSettings, *, gpu: bool) -> dict[str, Engine]:
    """An engine for each adapter, all over one copy of ``base``; raises UsageError, ModelNotFound when started."""
    weights = SharedBase(base, gpu=gpu)
    return {
        name: TransformersEngine(base, adapter, engine, gpu=gpu, loader=partial(weights.with_adapter, adapter))
        for name, adapter in adapters.items()
    }


class SharedBase:
    """The base's weights, loaded when the first model asks for them."""

    def __init__(self, base: str, *, gpu: bool):
        self.base, self.gpu = base_name(base), gpu
        self._model: Any = None
        self._lock = Lock()

    def with_adapter(self, adapter: Path) -> LoadedModel:
        """The base with an adapter on it, whose parameters are those of every other such model."""
        if is_whole_model(adapter):
            raise UsageError(f"{adapter} is a whole model, so it shares no base: set serving.topology.kind to separate")
        if not (adapter / ADAPTER_CONFIG).is_file():
            raise ModelNotFound(f"{adapter} holds no adapter: {ADAPTER_CONFIG} is not there")
        model = skeleton(self._loaded())
        model.load_adapter(str(adapter))
        tokenizer = load_tokenizer(self.base)
        return LoadedModel(
            model=model.to("cuda" if self.gpu else "cpu").eval(),
            tokenizer=tokenizer,
            end_ids=end_ids(model.generation_config, tokenizer),
            pad_id=tokenizer.pad_token_id,
            positions=getattr(model.config, "max_position_embeddings", None) or 2**31,
        )

    def _loaded(self) -> Any:
        with self._lock:
            if self._model is None:
                self._model = load_model(self.base, bf16=self.gpu).to("cuda" if self.gpu else "cpu")
            return self._model


def skeleton(model: Any) -> Any:
    """A copy of the modules of ``model`` that holds the very same parameters and buffers."""
    tensors = [*model.parameters(), *model.buffers()]
    return copy.deepcopy(model, {id(tensor): tensor for tensor in tensors})
