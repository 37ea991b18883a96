"""The settings decide which engine a replica runs, and how many models it holds in one."""

import pytest

from configs.serving import EngineSettings
from pipelines.generation.transformers_engine import TransformersEngine
from pipelines.generation.vllm_engine import VllmEngine
from serving import engines
from tests.pipelines.generation.tiny import make


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(make(tmp_path_factory.mktemp("engines") / "model", hidden=8, layers=1))


@pytest.mark.parametrize(("kind", "of"), [("transformers", TransformersEngine), ("vllm", VllmEngine)])
@pytest.mark.parametrize("share", [False, True])
def test_each_model_gets_an_engine_of_the_kind_asked_for(kind: str, of: type, share: bool, model: str) -> None:
    models = {"gm": f"{model}/gm", "im": f"{model}/im"} if share else {"gm": model, "im": model}
    settings = EngineSettings(kind=kind)  # type: ignore[arg-type]
    made = engines.made(models, model if share else None, settings, gpu=kind == "vllm")
    assert {name: type(engine) for name, engine in made.items()} == {"gm": of, "im": of}


def test_adapters_of_one_base_share_one_vllm_and_merged_models_do_not(model: str) -> None:
    settings, adapters = EngineSettings(kind="vllm"), {"gm": f"{model}/gm", "im": f"{model}/im"}
    gm, im = engines.made(adapters, model, settings, gpu=True).values()
    assert gm._core is im._core  # type: ignore[attr-defined]
    assert [str(adapter) for adapter in gm._core.adapters] == list(adapters.values())  # type: ignore[attr-defined]
    gm, im = engines.made({"gm": model, "im": model}, None, settings, gpu=True).values()
    assert gm._core is not im._core  # type: ignore[attr-defined]
