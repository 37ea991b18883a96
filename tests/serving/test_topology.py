"""Topologies on real Serve: both models on one base, a model that sleeps, models from a store, fractions of a GPU."""

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from configs.settings import Settings
from pipelines.generation.transformers_engine import TransformersEngine
from serving import api, rollout, service
from serving.arguments import ModelPaths
from serving.services import Services
from tests.pipelines.generation.tiny import make
from tests.ports import free_port
from tests.serving.conftest import settings_for
from tests.serving.load import DRAFT, POST, Load
from tests.serving.local import LocalModel

pytestmark = pytest.mark.slow
ASKED = {"generate": {"post": POST, "temperature": 0}, "improve": {"post": POST, "draft": DRAFT, "temperature": 0}}
MODEL = {"generate": "gm", "improve": "im"}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(make(tmp_path_factory.mktemp("shared") / "base", positions=8192, endless=True))


@pytest.fixture(scope="module")
def adapters(base: str, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Three random adapters, strong enough to change what is written."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    found = []
    for seed in range(3):
        torch.manual_seed(seed)
        config = LoraConfig(r=4, lora_alpha=32, target_modules=["q_proj", "v_proj"], init_lora_weights=False)
        model = get_peft_model(AutoModelForCausalLM.from_pretrained(base), config)
        found.append(str(tmp_path_factory.mktemp("adapter") / str(seed)))
        model.save_pretrained(found[-1])
    return found


def text_of(answer: httpx.Response) -> str:
    """The draft or the revision."""
    body = answer.json()
    assert answer.status_code == 200, body
    found: str = body["revision"] if "revision" in body else body["drafts"][0]["text"]
    return found


def alone(settings: Settings, base: str, adapter: str, kind: str) -> str:
    """What the application answers over one adapter in this process, without Serve and without another adapter."""

    async def answer() -> str:
        engine = TransformersEngine(base, Path(adapter), settings.serving.engine)
        await engine.start()
        models = (LocalModel("gm", engine), LocalModel("im", engine))
        services = Services.of(
            *models, serving=settings.serving, generation=settings.generation, prompts=settings.prompts
        )
        transport = httpx.ASGITransport(api.create(services))
        async with httpx.AsyncClient(transport=transport, base_url="http://llumi", timeout=60) as client:
            try:
                return text_of(await client.post(f"/v1/{kind}", json=ASKED[kind]))
            finally:
                await engine.stop()

    return asyncio.run(answer())


@pytest.fixture
def one_base(ray_cluster: None, base: str, adapters: list[str], tmp_path: Path) -> Iterator[tuple[Settings, str]]:
    """Both models as two adapters on one base, in one deployment; the settings and the URL."""
    two = ["serving.topology.models.cpus=0.5", "serving.topology.models.max_replicas=1"]
    settings = settings_for(free_port(), tmp_path, "serving.topology.kind=shared", *two)
    yield settings, service.start(settings, ModelPaths(gm=adapters[0], im=adapters[1], base=base))
    service.stop()


def test_gm_and_im_answer_as_their_adapters_on_one_base_and_one_of_them_is_rolled_out(
    one_base: tuple[Settings, str], base: str, adapters: list[str]
) -> None:
    settings, url = one_base

    def served(kind: str) -> str:
        return text_of(httpx.post(f"{url}/v1/{kind}", json=ASKED[kind], timeout=60, trust_env=False))

    written = {(kind, adapter): alone(settings, base, adapter, kind) for kind in ASKED for adapter in adapters}
    assert len(set(written.values())) == len(written)  # each adapter is told by its answer
    assert service.running_replicas("llumi-models", "models") == 1
    gm, im, new = adapters
    assert (served("generate"), served("improve")) == (written["generate", gm], written["improve", im])

    with Load(url, clients=3) as load:
        for step in (
            lambda document: rollout.started(document, "gm", new, 0.5),
            lambda document: rollout.promoted(document, "gm", 1),
            lambda document: rollout.finished(document, "gm"),
        ):
            before = service.deployed()
            rollout.run(step(before), "gm", before, 120)
            load.wait(6)
    assert load.account.balanced()
    assert not load.account.lost and not load.account.refused, load.account
    assert (served("generate"), served("improve")) == (written["generate", new], written["improve", im])
    assert service.running_replicas("llumi-models", "models") == 1


def test_a_model_that_sleeps_is_woken_by_a_request_and_none_is_lost(
    ray_cluster: None, models: ModelPaths, tmp_path: Path
) -> None:
    sleeping = ["serving.im.min_replicas=0", "serving.im.max_replicas=1", "serving.im.downscale_delay_s=1"]
    settings = settings_for(free_port(), tmp_path, *sleeping)
    url = service.start(settings, models)
    try:
        until(lambda: service.running_replicas("llumi-im", "im") == 0, 60)
        assert httpx.get(f"{url}/healthz", timeout=10, trust_env=False).status_code == 200
        listed = httpx.get(f"{url}/v1/models", timeout=10, trust_env=False).json()["data"]
        assert [(model["id"], model["status"]) for model in listed] == [("llumi-gm", "ok"), ("llumi-im", "on demand")]
        assert service.running_replicas("llumi-im", "im") == 0, "it was woken to say that it sleeps"
        with Load(url, clients=4, kinds=("improve",)) as load:
            load.wait(12)
        assert load.account.balanced()
        assert not load.account.lost and not load.account.refused, load.account
        until(lambda: service.running_replicas("llumi-im", "im") == 0, 60)
    finally:
        service.stop()


PLACED = """
import json, ray
from ray import serve
from ray.cluster_utils import Cluster
from configs.topology import DeploymentSettings
from serving.app import sized

@serve.deployment
class Where:
    def look(self):
        context = ray.get_runtime_context()
        return ray.get_gpu_ids(), context.get_node_labels()["llumi/pool"], context.get_assigned_resources()["GPU"]

cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 4, "num_gpus": 2, "labels": {"llumi/pool": "head"}})
cluster.add_node(num_cpus=2, num_gpus=1, labels={"llumi/pool": "serve"})
ray.init(address=cluster.address, log_to_driver=False)
settings = DeploymentSettings(gpus=0.5, cpus=0.5, max_replicas=1)
seen = []
for name in ("gm", "im"):
    app = sized(Where, name, settings, 1.0, {"llumi/pool": "serve"}).bind()
    seen.append(serve.run(app, name=name, route_prefix=None).look.remote().result())
print("SEEN", json.dumps(seen))
free = ray._private.state.available_resources_per_node()
print("FREE", json.dumps({node["Labels"]["llumi/pool"]: free[node["NodeID"]].get("GPU", 0) for node in ray.nodes()}))
serve.shutdown()
ray.shutdown()
cluster.shutdown()
"""


def test_two_replicas_share_a_gpu_of_the_labelled_node() -> None:
    """The GPUs are such by Ray's accounts only: what is held here is where replicas go and what they are given."""
    shown = subprocess.run([sys.executable, "-c", PLACED], capture_output=True, text=True, timeout=150, check=False)
    assert shown.returncode == 0, shown.stderr[-3000:]
    told = dict(line.split(" ", 1) for line in shown.stdout.splitlines() if line.startswith(("SEEN ", "FREE ")))
    assert json.loads(told["SEEN"]) == [[[0], "serve", 0.5]] * 2
    assert json.loads(told["FREE"]) == {"head": 2, "serve": 0}


def until(condition: Callable[[], bool], seconds: float) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "did not come true in time"
        time.sleep(0.2)
