"""What every engine around a model owes to that model: the text and the numbers of transformers' own."""

import asyncio
import shutil
from pathlib import Path

import pytest

from pipelines.generation.engine import Sampling, complete
from tests.pipelines.generation import references
from tests.pipelines.generation.engines import OF_A_MODEL, PROMPTS, Running, prompt, run, running_of

GREEDY = Sampling(12, temperature=0.0)


@pytest.fixture(params=OF_A_MODEL)
def running(request: pytest.FixtureRequest, tiny_model: Path) -> Running:
    return running_of(request.param, tiny_model)


def test_greedy_text_is_that_of_generate_alone_and_among_others(running: Running, tiny_model: Path) -> None:
    async def test() -> None:
        async with running() as engine:
            alone = [await complete(engine, f"a{i}", prompt(text), GREEDY) for i, text in enumerate(PROMPTS)]
            among = await asyncio.gather(
                *(complete(engine, f"b{i}", prompt(text), GREEDY) for i, text in enumerate(PROMPTS * 4))
            )
        expected = [references.greedy(tiny_model, text, 12) for text in PROMPTS]
        for index, piece in enumerate([*alone, *among]):
            assert (piece.text, piece.usage.new_tokens) == expected[index % 3]

    run(test)


def test_an_answer_ends_at_whatever_the_model_names_as_its_end(
    running: Running, tiny_model: Path, tmp_path: Path
) -> None:
    async def test() -> None:
        from transformers import GenerationConfig

        written = references.greedy_ids(tiny_model, "Hi", 12)
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


def test_the_adapter_changes_the_text_as_peft_does(running: Running, tiny_model: Path, tiny_adapter: Path) -> None:
    async def test() -> None:
        async with running(adapter=tiny_adapter) as engine:
            piece = await complete(engine, "r", prompt(PROMPTS[1]), GREEDY)
        assert piece.text == references.greedy(tiny_model, PROMPTS[1], 12, tiny_adapter)[0]
        assert piece.text != references.greedy(tiny_model, PROMPTS[1], 12)[0]

    run(test)


def test_temperature_and_top_p_take_effect_request_by_request(running: Running) -> None:
    async def test() -> None:
        async with running() as engine:

            async def texts(label: str, **options: float) -> set[str]:
                sampling = Sampling(12, **options)  # type: ignore[arg-type]
                requests = (complete(engine, f"{label}{i}", prompt(PROMPTS[1]), sampling) for i in range(6))
                return {piece.text for piece in await asyncio.gather(*requests)}

            cold, coldest, nucleus, greedy, hot = await asyncio.gather(
                texts("cold", temperature=0.001, top_p=1.0),
                texts("coldest", temperature=1e-300, top_p=0.9),
                texts("nucleus", temperature=2.0, top_p=1e-6),
                texts("greedy", temperature=0.0),
                texts("hot", temperature=2.0, top_p=1.0),
            )
        assert len(greedy) == 1
        assert cold == coldest == greedy, "almost no temperature must be greedy"
        assert nucleus == greedy, "a nucleus of one token must be greedy at any temperature"
        assert len(hot) == 6, "a high temperature must vary"

    run(test)


def test_each_request_has_the_repetition_penalty_it_asks_for(running: Running, tiny_model: Path) -> None:
    async def test() -> None:
        penalties = (1.0, 1.3, 1.8, 5.0)
        asked = [(text, penalty) for text in PROMPTS for penalty in penalties]
        async with running() as engine:
            pieces = await asyncio.gather(
                *(
                    complete(engine, f"p{i}", prompt(text), Sampling(12, temperature=0.0, repetition_penalty=penalty))
                    for i, (text, penalty) in enumerate(asked)
                )
            )
        for (text, penalty), piece in zip(asked, pieces, strict=True):
            assert piece.text == references.greedy(tiny_model, text, 12, repetition_penalty=penalty)[0]
        assert len({piece.text for piece in pieces[:4]}) > 1

    run(test)


def test_log_probabilities_are_the_models_own_however_the_token_was_chosen(running: Running, tiny_model: Path) -> None:
    async def test() -> None:
        new_ids = references.greedy_ids(tiny_model, PROMPTS[1], 12)
        penalised_ids = references.greedy_ids(tiny_model, PROMPTS[1], 12, repetition_penalty=1.8)
        ways = {
            "greedy": (Sampling(12, temperature=0.0, logprobs=True), new_ids),
            "nucleus": (Sampling(12, temperature=1.7, top_p=1e-6, logprobs=True), new_ids),
            "penalty": (Sampling(12, temperature=0.0, repetition_penalty=1.8, logprobs=True), penalised_ids),
        }
        async with running() as engine:
            pieces = await asyncio.gather(
                *(complete(engine, name, prompt(PROMPTS[1]), sampling) for name, (sampling, _) in ways.items()),
                *(complete(engine, f"other{i}", prompt("Hi"), Sampling(9)) for i in range(3)),
            )
        for piece, (_, ids) in zip(pieces, ways.values(), strict=False):
            assert piece.logprobs == pytest.approx(references.logprobs_of(tiny_model, PROMPTS[1], ids), abs=1e-4)

    run(test)


def test_requests_of_all_kinds_in_one_batch_are_written_as_each_alone(running: Running) -> None:
    async def test() -> None:
        kinds = [
            Sampling(18, temperature=0.0),
            Sampling(18, temperature=1.5, top_p=1.0, seed=5),
            Sampling(18, temperature=1.5, top_p=0.9, seed=5),
            Sampling(18, temperature=2.0, top_p=0.9, seed=5),
            Sampling(18, temperature=1.5, top_p=1.0, seed=5, repetition_penalty=2.0),
            Sampling(5, temperature=1.5, top_p=1.0, seed=2),
            Sampling(18, temperature=1.5, top_p=1.0, seed=2, logprobs=True),
        ]
        async with running() as engine:
            alone = [await complete(engine, "a", prompt(PROMPTS[1]), kind) for kind in kinds]
            together = await asyncio.gather(
                *(complete(engine, f"t{i}", prompt(PROMPTS[1]), kind) for i, kind in enumerate(kinds * 2))
            )
        for piece, expected in zip(together, alone * 2, strict=True):
            assert (piece.text, piece.finish_reason, piece.usage) == (
                expected.text,
                expected.finish_reason,
                expected.usage,
            )
        assert len({piece.text for piece in alone}) == len(kinds), "every parameter must change what is written"

    run(test)
