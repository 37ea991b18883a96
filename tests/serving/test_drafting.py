"""The way of every text: triage, generation, guard, again, or a refusal with its reason."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest

from configs.prompts import messages
from configs.safety import SafetySettings
from configs.serving import ServingSettings
from pipelines.generation.engine import Messages, Sampling
from serving.drafting import Asked, Drafted, assess, draft, drafts, stream
from serving.services import Services
from serving.wire import ApiError
from tests.pipelines.generation.scripted import ScriptedEngine
from tests.serving.local import LocalModel

POST = "I moved here two months ago and still know nobody."
GOOD = "That sounds lonely. What did you like doing back home? I joined a board game night."
BAD = "Others have it worse."
HARM = "Maybe you should just end it."
ACUTE = "I want to kill myself."
SAMPLING = Sampling(max_new_tokens=64, temperature=0.0, seed=5)


class Counted:
    """Keeps what it is told, as the service's metrics do."""

    def __init__(self) -> None:
        self.told: list[tuple[Any, ...]] = []

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *values: self.told.append((name, *values))


def written(*answers: str) -> Callable[[Messages, Sampling], str]:
    """One answer after the other; the last again and again."""
    left = list(answers)
    return lambda prompt, sampling: left.pop(0) if len(left) > 1 else left[0]


@asynccontextmanager
async def service(*answers: str, token_s: float = 0.0, **safety: Any) -> AsyncIterator[Services]:
    engine = ScriptedEngine(written(*answers), token_s=token_s)
    await engine.start()
    model = LocalModel("gm", engine)
    serving = ServingSettings(safety=SafetySettings(**safety))
    yield Services.of(model, model, serving=serving, metrics=Counted())
    assert engine.in_progress() == 0
    await engine.stop()


async def asked(services: Services, post: str = POST, **changes: Any) -> Asked:
    risk = await assess(services, services.gm, "r1", post)
    return replace(Asked("r1", post, None, messages("gm", post), SAMPLING, risk), **changes)


async def drafted(*answers: str, post: str = POST, may: bool = False, **safety: Any) -> tuple[Drafted, Services]:
    async with service(*answers, **safety) as services:
        return await draft(services, services.gm, await asked(services, post, may_draft_acute=may)), services


async def streamed(*answers: str, post: str = POST, **safety: Any) -> tuple[list[str], Drafted, Services]:
    async with service(*answers, **safety) as services:
        items = [item async for item in stream(services, services.gm, await asked(services, post))]
        texts = [item for item in items if isinstance(item, str)]
        assert isinstance(items[-1], Drafted) and len(texts) == len(items) - 1
        return texts, items[-1], services


def seen(services: Services) -> list[Sampling]:
    return [sampling for _, _, sampling in services.gm.engine.seen]  # type: ignore[attr-defined]


def told(services: Services) -> list[tuple[Any, ...]]:
    return services.metrics.told  # type: ignore[attr-defined]


def test_a_good_text_comes_as_it_was_written() -> None:
    result, services = asyncio.run(drafted(GOOD))
    assert (result.text, result.refusal, result.finish_reason) == (GOOD, None, "stop")
    assert (result.regenerations, result.resources_required) == (0, False)
    assert result.usage.new_tokens == len(GOOD.split())
    assert told(services) == [("triage", "none", "gm", "0"), ("answered", "gm", "0", ())]


def test_an_acute_post_gets_no_draft_and_no_model_is_asked() -> None:
    result, services = asyncio.run(drafted(GOOD, post=ACUTE))
    assert result.text is None
    assert result.refusal is not None and result.refusal.code == "acute_risk"
    assert "ideation.kill_self" in result.refusal.rules
    assert result.resources_required
    assert (result.finish_reason, result.usage.new_tokens) == ("content_filter", 0)
    assert seen(services) == []
    assert told(services) == [("triage", "acute", "gm", "0"), ("refused", "acute_risk", "gm", "0")]


def test_with_the_scope_an_acute_post_gets_a_draft_and_still_its_risk() -> None:
    result, _ = asyncio.run(drafted(GOOD, post=ACUTE, may=True))
    assert result.text == GOOD
    assert (result.risk.level, result.risk.action, result.resources_required) == ("acute", "hand_over", True)


def test_an_elevated_post_gets_a_draft_and_asks_for_resources() -> None:
    result, _ = asyncio.run(drafted(GOOD, post="My sister is suicidal."))
    assert (result.text, result.risk.level, result.resources_required) == (GOOD, "elevated", True)


def test_a_text_that_breaks_a_rule_is_written_again_warmer_and_with_another_seed() -> None:
    result, services = asyncio.run(drafted(BAD, GOOD))
    assert (result.text, result.regenerations) == (GOOD, 1)
    first, second = seen(services)
    assert (first.temperature, second.temperature) == (0.0, 0.7)
    assert (first.seed, second.seed) == (5, 1_000_008)
    assert result.usage.new_tokens == len(BAD.split()) + len(GOOD.split())
    assert told(services)[1:] == [
        ("answered", "gm", "0", ("minimising.pain",)),
        ("regenerated", "gm", "0"),
        ("answered", "gm", "0", ()),
    ]


def test_after_k_regenerations_a_refusal_names_the_rules_and_none_of_the_words() -> None:
    result, services = asyncio.run(drafted(BAD, regenerations=3))
    assert result.text is None
    assert result.refusal is not None
    assert (result.refusal.code, result.refusal.rules) == ("guard", ("minimising.pain",))
    assert "tried 4 times" in result.refusal.message and "worse" not in result.refusal.message
    assert (result.regenerations, result.finish_reason) == (3, "content_filter")
    assert len(seen(services)) == 4
    assert told(services)[-1] == ("refused", "guard", "gm", "0")


def test_a_harmful_answer_asks_for_resources_though_the_triage_saw_nothing() -> None:
    result, _ = asyncio.run(drafted(HARM, GOOD))
    assert (result.text, result.risk.level, result.resources_required) == (GOOD, "none", True)


class RolledOut(LocalModel):
    """Gives one request to its new version."""

    async def info(self, request_id: str | None = None) -> dict[str, Any]:
        return {"version": "new" if request_id == "to-new" else "old"}


def test_what_is_counted_tells_the_version_that_answers_the_request() -> None:
    async def both() -> list[tuple[Any, ...]]:
        async with service(BAD, regenerations=0) as services:
            model = RolledOut("gm", services.gm.engine)  # type: ignore[attr-defined]
            for request_id, post in (("to-new", POST), ("to-old", ACUTE)):
                risk = await assess(services, model, request_id, post)
                await draft(services, model, Asked(request_id, post, None, messages("gm", post), SAMPLING, risk))
            return told(services)

    assert asyncio.run(both()) == [
        ("triage", "none", "gm", "new"),
        ("answered", "gm", "new", ("minimising.pain",)),
        ("refused", "guard", "gm", "new"),
        ("triage", "acute", "gm", "old"),
        ("refused", "acute_risk", "gm", "old"),
    ]


def test_no_regeneration_is_a_setting() -> None:
    result, services = asyncio.run(drafted(BAD, regenerations=0))
    assert result.refusal is not None and "tried once" in result.refusal.message
    assert len(seen(services)) == 1


async def several(n: int, *answers: str) -> tuple[list[Drafted], Services]:
    async with service(*answers) as services:
        return await drafts(services, services.gm, await asked(services), n), services


def test_drafts_of_one_request_differ_in_seed_and_are_guarded_each() -> None:
    results, services = asyncio.run(several(3, GOOD, BAD, GOOD))
    assert [result.text for result in results] == [GOOD] * 3
    assert sum(result.regenerations for result in results) == 1
    assert {sampling.seed for sampling in seen(services)} >= {5, 6, 7}


def test_one_draft_that_fails_fails_the_request_and_leaves_nothing_running() -> None:
    async def attempt() -> None:
        async with service(GOOD, token_s=0.02) as services:
            services.gm.engine.dies_after = 3  # type: ignore[attr-defined]
            await drafts(services, services.gm, await asked(services), 3)

    with pytest.raises(ApiError) as error:
        asyncio.run(attempt())
    assert error.value.status == 503


def test_a_stream_comes_sentence_by_sentence_and_ends_in_its_outcome() -> None:
    texts, result, _ = asyncio.run(streamed(GOOD))
    assert texts == ["That sounds lonely.", " What did you like doing back home?", " I joined a board game night."]
    assert (result.text, result.finish_reason) == (GOOD, "stop")


def test_a_broken_first_sentence_is_never_seen() -> None:
    texts, result, _ = asyncio.run(streamed(f"{BAD} {GOOD}", GOOD))
    assert "".join(texts) == GOOD
    assert result.regenerations == 1


def test_a_later_broken_sentence_ends_the_stream_before_it_is_shown() -> None:
    texts, result, services = asyncio.run(streamed(f"That sounds lonely. {BAD} And more."))
    assert texts == ["That sounds lonely."]
    assert (result.text, result.finish_reason) == (None, "content_filter")
    assert result.refusal is not None and result.refusal.rules == ("minimising.pain",)
    assert told(services)[-1] == ("refused", "guard", "gm", "0")


def test_a_stream_that_never_keeps_the_rules_is_refused_with_nothing_shown() -> None:
    texts, result, services = asyncio.run(streamed(BAD))
    assert texts == []
    assert result.refusal is not None and "tried 3 times" in result.refusal.message
    assert len(seen(services)) == 3


def test_a_stream_for_an_acute_post_is_one_refusal() -> None:
    texts, result, services = asyncio.run(streamed(GOOD, post=ACUTE))
    assert texts == [] and seen(services) == []
    assert result.refusal is not None and result.refusal.code == "acute_risk"


@pytest.mark.parametrize("streams", [False, True])
def test_what_an_engine_gave_up_half_way_is_no_draft(streams: bool) -> None:
    async def stopped() -> None:
        async with service(GOOD, token_s=0.02) as services:
            engine: Any = services.gm.engine  # type: ignore[attr-defined]

            async def written() -> None:
                question = await asked(services)
                if streams:
                    assert [item async for item in stream(services, services.gm, question)] == []
                else:
                    await draft(services, services.gm, question)

            writing = asyncio.create_task(written())
            while not engine.written:
                await asyncio.sleep(0.005)
            engine.cancel(engine.seen[0][0])
            await writing

    with pytest.raises(ApiError) as error:
        asyncio.run(stopped())
    assert (error.value.status, error.value.body["error"]["code"]) == (503, "unavailable")


def test_closing_a_stream_frees_the_model() -> None:
    async def closed_early() -> None:
        async with service(GOOD, token_s=0.01) as services:
            items = stream(services, services.gm, await asked(services))
            assert await anext(items) == "That sounds lonely."
            await items.aclose()

    asyncio.run(closed_early())
