"""What is known of the vLLM engine where it cannot run, and where it can what one AsyncLLM of two adapters does."""

import asyncio
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from pydantic import ValidationError

from configs.errors import EngineError, ModelNotFound, UsageError
from configs.serving import EngineSettings, ServingSettings
from configs.topology import DeploymentSettings
from pipelines.generation import vllm_core, vllm_engine
from pipelines.generation.engine import Engine, Sampling, complete
from pipelines.generation.vllm_core import Core
from pipelines.generation.vllm_engine import VllmEngine
from tests.pipelines.generation import references
from tests.pipelines.generation.engines import PAGES, PROMPTS, prompt, run

CANNOT = vllm_core.why_not()


@pytest.mark.skipif(CANNOT is None, reason="vLLM runs here")
def test_where_it_cannot_run_it_refuses_with_the_reason(tiny_model: Path) -> None:
    engine = VllmEngine(str(tiny_model), None, PAGES)
    assert isinstance(engine, Engine)
    with pytest.raises(EngineError, match=r"pip install|CUDA device"):
        asyncio.run(engine.start())
    assert not engine.healthy()
    asyncio.run(engine.stop())


def test_a_service_of_vllm_without_gpus_is_refused_before_it_starts() -> None:
    engine = EngineSettings(kind="vllm")
    with pytest.raises(ValidationError, match=r"serving\.im\.gpus"):
        ServingSettings(engine=engine, gm=DeploymentSettings(gpus=1))
    ServingSettings(engine=engine, gm=DeploymentSettings(gpus=1), im=DeploymentSettings(gpus=0.5))


def test_it_is_started_with_what_the_settings_say(tmp_path: Path) -> None:
    settings = EngineSettings(pages=64, page_size=32, max_requests=48, max_batch_tokens=4096, gpu_memory=0.4)
    for name, found in (("gm", 16), ("im", 20)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "adapter_config.json").write_text(json.dumps({"r": found}))
    plain = Core("base", [], settings).arguments()
    assert (plain["max_model_len"], plain["max_num_seqs"], plain["max_num_batched_tokens"]) == (2048, 48, 4096)
    assert plain["gpu_memory_utilization"] == 0.4
    assert not plain["enable_log_requests"]
    assert "enable_lora" not in plain
    adapted = Core("base", [tmp_path / "gm", tmp_path / "im"], settings).arguments()
    assert (adapted["enable_lora"], adapted["max_loras"], adapted["max_lora_rank"]) == (True, 2, 32)


def test_an_adapter_that_vllm_cannot_hold_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFound, match="holds no adapter"):
        vllm_core.rank(tmp_path)
    with pytest.raises(EngineError, match=r"600.*512"):
        vllm_core.smallest_rank(600)


def test_a_whole_model_is_no_adapter_of_a_shared_base(tiny_model: Path) -> None:
    with pytest.raises(UsageError, match=r"topology\.kind"):
        vllm_engine.shared("base", {"gm": tiny_model}, PAGES)


def completion(finish_reason: str | None = None, **changes: Any) -> SimpleNamespace:
    """What vLLM gives of one step."""
    return SimpleNamespace(**{"token_ids": (5, 7), "logprobs": None, "finish_reason": finish_reason} | changes)


def test_an_output_gives_its_tokens_and_the_log_probabilities_of_those_chosen() -> None:
    found = [{5: SimpleNamespace(logprob=-0.5), 9: SimpleNamespace(logprob=-0.1)}, {7: SimpleNamespace(logprob=-2.0)}]
    assert vllm_engine.step(completion(logprobs=found)) == ([5, 7], [-0.5, -2.0])
    assert [vllm_engine.step(completion(reason)) for reason in (None, "stop", "length")] == [([5, 7], [])] * 3


@pytest.mark.parametrize("reason", ["abort", "error"])
def test_a_request_that_vllm_gave_up_is_no_answer_that_ended(reason: str) -> None:
    with pytest.raises(EngineError, match=f"gave the request up .{reason}"):
        vllm_engine.step(completion(reason))


@pytest.mark.skipif(CANNOT is not None, reason=str(CANNOT))
def test_what_vllm_refuses_is_an_error_at_once_and_the_engine_lives_on(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = vllm_engine.arguments

    async def test() -> None:
        engine = VllmEngine(str(tiny_model), None, PAGES, dtype="float32")
        await engine.start()
        monkeypatch.setattr(vllm_engine, "arguments", lambda *of: given(*of) | {"top_p": 5.0})
        with pytest.raises(EngineError, match="vLLM failed on this request"):
            await complete(engine, "r", prompt("Hi"), Sampling(4))
        monkeypatch.setattr(vllm_engine, "arguments", given)
        assert (await complete(engine, "r", prompt("Hi"), Sampling(4, seed=-1))).usage.new_tokens == 4
        await engine.stop()

    run(test)


@pytest.mark.skipif(CANNOT is not None, reason=str(CANNOT))
def test_two_adapters_write_in_one_batch_of_one_base(tiny_model: Path, tiny_adapter: Path, other_adapter: Path) -> None:
    async def test() -> None:
        adapters = [tiny_adapter, other_adapter]
        core = Core(str(tiny_model), adapters, PAGES, dtype="float32")
        first, second = (VllmEngine(str(tiny_model), which, PAGES, core=core) for which in adapters)
        for engine in (first, second):
            await engine.start()
        greedy = Sampling(12, temperature=0.0)
        pieces = await asyncio.gather(
            *(complete(engine, "r", prompt(PROMPTS[1]), greedy) for engine in (first, second))
        )
        for piece, adapter in zip(pieces, adapters, strict=True):
            assert piece.text == references.greedy(tiny_model, PROMPTS[1], 12, adapter)[0]
        assert pieces[0].text != pieces[1].text
        await first.stop()
        assert second.healthy()
        await second.stop()

    run(test)
