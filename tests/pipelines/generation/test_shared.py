"""Two adapters over one base: each writes as it would alone, and the base's weights are there once."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from configs.errors import ModelNotFound, UsageError
from configs.serving import EngineSettings, GenerationSettings
from pipelines.generation.engine import Sampling, complete
from pipelines.generation.shared import SharedBase, shared
from pipelines.generation.transformers_engine import TransformersEngine
from tests.pipelines.generation.tiny import make

ENGINE = EngineSettings(pages=32, max_requests=4)
GENERATION = GenerationSettings(max_new_tokens=12, temperature=0)
PROMPT = [{"role": "user", "content": "I hear you, that sounds hard."}]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp("shared") / "base", endless=True)


@pytest.fixture(scope="module")
def adapters(base: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Two random adapters, strong enough to change what is written."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    found = {}
    for seed, name in enumerate(("gm", "im")):
        torch.manual_seed(seed)
        config = LoraConfig(r=4, lora_alpha=32, target_modules=["q_proj", "v_proj"], init_lora_weights=False)
        model = get_peft_model(AutoModelForCausalLM.from_pretrained(base), config)
        found[name] = tmp_path_factory.mktemp("adapter") / name
        model.save_pretrained(found[name])
    return found


@pytest.fixture(scope="module")
def texts(base: Path, adapters: dict[str, Path]) -> Iterator[tuple[dict[str, str], dict[str, str]]]:
    """What each adapter writes alone, and what both write at once over one base."""

    async def alone(adapter: Path) -> str:
        engine = TransformersEngine(str(base), adapter, ENGINE)
        await engine.start()
        piece = await complete(engine, "1", PROMPT, Sampling.of(GENERATION))
        await engine.stop()
        return piece.text

    async def together() -> dict[str, str]:
        engines = shared(str(base), adapters, ENGINE, gpu=False)
        for engine in engines.values():
            await engine.start()
        several = [(name, number) for number in range(3) for name in engines]
        pieces = await asyncio.gather(
            *(complete(engines[name], str(number), PROMPT, Sampling.of(GENERATION)) for name, number in several)
        )
        for engine in engines.values():
            await engine.stop()
        by_name: dict[str, set[str]] = {name: set() for name in engines}
        for (name, _), piece in zip(several, pieces, strict=True):
            by_name[name].add(piece.text)
        assert all(len(found) == 1 for found in by_name.values())
        return {name: found.pop() for name, found in by_name.items()}

    yield {name: asyncio.run(alone(folder)) for name, folder in adapters.items()}, asyncio.run(together())


def test_each_model_writes_what_it_writes_alone(texts: tuple[dict[str, str], dict[str, str]]) -> None:
    alone, together = texts
    assert together == alone
    assert together["gm"] != together["im"]


def test_the_base_is_in_memory_once(base: Path, adapters: dict[str, Path]) -> None:
    weights = SharedBase(str(base), gpu=False)
    gm, im = (dict(weights.with_adapter(folder).model.named_parameters()) for folder in adapters.values())
    same = {name for name in gm if gm[name].data_ptr() == im[name].data_ptr()}
    assert gm.keys() == im.keys()
    assert {name for name in gm if name not in same} == {name for name in gm if "lora_" in name}
    assert any("lora_" in name for name in gm)


def test_what_shares_no_base_is_named(base: Path, tmp_path: Path) -> None:
    weights = SharedBase(str(base), gpu=False)
    with pytest.raises(UsageError, match="separate"):
        weights.with_adapter(base)
    with pytest.raises(ModelNotFound, match="adapter"):
        weights.with_adapter(tmp_path)
