"""DeepSpeed's configuration, from ours.

ZeRO (Rajbhandari et al. 2020) shards over workers: stage 1 the optimizer's state, 2 also
gradients, 3 also weights. Batch sizes are left to the trainer ("auto"), so that they are
stated once. The optimizer is torch's AdamW, offloaded or not, since DeepSpeed's own needs a
compiler at run time; what that costs with offload is the speed of the step on the host.
"""

from typing import Any

from configs.training import OffloadSettings, TrainingSettings

NEVER = 1_000_000_000


def deepspeed_config(training: TrainingSettings) -> dict[str, Any]:
    """The dictionary that ``TrainingArguments(deepspeed=...)`` takes."""
    on_gpu = training.gpus_per_worker > 0
    zero: dict[str, Any] = {"stage": training.zero_stage, "overlap_comm": on_gpu, **offloaded(training.offload, on_gpu)}
    # "auto" is the hidden size squared. DeepSpeed's own 500 million would take 1 GB of a GPU, twice over with overlap.
    zero["reduce_bucket_size"] = "auto"
    if training.zero_stage == 3:
        zero |= {
            "stage3_gather_16bit_weights_on_model_save": True,
            "stage3_prefetch_bucket_size": "auto",
            "stage3_param_persistence_threshold": "auto",
        }
    return {
        "train_batch_size": "auto",
        "train_micro_batch_size_per_gpu": "auto",
        "gradient_accumulation_steps": "auto",
        "gradient_clipping": training.grad_norm,
        "bf16": {"enabled": training.bf16},
        "zero_optimization": zero,
        "zero_force_ds_cpu_optimizer": False,
        "steps_per_print": NEVER,
        "wall_clock_breakdown": False,
    }


def offloaded(offload: OffloadSettings, on_gpu: bool) -> dict[str, Any]:
    """Where optimizer state and weights lie that are not on the GPU; page-locked where a GPU copies them."""
    places = {"offload_optimizer": offload.optimizer, "offload_param": offload.parameters}
    config: dict[str, Any] = {}
    for name, device in places.items():
        if device != "none":
            config[name] = {"device": device, "pin_memory": on_gpu}
        if device == "nvme":
            config[name]["nvme_path"] = offload.nvme_path
    return config


def join(on_gpu: bool) -> None:
    """Have DeepSpeed use the process group that Ray Train has made; without it, ZeRO-3 counts one worker.

    On the CPU it is first told that none of its compiled operators is there. Training uses
    none, yet it would probe all of them with a compiler and build ``deepspeed_shm_comm``,
    which takes half a minute.
    """
    import deepspeed

    if not on_gpu:
        deepspeed.ops.__compatible_ops__ = {}
    deepspeed.init_distributed(dist_backend="nccl" if on_gpu else "gloo", auto_mpi_discovery=False, verbose=False)
