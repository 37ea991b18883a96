"""The contract that every engine keeps, whatever writes in it; run against each of them."""

import asyncio
import math
import pickle
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

from configs.errors import EngineError
from pipelines.generation.engine import BadSampling, Engine, Piece, PromptTooLong, Sampling, complete
from tests.pipelines.generation.engines import EVERY, PROMPTS, Running, prompt, run, running_of, until

SEEDED = Sampling(24, temperature=1.5, top_p=1.0, seed=7)
ENDLESS = Sampling(230, temperature=0.0)


@pytest.fixture(params=EVERY)
def running(request: pytest.FixtureRequest, tiny_model: Path) -> Running:
    return running_of(request.param, tiny_model)


async def pieces_of(engine: Any, sampling: Sampling, text: str = PROMPTS[1]) -> list[Piece]:
    async with aclosing(engine.generate("r", prompt(text), sampling)) as answer:
        return [piece async for piece in answer]


def test_an_engine_is_well_between_start_and_stop_and_refuses_outside(running: Running) -> None:
    async def test() -> None:
        async with running() as engine:
            assert isinstance(engine, Engine)
            assert engine.healthy()
            assert engine.in_progress() == 0
        assert not engine.healthy()
        with pytest.raises(EngineError, match="not running"):
            await complete(engine, "r", prompt("Hi"), SEEDED)

    run(test)


def test_pieces_come_one_by_one_and_add_up_to_the_whole(running: Running) -> None:
    async def test() -> None:
        async with running() as engine:
            pieces = await pieces_of(engine, SEEDED)
            whole = await complete(engine, "w", prompt(PROMPTS[1]), SEEDED)
        assert len(pieces) > 3
        assert [piece.finish_reason is None for piece in pieces] == [True] * (len(pieces) - 1) + [False]
        counts = [piece.usage.new_tokens for piece in pieces]
        assert counts == sorted(counts)
        assert ("".join(piece.text for piece in pieces), pieces[-1].usage) == (whole.text, whole.usage)
        assert "</s>" not in whole.text
        assert not whole.text.endswith("\ufffd")

    run(test)


def test_no_answer_is_longer_than_its_request_allows(running: Running) -> None:
    async def test() -> None:
        async with running() as engine:
            lengths = [1, 2, 5, 3, 8, 1, 4]
            pieces = await asyncio.gather(
                *(complete(engine, f"r{i}", prompt("Hi"), Sampling(n, seed=5)) for i, n in enumerate(lengths))
            )
        assert [piece.usage.new_tokens for piece in pieces] == lengths
        assert {piece.finish_reason for piece in pieces} == {"length"}

    run(test)


def test_an_answer_ends_before_the_stop_text_that_is_complete_first(running: Running) -> None:
    async def test() -> None:
        async with running() as engine:
            whole = (await complete(engine, "w", prompt(PROMPTS[1]), SEEDED)).text
            later, earlier = whole[14:17], whole[6:9]
            sampling = Sampling(24, temperature=1.5, top_p=1.0, seed=7, stop=(later, earlier, "never this"))
            pieces = await pieces_of(engine, sampling)
        cut = min(whole.find(later) + 3, whole.find(earlier) + 3) - 3
        assert "".join(piece.text for piece in pieces) == whole[:cut]
        assert pieces[-1].finish_reason == "stop"
        assert pieces[-1].usage.new_tokens < 24

    run(test)


def test_a_stop_text_that_does_not_come_takes_nothing_away(running: Running) -> None:
    async def test() -> None:
        async with running() as engine:
            whole = await complete(engine, "w", prompt(PROMPTS[1]), SEEDED)
            # Its beginning is that of every possible piece of the answer, its end never comes.
            stop = tuple(f"{whole.text[at : at + 3]}\0" for at in range(len(whole.text)))
            with_stop = Sampling(24, temperature=1.5, top_p=1.0, seed=7, stop=stop)
            assert await complete(engine, "s", prompt(PROMPTS[1]), with_stop) == whole

    run(test)


def test_a_stopped_request_leaves_its_place(running: Running) -> None:
    async def test() -> None:
        async with running() as engine:
            text = (await complete(engine, "w", prompt(PROMPTS[1]), Sampling(8, temperature=0.0))).text
            stopped = Sampling(200, temperature=0.0, stop=(text[2:4],))
            assert (await complete(engine, "s", prompt(PROMPTS[1]), stopped)).text == text[: text.find(text[2:4])]
            await until(lambda: engine.in_progress() == 0)

    run(test)


def test_the_same_seed_gives_the_same_text_alone_and_among_others(running: Running) -> None:
    async def test() -> None:
        async with running() as engine:
            alone = {
                (text, seed): (await complete(engine, "a", prompt(text), seeded(seed))).text
                for text in PROMPTS
                for seed in (1, 2, -(2**63))
            }

            async def again(number: int, text: str, seed: int) -> None:
                await asyncio.sleep(number / 500)  # so that each meets the others at another place
                piece = await complete(engine, f"b{number}", prompt(text), seeded(seed))
                assert piece.text == alone[text, seed]

            others = [complete(engine, f"o{i}", prompt("Hi"), Sampling(5 + i, temperature=2.0)) for i in range(6)]
            twice = [*alone, *reversed(alone)]
            await asyncio.gather(*(again(number, *key) for number, key in enumerate(twice)), *others)
        assert len(set(alone.values())) == 9, "another seed must give another text"

    run(test)


def seeded(seed: int) -> Sampling:
    return Sampling(20, temperature=1.2, top_p=0.97, seed=seed)


def test_without_a_seed_answers_vary(running: Running) -> None:
    async def test() -> None:
        async with running() as engine:
            hot = Sampling(20, temperature=2.0, top_p=1.0)
            pieces = await asyncio.gather(*(complete(engine, f"r{i}", prompt("Hi"), hot) for i in range(6)))
        assert len({piece.text for piece in pieces}) == 6

    run(test)


def test_log_probabilities_come_for_every_token_and_only_where_asked(running: Running) -> None:
    async def test() -> None:
        async with running() as engine:
            asked = Sampling(24, temperature=1.5, top_p=1.0, seed=7, logprobs=True)
            pieces, plain = await asyncio.gather(
                pieces_of(engine, asked), complete(engine, "p", prompt(PROMPTS[1]), SEEDED)
            )
        given: list[float] = []
        for piece in pieces:
            assert piece.logprobs is not None
            given += piece.logprobs
            assert len(given) == piece.usage.new_tokens
        assert all(value <= 0 and math.isfinite(value) for value in given)
        assert plain.logprobs is None
        assert plain.text == "".join(piece.text for piece in pieces)

    run(test)


def test_a_request_that_cannot_fit_is_refused_and_the_engine_lives_on(running: Running) -> None:
    async def test() -> None:
        async with running() as engine:
            limit = engine.limits().context_tokens
            assert limit == 256
            with pytest.raises(PromptTooLong) as caught:
                await complete(engine, "long", prompt("week " * 400), SEEDED)
            assert str(limit) in str(caught.value)
            assert "week" not in str(caught.value)
            short = await complete(engine, "x", prompt("Hi"), Sampling(1, temperature=0.0))
            exactly = limit - short.usage.prompt_tokens
            piece = await complete(engine, "full", prompt("Hi"), Sampling(exactly, temperature=2.0, top_p=1.0))
            assert piece.finish_reason in ("stop", "length")
            with pytest.raises(PromptTooLong):
                await complete(engine, "over", prompt("Hi"), Sampling(exactly + 1))
            assert engine.healthy()
            assert (await complete(engine, "after", prompt("Hi"), SEEDED)).text

    run(test)


def test_more_requests_than_places_all_finish(running: Running) -> None:
    async def test() -> None:
        async with running() as engine:
            sampling = Sampling(60, temperature=2.0, top_p=1.0)
            pieces = await asyncio.gather(
                *(complete(engine, f"r{i}", prompt(PROMPTS[1] * 2), sampling) for i in range(20))
            )
            assert all(piece.finish_reason in ("stop", "length") for piece in pieces)
            assert engine.healthy()

    run(test)


def test_a_cancelled_request_ends_and_frees_its_place(running: Running) -> None:
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


def test_a_consumer_that_goes_away_frees_its_place_at_whatever_moment(running: Running) -> None:
    async def test() -> None:
        async with running() as engine:
            for moment in range(20):
                task = asyncio.create_task(complete(engine, "r", prompt("Hi"), ENDLESS))
                await until(lambda: engine.in_progress() == 1)
                await asyncio.sleep(moment / 3000)
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
                await until(lambda: engine.in_progress() == 0)
            assert (await complete(engine, "r", prompt("Hi"), SEEDED)).text

    run(test)


def test_two_requests_of_one_id_are_refused(running: Running) -> None:
    async def test() -> None:
        async with running() as engine:
            first = asyncio.create_task(complete(engine, "r", prompt("Hi"), ENDLESS))
            await until(lambda: engine.in_progress() == 1)
            with pytest.raises(EngineError, match="same id"):
                await complete(engine, "r", prompt("Hi"), SEEDED)
            await first

    run(test)


def test_requests_in_progress_when_the_engine_stops_fail_and_do_not_hang(running: Running) -> None:
    async def test() -> None:
        async with running() as engine:
            waiting = [asyncio.create_task(complete(engine, f"w{i}", prompt("Hi"), ENDLESS)) for i in range(12)]
            await until(lambda: engine.in_progress() == 12)
        for ended in await asyncio.gather(*waiting, return_exceptions=True):
            assert isinstance(ended, EngineError)

    run(test)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("max_new_tokens", 0),
        ("temperature", math.nan),
        ("temperature", -0.1),
        ("temperature", math.inf),
        ("top_p", 0.0),
        ("top_p", math.nan),
        ("repetition_penalty", 0.9),
        ("repetition_penalty", math.inf),
        ("stop", ("", "x")),
        ("seed", 2**63),
    ],
)
def test_a_value_that_would_spoil_a_batch_never_becomes_a_request(field: str, value: Any) -> None:
    with pytest.raises(BadSampling, match=field) as caught:
        Sampling(**{"max_new_tokens": 4, field: value})
    assert caught.value.field == field


def test_refusals_survive_the_way_between_processes() -> None:
    too_long = pickle.loads(pickle.dumps(PromptTooLong(500, 12, 256)))
    assert isinstance(too_long, PromptTooLong)
    assert "500" in str(too_long) and "256" in str(too_long)
    bad = pickle.loads(pickle.dumps(BadSampling("top_p", "at most 1")))
    assert (bad.field, str(bad)) == ("top_p", "top_p must be at most 1")
