"""Which ways of training a machine cannot run, told before anything starts.

    check(settings)                    what the settings alone rule out
    check(settings, devices.look(...)) and what the cluster's cards and packages do

A table of small rules. Each looks at one thing and answers None, or a line that names the field,
the reason and the way out. What is not known of the devices is not held against them.

Not covered: whether the memory suffices, which is the planner's to say, and whether an adapter
fits its base, which ``fitting.py`` reads from their files.
"""

from collections.abc import Callable
from dataclasses import dataclass

from configs.errors import ConfigError
from configs.settings import Settings
from pipelines.training import batching
from pipelines.training.devices import Devices

Rule = Callable[[Settings, Devices], str | None]
AMPERE, HOPPER = (8, 0), (9, 0)
GPU_EXTRA = "install it on every node, for example with `pip install 'llumi[gpu]'`"


@dataclass(frozen=True)
class Flash:
    """What one generation of FlashAttention needs."""

    distribution: str
    """The package that has it; the hub's ``kernels`` have it too."""
    capability: tuple[int, int]
    """The oldest GPUs it runs on."""


PLAIN = ("sdpa", "eager", "flex_attention")
"""Attention that comes with torch."""
FLASH = {
    "flash_attention_2": Flash("flash-attn", AMPERE),
    "flash_attention_3": Flash("flash-attn-3", AMPERE),
    "flash_attention_4": Flash("flash-attn-4", HOPPER),
}
"""As transformers names and checks them."""


def check(settings: Settings, devices: Devices | None = None) -> None:
    """Raises ConfigError with every reason why training cannot run as it is set; None knows nothing of devices."""
    reasons = [reason for rule in RULES if (reason := rule(settings, devices or Devices()))]
    if reasons:
        raise ConfigError("; ".join(reasons))


def is_flash(attention: str) -> bool:
    """Whether this attention is FlashAttention, by whatever package."""
    return attention in FLASH or (is_hub_kernel(attention) and "flash" in attention)


def is_hub_kernel(attention: str) -> bool:
    """Whether the name is one of a kernel on the hub, ``kernels-community/flash-attn2``."""
    return attention.count("/") == 1


def attention_is_known(settings: Settings, devices: Devices) -> str | None:
    name = settings.model.attention
    if name in PLAIN or name in FLASH or is_hub_kernel(name):
        return None
    return (
        f"model.attention: {name} is no attention implementation; take {', '.join((*PLAIN, *FLASH))}, or a kernel of "
        "the hub like kernels-community/flash-attn2"
    )


def attention_runs_on_this_device(settings: Settings, devices: Devices) -> str | None:
    name = settings.model.attention
    if on_gpu(settings) or name in ("sdpa", "eager") or attention_is_known(settings, devices):
        return None
    return f"model.attention: {name} trains on GPUs only and training.gpus_per_worker is 0; set it, or take sdpa"


def flash_attention_has_its_precision(settings: Settings, devices: Devices) -> str | None:
    name = settings.model.attention
    if not is_flash(name) or settings.training.bf16:
        return None
    return f"model.attention: {name} computes in 16 bits only; set training.bf16: true, or take sdpa"


def flash_attention_has_its_package(settings: Settings, devices: Devices) -> str | None:
    name = settings.model.attention
    flash = FLASH.get(name)
    wanted = {flash.distribution, "kernels"} if flash else {"kernels"} if is_hub_kernel(name) else set()
    if not wanted or devices.packages is None or wanted & devices.packages:
        return None
    return (
        f"model.attention: {name} needs the package {' or '.join(sorted(wanted))}, which some node has not; install it "
        "on every node, or take sdpa"
    )


def flash_attention_has_its_gpu(settings: Settings, devices: Devices) -> str | None:
    flash = FLASH.get(settings.model.attention)
    if flash is None or devices.capability is None or devices.capability >= flash.capability:
        return None
    return (
        f"model.attention: {settings.model.attention} needs GPUs of compute capability {dotted(flash.capability)} and "
        f"above, {card(devices)}; take sdpa"
    )


def rows_can_share_a_micro_batch(settings: Settings, devices: Devices) -> str | None:
    try:
        batching.check(settings.training, settings.model.attention)
    except ConfigError as error:
        return str(error)
    return None


def kernels_are_there(settings: Settings, devices: Devices) -> str | None:
    if not settings.model.use_kernels:
        return None
    if not on_gpu(settings):
        return "model.use_kernels: the hub's kernels run on GPUs and training.gpus_per_worker is 0; set it to false"
    if devices.packages is None or "kernels" in devices.packages:
        return None
    return f"model.use_kernels: some node has no package kernels; {GPU_EXTRA}, or set it to false"


def four_bits_are_there(settings: Settings, devices: Devices) -> str | None:
    if settings.training.mode != "qlora":
        return None
    if not on_gpu(settings):
        return "training.mode: qlora needs a GPU and training.gpus_per_worker is 0; set it, or take mode lora"
    if not settings.training.bf16:
        return "training.mode: qlora trains its adapter in bfloat16; set training.bf16: true, or take mode lora"
    if devices.packages is None or "bitsandbytes" in devices.packages:
        return None
    return f"training.mode: qlora needs the package bitsandbytes, which some node has not; {GPU_EXTRA}"


def bfloat16_is_there(settings: Settings, devices: Devices) -> str | None:
    if not settings.training.bf16 or devices.capability is None or devices.capability >= AMPERE:
        return None
    return (
        f"training.bf16: bfloat16 needs GPUs of compute capability {dotted(AMPERE)} and above, {card(devices)}; "
        "set it to false"
    )


def optimizer_can_be_offloaded(settings: Settings, devices: Devices) -> str | None:
    stage, place = settings.training.zero_stage, settings.training.offload.optimizer
    if place == "none" or stage > 0:
        return None
    return (
        f"training.offload.optimizer: {place} needs training.zero_stage 1 or above and it is {stage}, where "
        "DeepSpeed would ignore it without a word; raise the stage, or set it to none"
    )


def parameters_can_be_offloaded(settings: Settings, devices: Devices) -> str | None:
    stage, place = settings.training.zero_stage, settings.training.offload.parameters
    if place == "none" or stage == 3:
        return None
    return (
        f"training.offload.parameters: {place} needs training.zero_stage 3 and it is {stage}, where DeepSpeed would "
        "ignore it without a word; raise the stage, or set it to none"
    )


def optimizer_survives_a_restart(settings: Settings, devices: Devices) -> str | None:
    if settings.training.offload.optimizer != "nvme":
        return None
    return (
        "training.offload.optimizer: from nvme DeepSpeed 0.19 restores no state of the optimizer when training "
        "resumes, so that a restart would change the result; take cpu"
    )


def weights_on_nvme_are_trained(settings: Settings, devices: Devices) -> str | None:
    if settings.training.offload.parameters != "nvme" or settings.training.mode == "full":
        return None
    return (
        "training.offload.parameters: where weights on nvme are frozen, as an adapter's base is, DeepSpeed 0.19 runs "
        "out of buffers to read them into; offload to cpu, or take mode full"
    )


def nvme_is_there(settings: Settings, devices: Devices) -> str | None:
    offload = settings.training.offload
    if offload.parameters != "nvme":
        return None
    if offload.nvme_path is None:
        return "training.offload.nvme_path: nvme needs a folder on each node's own disk; name it, or offload to cpu"
    if devices.libaio is not False:
        return None
    return "training.offload: for nvme, some node has no libaio; install it (Debian: libaio-dev), or offload to cpu"


def workers_have_gpus(settings: Settings, devices: Devices) -> str | None:
    training = settings.training
    asked = training.least_workers * training.gpus_per_worker
    if devices.gpus is None or asked <= devices.gpus:
        return None
    return (
        f"training.workers: {training.least_workers} workers with {training.gpus_per_worker:g} GPUs each ask for "
        f"{asked:g}, the cluster has {devices.gpus:g}; lower workers, or add nodes"
    )


def torch_sees_the_gpus(settings: Settings, devices: Devices) -> str | None:
    if devices.cuda is not False:
        return None
    return (
        "training.gpus_per_worker: Ray gives GPUs on some node where torch sees none; install a torch built for CUDA "
        "and the driver there, or set it to 0"
    )


RULES: tuple[Rule, ...] = (
    attention_is_known,
    attention_runs_on_this_device,
    flash_attention_has_its_precision,
    flash_attention_has_its_package,
    flash_attention_has_its_gpu,
    rows_can_share_a_micro_batch,
    kernels_are_there,
    four_bits_are_there,
    bfloat16_is_there,
    optimizer_can_be_offloaded,
    parameters_can_be_offloaded,
    optimizer_survives_a_restart,
    weights_on_nvme_are_trained,
    nvme_is_there,
    workers_have_gpus,
    torch_sees_the_gpus,
)


def on_gpu(settings: Settings) -> bool:
    """Whether training asks for GPUs."""
    return settings.training.gpus_per_worker > 0


def card(devices: Devices) -> str:
    """The weakest GPU in words."""
    return f"and the cluster has {devices.name or 'one'} of {dotted(devices.capability or (0, 0))}"


def dotted(capability: tuple[int, int]) -> str:
    """A compute capability as NVIDIA writes it."""
    return ".".join(map(str, capability))
