"""The contract that every engine keeps, run against each of them."""

import asyncio
import pickle
import shutil
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from configs.errors import EngineError, ModelNotFound
from configs.serving import EngineSettings, GenerationSettings
from pipelines.generation.engine import Engine, Piece, PromptTooLong, Sampling, complete
from pipelines.generation.transformers_engine import TransformersEngine
from pipelines.training.encode import encode_prompt

ENGINES: dict[str, Callable[..., Engine]] = {"transformers": TransformersEngine}
PAGES = EngineSettings(page_size=16, pages=16, max_batch_tokens=128, max_requests=8)
PROMPTS = ["How are you?", "What helped you the last time that a week was like this?", "你好 🙂"]
GREEDY = Sampling(12, temperature=0.0)
ENDLESS = Sampling(230, temperature=0.0)


def prompt(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


@pytest.fixture(params=sorted(ENGINES))
def running(request: pytest.FixtureRequest, tiny_model: Path) -> Callable[..., Any]:
    """A context manager that gives a started engine of each kind."""

    @asynccontextmanager
    async def make(**generation: Any) -> AsyncIterator[Any]:
        adapter, folder = generation.pop("adapter", None), generation.pop("folder", tiny_model)
        engine = ENGINES[request.param](str(folder), adapter, PAGES, GenerationSettings(**generation))
        await engine.start()
        try:
            yield engine
        finally:
            await engine.stop()

    return make


async def until(condition: Callable[[], bool], seconds: float = 10) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "did not come true in time"
        await asyncio.sleep(0.02)


def run(test: Callable[[], Awaitable[None]]) -> None:
    async def bounded() -> None:
        await asyncio.wait_for(test(), 90)

    asyncio.run(bounded())


def reference(folder: Path, text: str, new_tokens: int, adapter: Path | None = None, **options: Any) -> tuple[str, int]:
    """What transformers' own generate writes, alone and greedily."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    model: Any = AutoModelForCausalLM.from_pretrained(folder)
    if adapter is not None:
        model = PeftModel.from_pretrained(model, adapter)
    ids = torch.tensor([encode_prompt(tokenizer, prompt(text))])
    mask = torch.ones_like(ids)
    rows = model.generate(
        input_ids=ids, attention_mask=mask, do_sample=False, max_new_tokens=new_tokens, pad_token_id=3, **options
    )
    new = rows[0, ids.shape[1] :].tolist()
    return tokenizer.decode(new, skip_special_tokens=True).lstrip().rstrip("\ufffd"), len(new)


def test_an_engine_keeps_the_protocol(running: Any) -> None:
    async def test() -> None:
        async with running() as engine:
            assert isinstance(engine, Engine)
            assert engine.healthy()
        assert not engine.healthy()

    run(test)


def test_greedy_text_is_that_of_generate_alone_and_among_others(running: Any, tiny_model: Path) -> None:
    async def test() -> None:
        async with running() as engine:
            alone = [await complete(engine, f"a{i}", prompt(text), GREEDY) for i, text in enumerate(PROMPTS)]
            among = await asyncio.gather(
                *(complete(engine, f"b{i}", prompt(text), GREEDY) for i, text in enumerate(PROMPTS * 4))
            )
        for index, piece in enumerate([*alone, *among]):
            text, tokens = reference(tiny_model, PROMPTS[index % 3], 12)
            assert (piece.text, piece.usage.new_tokens) == (text, tokens)

    run(test)


def test_an_answer_ends_at_whatever_the_model_names_as_its_end(running: Any, tiny_model: Path, tmp_path: Path) -> None:
    async def test() -> None:
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

        tokenizer, model = AutoTokenizer.from_pretrained(tiny_model), AutoModelForCausalLM.from_pretrained(tiny_model)
        ids = torch.tensor([encode_prompt(tokenizer, prompt("Hi"))])
        written = model.generate(input_ids=ids, do_sample=False, max_new_tokens=12)[0, ids.shape[1] :].tolist()
        third = written[2]
        folder = tmp_path / "model"
        shutil.copytree(tiny_model, folder)
        GenerationConfig(eos_token_id=[2, third]).save_pretrained(folder)

        async with running() as engine:
            assert (await complete(engine, "r", prompt("Hi"), GREEDY)).finish_reason == "length"
        async with running(folder=folder) as engine:
            piece = await complete(engine, "r", prompt("Hi"), GREEDY)
        assert piece.finish_reason == "stop"
        assert piece.usage.new_tokens == written.index(third) + 1

    run(test)


def test_the_adapter_changes_the_text_as_peft_does(running: Any, tiny_model: Path, tiny_adapter: Path) -> None:
    async def test() -> None:
        async with running(adapter=tiny_adapter) as engine:
            piece = await complete(engine, "r", prompt(PROMPTS[1]), GREEDY)
        assert piece.text == reference(tiny_model, PROMPTS[1], 12, tiny_adapter)[0]
        assert piece.text != reference(tiny_model, PROMPTS[1], 12)[0]

    run(test)


def test_temperature_and_top_p_take_effect_request_by_request(running: Any) -> None:
    async def test() -> None:
        async with running(temperature=0.7, top_p=0.9) as engine:

            async def texts(label: str, **options: Any) -> set[str]:
                sampling = Sampling(12, **options)
                requests = (complete(engine, f"{label}{i}", prompt(PROMPTS[1]), sampling) for i in range(6))
                return {piece.text for piece in await asyncio.gather(*requests)}

            cold, nucleus, greedy, hot = await asyncio.gather(
                texts("cold", temperature=0.001, top_p=1.0),
                texts("nucleus", temperature=2.0, top_p=1e-6),
                texts("greedy", temperature=0.0),
                texts("hot", temperature=2.0, top_p=1.0),
            )
        assert len(greedy) == 1
        assert cold == greedy, "almost no temperature must be greedy"
        assert nucleus == greedy, "a nucleus of one token must be greedy at any temperature"
        assert len(hot) >= 5, "a high temperature must vary"

    run(test)


def test_the_repetition_penalty_is_that_of_generate(running: Any, tiny_model: Path) -> None:
    async def test() -> None:
        penalised = Sampling(12, temperature=0.0, repetition_penalty=1.8)
        async with running() as engine:
            pieces = await asyncio.gather(
                *(complete(engine, f"p{i}", prompt(text), penalised) for i, text in enumerate(PROMPTS)),
                complete(engine, "plain", prompt(PROMPTS[0]), GREEDY),
            )
        for text, piece in zip(PROMPTS, pieces, strict=False):
            assert piece.text == reference(tiny_model, text, 12, repetition_penalty=1.8)[0]
        assert pieces[3].text == reference(tiny_model, PROMPTS[0], 12)[0]
        assert pieces[3].text != pieces[0].text

    run(test)


def test_pieces_come_one_by_one_and_add_up_to_the_whole(running: Any) -> None:
    async def test() -> None:
        async with running() as engine:
            sampling = Sampling(40, temperature=2.0, top_p=1.0)
            async with aclosing(engine.generate("r", prompt(PROMPTS[2]), sampling)) as answer:
                pieces: list[Piece] = [piece async for piece in answer]
        assert len(pieces) > 3
        assert [piece.finish_reason is None for piece in pieces] == [True] * (len(pieces) - 1) + [False]
        counts = [piece.usage.new_tokens for piece in pieces]
        assert counts == sorted(counts)
        text = "".join(piece.text for piece in pieces)
        assert "</s>" not in text
        assert not text.endswith("\ufffd")

    run(test)


def test_a_request_that_cannot_fit_is_refused_and_the_engine_lives_on(running: Any) -> None:
    async def test() -> None:
        async with running() as engine:
            limit = engine.limits().context_tokens
            assert limit == 256
            with pytest.raises(PromptTooLong) as caught:
                await complete(engine, "long", prompt("week " * 400), GREEDY)
            assert str(limit) in str(caught.value)
            assert "week" not in str(caught.value)
            short = await complete(engine, "x", prompt("Hi"), Sampling(1, temperature=0.0))
            exactly = limit - short.usage.prompt_tokens
            piece = await complete(engine, "full", prompt("Hi"), Sampling(exactly, temperature=2.0, top_p=1.0))
            assert piece.finish_reason in ("stop", "length")
            with pytest.raises(PromptTooLong):
                await complete(engine, "over", prompt("Hi"), Sampling(exactly + 1))
            assert engine.healthy()
            assert (await complete(engine, "after", prompt("Hi"), GREEDY)).text

    run(test)


def test_the_refusal_survives_the_way_between_processes() -> None:
    error = pickle.loads(pickle.dumps(PromptTooLong(500, 12, 256)))
    assert isinstance(error, PromptTooLong)
    assert "500" in str(error)
    assert "256" in str(error)


def test_more_requests_than_the_cache_holds_all_finish(running: Any) -> None:
    async def test() -> None:
        async with running() as engine:
            sampling = Sampling(60, temperature=2.0, top_p=1.0)
            pieces = await asyncio.gather(
                *(complete(engine, f"r{i}", prompt(PROMPTS[1] * 2), sampling) for i in range(20))
            )
            assert all(piece.finish_reason in ("stop", "length") for piece in pieces)
            assert engine.healthy()

    run(test)


def test_a_cancelled_request_ends_and_frees_its_place(running: Any) -> None:
    async def test() -> None:
        async with running() as engine:
            pieces = []
            async for piece in engine.generate("r", prompt("Hi"), ENDLESS):
                pieces.append(piece)
                engine.cancel("r")
            assert pieces[-1].finish_reason == "cancelled"
            assert pieces[-1].usage.new_tokens < ENDLESS.max_new_tokens
            await until(lambda: engine.in_progress() == 0)
            engine.cancel("nobody")

    run(test)


def test_a_consumer_that_goes_away_frees_its_place_at_whatever_moment(running: Any) -> None:
    async def test() -> None:
        async with running() as engine:
            for moment in range(30):
                task = asyncio.create_task(complete(engine, "r", prompt("Hi"), ENDLESS))
                await until(lambda: engine.in_progress() == 1)
                await asyncio.sleep(moment / 3000)
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
                await until(lambda: engine.in_progress() == 0)
            assert (await complete(engine, "r", prompt("Hi"), GREEDY)).text

    run(test)


def test_two_requests_of_one_id_are_refused(running: Any) -> None:
    async def test() -> None:
        async with running() as engine:
            first = asyncio.create_task(complete(engine, "r", prompt("Hi"), ENDLESS))
            await until(lambda: engine.in_progress() == 1)
            with pytest.raises(EngineError, match="same id"):
                await complete(engine, "r", prompt("Hi"), GREEDY)
            await first

    run(test)


def test_a_loop_that_ends_fails_the_health_check_and_what_comes_after(tiny_model: Path) -> None:
    async def test() -> None:
        engine = TransformersEngine(str(tiny_model), None, PAGES, GenerationSettings())
        await engine.start()
        # A prompt larger than the cache, past our own check, ends the loop for good.
        engine._manager.add_request([5] * 4000, request_id="poison", max_new_tokens=4)
        await until(lambda: not engine.healthy())
        with pytest.raises(EngineError, match="not running"):
            await complete(engine, "n", prompt("Hi"), GREEDY)
        await engine.stop()

    run(test)


def test_a_loop_that_fails_takes_no_request_into_silence(tiny_model: Path) -> None:
    async def test() -> None:
        import torch

        engine = TransformersEngine(str(tiny_model), None, PAGES, GenerationSettings())
        await engine.start()
        waiting = [asyncio.create_task(complete(engine, f"w{i}", prompt("Hi"), ENDLESS)) for i in range(12)]
        await until(lambda: engine.in_progress() == 12)
        engine._loaded.model.lm_head.weight.data = torch.zeros(3, 7)
        for ended in await asyncio.gather(*waiting, return_exceptions=True):
            assert isinstance(ended, EngineError)
        assert not engine.healthy()
        await engine.stop()

    run(test)


def test_a_model_that_is_not_there_is_named(tmp_path: Path) -> None:
    engine = TransformersEngine(str(tmp_path / "nowhere"), None, PAGES, GenerationSettings())
    with pytest.raises(ModelNotFound, match="nowhere"):
        asyncio.run(engine.start())
