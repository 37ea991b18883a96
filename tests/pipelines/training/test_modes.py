"""What a machine cannot run is refused before anything starts, by field, reason and way out."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from cluster.checks import check_settings
from configs import load
from configs.errors import ConfigError, StageOrderError
from configs.settings import Settings
from pipelines import manifest
from pipelines.training import fitting, modes
from pipelines.training.devices import Devices, here, installed, least
from pipelines.training.weights import ADAPTER_CONFIG, load_model
from tests.pipelines.training import steps

GPU = ["training.gpus_per_worker=1", "training.bf16=true"]
HOPPER = Devices(
    gpus=16,
    cuda=True,
    name="NVIDIA H100",
    capability=(9, 0),
    packages=frozenset({"bitsandbytes", "flash-attn", "kernels"}),
    libaio=True,
)
TURING = Devices(gpus=16, cuda=True, name="Tesla T4", capability=(7, 5), packages=frozenset(), libaio=False)
FLASH, HUB = "model.attention=flash_attention_2", "model.attention=kernels-community/flash-attn2"
NVME = ["training.zero_stage=3", "training.offload.parameters=nvme", "training.mode=full"]

REFUSED: dict[str, tuple[list[str], Devices | None, str]] = {
    "unknown attention": (["model.attention=flash"], None, r"model\.attention: flash is no.*sdpa, eager, flex_att"),
    "flash attention on the CPU": ([FLASH, "training.bf16=true"], None, r"flash_attention_2 trains on GPUs only"),
    "flex attention on the CPU": (["model.attention=flex_attention"], None, r"flex_attention trains on GPUs only"),
    "a hub kernel on the CPU": ([HUB], None, r"flash-attn2 trains on GPUs only"),
    "flash attention in float32": ([FLASH, GPU[0]], HOPPER, r"16 bits only; set training\.bf16: true"),
    "flash attention without package": ([FLASH, *GPU], TURING, r"needs the package flash-attn or kernels"),
    "a hub kernel without package": ([HUB, *GPU], TURING, r"needs the package kernels"),
    "flash attention on old GPUs": ([FLASH, *GPU], TURING, r"compute capability 8\.0 and above.*Tesla T4 of 7\.5"),
    "rows end to end without flash attention": (
        ["training.batching=packed", *GPU],
        HOPPER,
        r"training\.batching: pack",
    ),
    "kernels on the CPU": (["model.use_kernels=true"], None, r"model\.use_kernels: .*gpus_per_worker is 0"),
    "kernels without package": (["model.use_kernels=true", *GPU], TURING, r"no package kernels; install.*llumi\[gpu\]"),
    "4 bits on the CPU": (["training.mode=qlora"], None, r"qlora needs a GPU.*take mode lora"),
    "4 bits in float32": (["training.mode=qlora", GPU[0]], HOPPER, r"set training\.bf16: true"),
    "4 bits without package": (["training.mode=qlora", *GPU], TURING, r"bitsandbytes, which some node has not"),
    "bfloat16 on old GPUs": (GPU, TURING, r"training\.bf16: bfloat16 needs.*8\.0.*7\.5; set it to false"),
    "offload without sharding": (["training.zero_stage=0", "training.offload.optimizer=cpu"], None, r"zero_stage 1 or"),
    "weights offloaded by ZeRO-2": (["training.offload.parameters=cpu"], None, r"offload\.parameters: cpu needs.*3"),
    "the optimizer on NVMe": (
        ["training.offload.optimizer=nvme"],
        None,
        r"offload\.optimizer: from nvme.*resumes.*cpu",
    ),
    "a frozen base on NVMe": (
        [*NVME, "training.offload.nvme_path=/x", "training.mode=lora"],
        HOPPER,
        r"^training\.offload\.parameters: where weights on nvme are frozen.*offload to cpu, or take mode full$",
    ),
    "NVMe without a path": (NVME, None, r"training\.offload\.nvme_path: nvme needs a folder"),
    "NVMe without libaio": ([*NVME, "training.offload.nvme_path=/x", GPU[0]], TURING, r"no libaio; install it.*cpu"),
    "GPUs that torch does not see": (GPU, Devices(gpus=2, cuda=False), r"gpus_per_worker: Ray gives GPUs.*sees none"),
    "more workers than GPUs": (
        ["training.workers=17", *GPU],
        HOPPER,
        r"17 workers with 1 GPUs.*17, the cluster has 16",
    ),
}
RUN: dict[str, tuple[list[str], Devices | None]] = {
    "the demo": ([], None),
    "bfloat16 on the CPU": (["training.bf16=true"], None),
    "all weights, everything offloaded": (
        ["training.mode=full", "training.zero_stage=3", "training.offload={optimizer: cpu, parameters: cpu}"],
        None,
    ),
    "NVMe": ([*NVME, "training.offload.nvme_path=/x"], HOPPER),
    "4 bits on Hopper": (["training.mode=qlora", *GPU], HOPPER),
    "flash attention on Hopper": ([FLASH, *GPU, "training.batching=packed"], HOPPER),
    "flash attention by the hub's kernel": ([FLASH, *GPU], Devices(packages=frozenset({"kernels"}))),
    "what nothing is known of": ([FLASH, *GPU, "training.mode=qlora", "training.workers=999"], Devices()),
    "fewer GPUs than the most workers": (["training.workers={min: 2, max: 32}", *GPU], HOPPER),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_run_is_refused(name: str) -> None:
    overrides, devices, message = REFUSED[name]
    with pytest.raises(ConfigError, match=message):
        modes.check(load("demo", overrides), devices)


@pytest.mark.parametrize("name", RUN)
def test_what_can_run_is_let_through(name: str) -> None:
    overrides, devices = RUN[name]
    modes.check(load("demo", overrides), devices)


@pytest.mark.parametrize("preset", ["demo", "tiny", "tiny_untimed", "production"])
def test_every_preset_can_run_on_the_machines_it_is_for(preset: str) -> None:
    modes.check(load(preset), HOPPER)


def test_all_reasons_come_at_once() -> None:
    overrides = ["training.mode=qlora", "model.use_kernels=true", "training.offload.parameters=cpu"]
    with pytest.raises(ConfigError, match=r"training\.mode.*training\.offload\.parameters") as refused:
        modes.check(load("demo", overrides))
    assert "model.use_kernels" in str(refused.value)


def test_a_run_is_refused_before_its_first_stage() -> None:
    with pytest.raises(ConfigError, match=r"training\.mode: qlora"):
        check_settings(load("demo", ["training.mode=qlora"]))


def test_a_cluster_has_what_its_weakest_machine_has() -> None:
    both = least([HOPPER, TURING], gpus=None)
    assert (both.name, both.capability, both.packages, both.libaio) == ("Tesla T4", (7, 5), frozenset(), False)


def test_this_machine_is_looked_at() -> None:
    found = here()
    assert found.host_memory is not None and found.host_memory > 10**9
    assert (found.capability is None) == (not torch.cuda.is_available())
    assert installed("torch") and not installed("no-such-distribution")


# Whether an adapter fits its base.


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base as ``llumi run`` leaves it, with a manifest."""
    folder = tmp_path_factory.mktemp("models") / "base"
    with manifest.writing(folder, stage="base", settings={}, inputs={}) as draft:
        steps.tiny_base(draft.path)
    return folder


@pytest.fixture
def adapter(base: Path, tmp_path: Path) -> Path:
    """An adapter made on it."""
    from peft import LoraConfig, get_peft_model

    folder = tmp_path / "adapters" / "gm" / "sft"
    inputs = manifest.fingerprints({"base": base})
    with manifest.writing(folder, stage="train/gm/sft", settings={"revision": None}, inputs=inputs) as draft:
        config = LoraConfig(r=2, target_modules=["q_proj", "down_proj"], task_type="CAUSAL_LM")
        get_peft_model(load_model(str(base)), config).save_pretrained(draft.path)
    return folder


def settings(*overrides: str) -> Settings:
    return load("demo", list(overrides))


def start(adapter: Path, base: Path, *overrides: str) -> None:
    fitting.check_start(settings(*overrides), {"base": base, "start": adapter}, "llumi train CONFIG --stage sft")


def test_an_adapter_of_this_base_is_continued(adapter: Path, base: Path) -> None:
    start(adapter, base)


def test_an_adapter_of_a_base_made_again_is_refused(adapter: Path, base: Path, tmp_path: Path) -> None:
    other = tmp_path / "base"
    shutil.copytree(base, other)
    written = json.loads((other / manifest.FILE).read_text())
    (other / manifest.FILE).write_text(json.dumps(written | {"created": "later"}))
    with pytest.raises(StageOrderError, match=r"trained on another base: .*made again since.*--stage sft"):
        start(adapter, other)


def test_an_adapter_of_another_revision_is_refused(adapter: Path, base: Path) -> None:
    with pytest.raises(StageOrderError, match=r"revision was None, model\.revision is v2"):
        start(adapter, base, "model.revision=v2")


def test_an_adapter_of_other_sizes_is_refused_by_layer_and_sizes(adapter: Path, base: Path) -> None:
    (adapter / manifest.FILE).unlink()  # made elsewhere
    start(adapter, base)
    file = adapter / "adapter_model.safetensors"
    tensors = load_file(file)
    name = next(name for name in tensors if "q_proj.lora_A" in name)
    save_file(tensors | {name: torch.zeros(2, 48)}, file)
    with pytest.raises(StageOrderError, match=r"q_proj is 32 x 48 in the adapter and 32 x 32 in base"):
        start(adapter, base)
    save_file({name.replace("q_proj", "c_attn"): value for name, value in tensors.items()}, file)
    with pytest.raises(StageOrderError, match=r"self_attn\.c_attn is no layer of base"):
        start(adapter, base)


@pytest.mark.parametrize(("mode", "held"), [("full", "an adapter"), ("lora", "a whole model")])
def test_each_mode_continues_its_own_kind(mode: str, held: str, adapter: Path, base: Path) -> None:
    if mode == "lora":
        (adapter / ADAPTER_CONFIG).unlink()
        shutil.copy(base / "config.json", adapter)
    with pytest.raises(StageOrderError, match=rf"holds {held} .*training\.mode is {mode}"):
        start(adapter, base, f"training.mode={mode}")


def test_a_folder_without_either_is_refused(base: Path, tmp_path: Path) -> None:
    with pytest.raises(StageOrderError, match="holds no model and no adapter"):
        start(tmp_path, base)


def targets(base: Path, *names: str, mode: str = "lora") -> None:
    fitting.check_targets(settings(f"training.lora.targets=[{', '.join(names)}]", f"training.mode={mode}"), str(base))


@pytest.mark.parametrize("weights", [True, False])
def test_targets_that_match_nothing_are_named_with_those_there_are(weights: bool, base: Path, tmp_path: Path) -> None:
    folder = base
    if not weights:  # a base that is still to be fetched, of which there is the configuration
        folder = tmp_path / "base"
        folder.mkdir()
        shutil.copy(base / "config.json", folder)
    targets(folder, "q_proj", "self_attn.v_proj", "down_proj")
    with pytest.raises(
        ConfigError, match=r"lora\.targets: c_attn, proj match no linear.*base; it has down_proj, .*q_p"
    ):
        targets(folder, "q_proj", "c_attn", "proj")
    targets(folder, "c_attn", mode="full")


def test_no_weights_are_read(base: Path, tmp_path: Path) -> None:
    """Only headers: a base whose weights are cut off behind them is still compared."""
    folder: Any = tmp_path / "base"
    shutil.copytree(base, folder)
    file = folder / "model.safetensors"
    with file.open("rb") as opened:
        length = 8 + int.from_bytes(opened.read(8), "little")
    with file.open("r+b") as opened:
        opened.truncate(length)
    targets(folder, "q_proj")
