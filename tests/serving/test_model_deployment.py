"""What a replica of a model does around its engine; Serve itself is in test_service."""

import asyncio
from contextlib import aclosing
from typing import Any

import pytest

from configs.errors import EngineError
from pipelines.generation.engine import Piece, Sampling, Usage
from serving import model_deployment
from serving.model_deployment import ModelDeployment, Progress, joined
from tests.pipelines.generation.scripted import ScriptedEngine

PROMPT = [{"role": "user", "content": "A hard week."}]
SAMPLING = Sampling(30, temperature=0.0)


def replica(engine: ScriptedEngine, stall_s: float = 60.0) -> Any:
    """The class that Serve runs, with an engine that was started."""
    made = object.__new__(ModelDeployment.func_or_class)
    made.engines, made.progress = {"gm": engine}, Progress(stall_s)
    return made


async def started(**options: Any) -> ScriptedEngine:
    engine = ScriptedEngine(**options)
    await engine.start()
    return engine


def test_pieces_that_come_at_once_are_sent_as_one() -> None:
    async def streamed() -> tuple[list[Piece], Piece]:
        gm = replica(await started())
        pieces = [piece async for piece in gm.stream("gm", "1", PROMPT, SAMPLING)]
        return pieces, await gm.write("gm", "2", PROMPT, SAMPLING)

    pieces, whole = asyncio.run(streamed())
    assert "".join(piece.text for piece in pieces) == whole.text
    assert [piece.finish_reason for piece in pieces[:-1]] == [None] * (len(pieces) - 1)
    assert pieces[-1].finish_reason == whole.finish_reason
    assert pieces[-1].usage == whole.usage
    assert len(pieces) < whole.usage.new_tokens


def test_a_slow_answer_is_sent_as_it_comes() -> None:
    async def first() -> tuple[Piece, int]:
        engine = await started(token_s=model_deployment.STREAM_GAP_S)
        async with aclosing(replica(engine).stream("gm", "1", PROMPT, SAMPLING)) as pieces:
            return await anext(pieces), engine.written

    piece, written = asyncio.run(first())
    assert piece.finish_reason is None and written < 5


def test_a_request_that_is_given_up_leaves_the_engine() -> None:
    async def given_up() -> tuple[int, int]:
        engine = await started(token_s=0.01)
        gm = replica(engine)
        async with aclosing(gm.stream("gm", "1", PROMPT, SAMPLING)) as pieces:
            await anext(pieces)
        task = asyncio.create_task(gm.write("gm", "2", PROMPT, SAMPLING))
        await asyncio.sleep(0.05)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        return len(engine._ended), gm.progress.requests

    assert asyncio.run(given_up()) == (0, 0)


def test_one_id_may_be_used_twice_at_once() -> None:
    async def twice() -> list[Piece]:
        gm = replica(await started(token_s=0.001))
        return list(await asyncio.gather(*(gm.write("gm", "same", PROMPT, SAMPLING) for _ in range(2))))

    assert all(piece.finish_reason for piece in asyncio.run(twice()))


def test_a_replica_is_unwell_when_its_engine_has_ended() -> None:
    async def ended() -> None:
        engine = await started()
        gm = replica(engine)
        await gm.check_health()
        engine.die()
        with pytest.raises(EngineError, match="ended"):
            await gm.check_health()
        with pytest.raises(EngineError):
            await gm.ready("gm")

    asyncio.run(ended())


def test_a_replica_is_unwell_when_requests_get_no_tokens() -> None:
    async def stalled() -> None:
        gm = replica(await started(token_s=0.4), stall_s=0.1)
        await gm.check_health()
        task = asyncio.create_task(gm.write("gm", "1", PROMPT, Sampling(2)))
        await asyncio.sleep(0.25)
        with pytest.raises(EngineError, match="no tokens"):
            await gm.check_health()
        await task
        await asyncio.sleep(0.25)
        await gm.check_health()  # nothing is asked, so nothing is late

    asyncio.run(stalled())


def test_log_probabilities_of_joined_pieces_are_all_there() -> None:
    first = Piece("a", Usage(1, 2), None, (-0.1, -0.2))
    assert joined(first, Piece("b", Usage(1, 3), "stop", (-0.3,))).logprobs == (-0.1, -0.2, -0.3)
    assert joined(Piece("a", Usage(1, 1)), Piece("b", Usage(1, 2), "stop")).logprobs is None
