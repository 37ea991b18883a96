"""What only continuous batching can get wrong; the contract itself is in test_contract.py."""

import asyncio
import logging
from pathlib import Path

import pytest

from configs.errors import EngineError, ModelNotFound
from configs.serving import EngineSettings
from pipelines.generation import ragged
from pipelines.generation.engine import Sampling, complete
from pipelines.generation.transformers_engine import TransformersEngine
from tests.pipelines.generation import references
from tests.pipelines.generation.engines import PAGES, PROMPTS, prompt, run, until

ENDLESS = Sampling(230, temperature=0.0)
LONG = " ".join(PROMPTS[1] for _ in range(4))


def test_a_loop_that_ends_fails_the_health_check_and_what_comes_after(tiny_model: Path) -> None:
    async def test() -> None:
        engine = TransformersEngine(str(tiny_model), None, PAGES)
        await engine.start()
        # A prompt larger than the cache, past our own check, ends the loop for good.
        engine._manager.add_request([5] * 4000, request_id="poison", max_new_tokens=4)
        await until(lambda: not engine.healthy())
        with pytest.raises(EngineError, match="not running"):
            await complete(engine, "n", prompt("Hi"), ENDLESS)
        await engine.stop()

    run(test)


def test_a_loop_that_fails_takes_no_request_into_silence(tiny_model: Path) -> None:
    async def test() -> None:
        import torch

        engine = TransformersEngine(str(tiny_model), None, PAGES)
        await engine.start()
        waiting = [asyncio.create_task(complete(engine, f"w{i}", prompt("Hi"), ENDLESS)) for i in range(12)]
        await until(lambda: engine.in_progress() == 12)
        engine._loaded.model.lm_head.weight.data = torch.zeros(3, 7)  # type: ignore[union-attr]
        for ended in await asyncio.gather(*waiting, return_exceptions=True):
            assert isinstance(ended, EngineError)
        assert not engine.healthy()
        await engine.stop()

    run(test)


def test_a_request_that_ended_leaves_nothing_behind(tiny_model: Path) -> None:
    async def test() -> None:
        engine = TransformersEngine(str(tiny_model), None, PAGES)
        await engine.start()
        for number in range(5):
            await complete(engine, f"a{number}", prompt("Hi"), Sampling(4))
            task = asyncio.create_task(complete(engine, f"b{number}", prompt("Hi"), ENDLESS))
            await until(lambda: engine.in_progress() == 1)
            task.cancel()
            await asyncio.wait([task])
        await until(lambda: engine.in_progress() == 0)
        await complete(engine, "last", prompt("Hi"), Sampling(4))  # what was on its way then goes with the next one
        router = engine._manager.output_router
        assert (engine._open, engine._sampler.drawings, router.result_handlers) == ({}, {}, {})
        assert router.output_queue.empty()
        await engine.stop()

    run(test)


def test_a_cancelled_request_is_written_no_further(tiny_model: Path) -> None:
    async def test() -> None:
        engine = TransformersEngine(str(tiny_model), None, PAGES)
        await engine.start()
        async for _ in engine.generate("r", prompt("Hi"), ENDLESS):
            (state,) = engine._manager.batch_processor.scheduler.active_requests.values()
            engine.cancel("r")
        await until(lambda: engine.in_progress() == 0)
        assert len(state.generated_tokens) < ENDLESS.max_new_tokens
        await engine.stop()

    run(test)


def test_a_model_that_is_not_there_is_named(tmp_path: Path) -> None:
    engine = TransformersEngine(str(tmp_path / "nowhere"), None, PAGES)
    with pytest.raises(ModelNotFound, match="nowhere"):
        asyncio.run(engine.start())


@pytest.mark.parametrize(
    "settings",
    [
        EngineSettings(page_size=16, pages=64, max_batch_tokens=16, max_requests=8),
        EngineSettings(page_size=32, pages=16, max_batch_tokens=512, max_requests=8),
        EngineSettings(page_size=16, pages=20, max_batch_tokens=64, max_requests=8),
    ],
    ids=["prompts read in parts", "prompts with a common beginning", "too few pages for all at once"],
)
def test_however_a_batch_is_put_together_each_answer_is_that_of_generate(
    settings: EngineSettings, tiny_model: Path
) -> None:
    texts = [LONG, f"{LONG} And now?", "Hi", PROMPTS[1], f"{LONG} Or then?", PROMPTS[2]]

    async def test() -> None:
        engine = TransformersEngine(str(tiny_model), None, settings)
        await engine.start()
        for _ in range(2):  # the second time, prompts may be in the cache
            pieces = await asyncio.gather(
                *(
                    complete(engine, f"r{i}", prompt(text), Sampling(30, temperature=0.0))
                    for i, text in enumerate(texts)
                )
            )
            for text, piece in zip(texts, pieces, strict=True):
                assert piece.text == references.greedy(tiny_model, text, 30)[0]
        await engine.stop()

    run(test)


def test_an_answer_that_lost_its_cache_goes_on_as_if_nothing_had_been(tiny_model: Path) -> None:
    async def test() -> None:
        engine = TransformersEngine(str(tiny_model), None, EngineSettings(page_size=16, pages=16, max_requests=8))
        await engine.start()
        kinds = [
            Sampling(120, temperature=1.4, top_p=0.98, seed=i, repetition_penalty=1.2, logprobs=True) for i in range(5)
        ]
        alone = [await complete(engine, "a", prompt("Hi"), kind) for kind in kinds]
        manager = engine._manager.batch_processor.offloading_manager
        lost, offload = [], manager.offload_requests
        manager.offload_requests = lambda: lost.append(1) or offload()
        together = await asyncio.gather(
            *(complete(engine, f"t{i}", prompt("Hi"), kind) for i, kind in enumerate(kinds))
        )
        assert lost, "the cache must have been too small"
        assert [(piece.text, piece.usage) for piece in together] == [(piece.text, piece.usage) for piece in alone]
        for piece, expected in zip(together, alone, strict=True):
            assert piece.logprobs == pytest.approx(expected.logprobs, abs=1e-4)
        await engine.stop()

    run(test)


@pytest.mark.parametrize(("window", "own"), [(None, True), (4096, True), (24, False)])
def test_a_window_is_kept_where_a_request_can_reach_its_end(
    window: int | None, own: bool, tiny_model: Path, tmp_path: Path
) -> None:
    async def test() -> None:
        from transformers import AutoConfig

        folder = tmp_path / "model"
        folder.symlink_to(tiny_model) if window is None else copied(tiny_model, folder)
        if window is not None:
            config = AutoConfig.from_pretrained(tiny_model)
            config.sliding_window = window
            config.save_pretrained(folder)
        engine = TransformersEngine(str(folder), None, PAGES)
        await engine.start()
        assert (engine._manager.model.config._attn_implementation == ragged.NAME) == own
        pieces = await asyncio.gather(
            *(complete(engine, f"r{i}", prompt(text), Sampling(30, temperature=0.0)) for i, text in enumerate(PROMPTS))
        )
        for text, piece in zip(PROMPTS, pieces, strict=True):
            assert piece.text == references.greedy(folder, text, 30)[0]
        await engine.stop()

    run(test)


def copied(model: Path, folder: Path) -> None:
    import shutil

    shutil.copytree(model, folder)


def test_nothing_of_a_prompt_reaches_the_log(tiny_model: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def test() -> None:
        engine = TransformersEngine(str(tiny_model), None, PAGES)
        await engine.start()
        await complete(engine, "r", prompt("xylophone weather"), Sampling(5, stop=("xylo",), logprobs=True))
        engine._manager.add_request([5] * 4000, request_id="poison", max_new_tokens=4)
        await until(lambda: not engine.healthy())
        with pytest.raises(EngineError):
            await complete(engine, "s", prompt("xylophone weather"), Sampling(5))
        await engine.stop()

    with caplog.at_level(logging.DEBUG):
        run(test)
    assert "xylophone" not in caplog.text
