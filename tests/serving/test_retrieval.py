"""Similar posts in prompts, and posts too long for the context."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from configs.api import ApiSettings
from configs.retrieval import EmbedderSettings
from configs.serving import EngineSettings
from pipelines.generation.engine import Sampling
from pipelines.generation.transformers_engine import TransformersEngine
from pipelines.training.cutting import MARK
from serving.fitting import Fitting
from serving.preservation import preservation
from serving.retrieval import FOR_SERVING, Retrieval, tokens_of
from serving.wire import ContextExceeded
from tests.pipelines.generation.scripted import ScriptedEngine
from tests.pipelines.generation.tiny import make
from tests.pipelines.retrieval.conftest import minilm  # noqa: F401
from tests.pipelines.retrieval.making import settings_for
from tests.pipelines.retrieval.test_lookup import ASKING, finished
from tests.serving.local import LocalModel
from tests.serving.running import DRAFT, REVISION, running

EXAM = {"title": "Exam", "text": ASKING}


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(make(tmp_path_factory.mktemp("tokenizer") / "model"))


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return finished(tmp_path_factory.mktemp("index") / "retrieval", settings_for())


def opened(index: Path, tokenizer: str, **api: Any) -> Retrieval:
    return Retrieval.open(index, settings_for(), ApiSettings(**api), tokenizer)


def test_similar_posts_stand_in_the_prompt_and_in_the_answer_only_where_asked_for(
    tmp_path: Path, index: Path, tokenizer: str
) -> None:
    with running(tmp_path, retrieval=opened(index, tokenizer)) as site:
        for route, body, engine in (("generate", {}, site.gm), ("improve", {"draft": DRAFT}, site.im)):
            plain = site.post(f"/v1/{route}", {"post": EXAM, **body}).json()
            assert plain["examples"] is None
            prompt = engine.seen[-1][1][-1]["content"]
            assert prompt.count("<example>") == 2
            shown = site.post(f"/v1/{route}", {"post": EXAM, "show_examples": True, **body}).json()["examples"]
            assert len(shown) == 2
            assert all(example["post"] in prompt and example["reply"] in prompt for example in shown)
            assert all("exam" in example["post"] for example in shown)


def test_examples_are_bounded_in_the_models_tokens(index: Path, tokenizer: str) -> None:
    size = tokens_of(tokenizer)
    wide = asyncio.run(opened(index, tokenizer, examples=4).similar(ASKING))
    assert len(wide) == 4
    one = size(wide[0].post) + size(wide[0].reply)
    assert one > len((wide[0].post + " " + wide[0].reply).split())
    narrow = asyncio.run(opened(index, tokenizer, examples=4, max_example_tokens=one).similar(ASKING))
    assert len(narrow) == 1
    assert asyncio.run(opened(index, tokenizer, max_example_tokens=3).similar(ASKING)) == []


def test_as_many_examples_as_in_training_unless_told_otherwise(index: Path, tokenizer: str) -> None:
    assert opened(index, tokenizer).most == 2
    assert opened(index, tokenizer, examples=0).most == 0
    for_serving = settings_for(examples=0, index=True)
    assert Retrieval.open(index, for_serving, ApiSettings(), tokenizer).most == FOR_SERVING


def test_an_index_that_fails_costs_the_examples_and_not_the_answer(
    tmp_path: Path, index: Path, tokenizer: str, caplog: pytest.LogCaptureFixture
) -> None:
    retrieval = opened(index, tokenizer)
    retrieval.lookup.similar = lambda *_, **__: exec('raise OSError("zebrafish")')  # type: ignore[method-assign]
    with running(tmp_path, retrieval=retrieval) as site:
        answer = site.post("/v1/generate", {"post": EXAM, "show_examples": True})
        assert (answer.status_code, answer.json()["examples"]) == (200, [])
    assert "OSError" in caplog.text
    assert "zebrafish" not in caplog.text


def test_a_model_that_knows_meaning_compares_revisions_too(tmp_path: Path, tokenizer: str, minilm: Path) -> None:  # noqa: F811
    wanted = settings_for(embedder=EmbedderSettings(model=str(minilm)), min_similarity=0.2)
    index = finished(tmp_path / "retrieval", wanted)
    with running(tmp_path, retrieval=Retrieval.open(index, wanted, ApiSettings(), tokenizer)) as site:
        found = site.post("/v1/improve", {"post": EXAM, "draft": DRAFT}).json()["preservation"]
        assert found["method"] == "embedding"
        embedder = site.services.embedder
    said = "You could join a club", "Maybe there is a society you would like to be part of"
    assert preservation(*said, embedder).score > preservation(said[0], "The sea is deep and cold", embedder).score
    assert found["score"] == pytest.approx(preservation(DRAFT, REVISION, embedder).score, abs=1e-3)


LONG = "First I moved here. " + "Then one more thing happened to me. " * 400 + "What should I do now?"


def test_a_long_post_is_refused_with_both_numbers(tmp_path: Path) -> None:
    with running(tmp_path) as site:
        error = site.post("/v1/generate", {"post": {"text": LONG}}).json()["error"]
    assert (error["code"], error["param"]) == ("context_length_exceeded", "post")
    assert "2904" in error["message"] or "29" in error["message"]


def test_or_loses_its_middle_and_the_answer_says_so(tmp_path: Path) -> None:
    with running(tmp_path, "serving.api.long_posts=cut") as site:
        for body in ({}, {"stream": True}, {"n": 2}):
            response = site.post("/v1/generate", {"post": {"title": "Moved", "text": LONG}, "max_tokens": 50, **body})
            assert response.status_code == 200
            assert '"post_cut":true' in response.text
            prompt = site.gm.seen[-1][1][-1]["content"]
            post = prompt[prompt.index("<post>") : prompt.index("</post>")]
            assert "Moved\n\nFirst I moved here." in post
            assert post.count(MARK.strip()) == 1
            assert "What should I do now?" in post
            assert len(prompt.split()) + 50 <= 2000 < 1.3 * (len(prompt.split()) + 50)  # as much as fits is kept
        short = site.post("/v1/generate", {"post": EXAM}).json()
        assert short["post_cut"] is False
        too_long = site.post("/v1/improve", {"post": EXAM, "draft": "word " * 2500})
        assert too_long.json()["error"]["code"] == "context_length_exceeded"  # a draft is never cut


def test_a_post_of_any_script_is_cut_by_the_tokens_of_a_real_model(tokenizer: str) -> None:
    texts = ["q7" * 9000, "\N{GRINNING FACE}" * 5000, "a " * 9000, ("long" * 40 + " ") * 100]

    async def written() -> list[tuple[bool, int]]:
        engine = TransformersEngine(tokenizer, None, EngineSettings(pages=32))
        await engine.start()
        found = []
        for text in texts:
            model = Fitting(LocalModel("gm", engine))
            prompt = [{"role": "user", "content": f"Answer this.\n<post>\n{text}\n</post>"}]
            piece = await model.write("a", prompt, Sampling(8))
            found.append((model.cut, piece.usage.prompt_tokens))
        await engine.stop()
        return found

    for cut, tokens in asyncio.run(written()):
        assert cut
        assert 250 < tokens <= 512 - 8


def test_what_cannot_be_cut_is_refused() -> None:
    async def written(prompt: str) -> None:
        engine = ScriptedEngine(context_tokens=100)
        await engine.start()
        await Fitting(LocalModel("gm", engine)).write("a", [{"role": "user", "content": prompt}], Sampling(50))

    for prompt in ("word " * 200, "word " * 200 + "<post>\nfew words\n</post>"):
        with pytest.raises(ContextExceeded):
            asyncio.run(written(prompt))
