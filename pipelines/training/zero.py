"""DeepSpeed's configuration, from ours.

ZeRO (Rajbhandari et al. 2020) shards over workers: stage 1 the optimizer's state, 2 also
gradients, 3 also weights. Batch sizes are left to the trainer ("auto"), so that they are
stated once. The optimizer is torch's AdamW, since DeepSpeed's own needs a compiler at run time.
"""

from typing import Any

from configs.training import TrainingSettings

NEVER = 1_000_000_000


def deepspeed_config(training: TrainingSettings) -> dict[str, Any]:
    """The dictionary that ``TrainingArguments(deepspeed=...)`` takes."""
    zero: dict[str, Any] = {"stage": training.zero_stage, "overlap_comm": training.gpus_per_worker > 0}
    if training.zero_stage == 3:
        zero |= {
            "stage3_gather_16bit_weights_on_model_save": True,
            "stage3_prefetch_bucket_size": "auto",
            "stage3_param_persistence_threshold": "auto",
            "reduce_bucket_size": "auto",
        }
    return {
        "train_batch_size": "auto",
        "train_micro_batch_size_per_gpu": "auto",
        "gradient_accumulation_steps": "auto",
        "gradient_clipping": training.grad_norm,
        "bf16": {"enabled": training.bf16},
        "zero_optimization": zero,
        "steps_per_print": NEVER,
        "wall_clock_breakdown": False,
    }


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
