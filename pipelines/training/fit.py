"""Running a plan on Ray Train: N workers, retries, checkpoints; the only place that knows ``TorchTrainer``."""

import json
import logging
import os
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from configs.errors import TrainingError
from configs.training import TrainingSettings
from pipelines.training.loop import FAILURE, SUMMARY, starts, train_loop_per_worker
from pipelines.training.plan import Plan

logger = logging.getLogger("llumi.training")

DRIVER_ENVIRONMENT = {
    "RAY_TRAIN_ENABLE_PRINT_PATCH": "0",  # else the hashing of rows is echoed to the log as raw bytes
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",  # each run waits this long at its start and end
}
CPU_ENVIRONMENT = {"RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0"}
"""Machines without accelerators are not spot instances, and the watcher is one more process to start."""
CPU_WORKER_ENVIRONMENT = {"DS_ACCELERATOR": "cpu", "TORCHDYNAMO_DISABLE": "1", **CPU_ENVIRONMENT}
"""DeepSpeed imports torch's compiler, which takes seconds and is of no use here."""
WORKER_ENVIRONMENT = {"TOKENIZERS_PARALLELISM": "false", "HF_HUB_DISABLE_TELEMETRY": "1"}


def fit(plan: Plan) -> dict[str, Any]:
    """Train as the plan says, remove its checkpoints, and return the workers' summary.

    Raises NoSpace where storage has no room for its checkpoints, TrainingError where training cannot
    go on, or failed more often than ``max_failures``.
    """
    on_gpu = plan.training.gpus_per_worker > 0
    for name, value in {**DRIVER_ENVIRONMENT, **({} if on_gpu else CPU_ENVIRONMENT)}.items():
        os.environ.setdefault(name, value)
    from ray.train import TrainingFailedError

    from pipelines.training import checkpoint, storage
    from pipelines.training.elastic import ElasticTrainer
    from pipelines.training.network import PinnedTorchConfig

    storage.check(plan)
    checkpoint.check(plan)

    logger.info("%s: training starts on %d workers", plan.name, plan.training.most_workers)
    trainer = ElasticTrainer(
        train_loop_per_worker,
        plan=plan,
        train_loop_config={"plan": plan, "started": time.time()},
        scaling_config=scaling(plan.training, plan.selector),
        run_config=running(plan),
        torch_config=PinnedTorchConfig(backend="nccl" if on_gpu else "gloo", interface=plan.training.interface),
        **streamed(plan),
    )
    began = time.time()
    try:
        beside(trainer.fit)
    except TrainingFailedError as error:
        raise TrainingError(f"{plan.name}: {reason(error)}; the checkpoints stay: run the same again") from error
    failure = Path(plan.output) / FAILURE
    if failure.is_file():
        raise TrainingError(f"{plan.name}: {json.loads(failure.read_text(encoding='utf-8'))['message']}")
    path = Path(plan.output) / SUMMARY
    summary: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    path.unlink()
    summary["seconds"]["total"] = round(time.time() - began, 2)
    summary["starts"] = starts(Path(plan.storage))
    storage.clear(plan)
    if summary["checkpoints_skipped"]:
        logger.warning("%s: %d checkpoints were not stored", plan.name, summary["checkpoints_skipped"])
    logger.info("%s: %d steps, %.0f tokens/s", plan.name, summary["steps"], summary["tokens_per_second"])
    return summary


def beside(call: Callable[[], object]) -> None:
    """Run ``call`` to its end in a thread beside this one, and raise what it raises.

    In the main thread Ray would put its own handler on Ctrl-C, which ends the program as if all
    were well and stays after training. So, Ctrl-C raises KeyboardInterrupt here as anywhere,
    and Ray stops the workers when their driver ends.
    """
    done: Future[None] = Future()

    def run() -> None:
        try:
            call()
        except BaseException as error:  # handed to the waiting thread, whatever it is
            done.set_exception(error)
        else:
            done.set_result(None)

    threading.Thread(target=run, name="llumi-training", daemon=True).start()
    done.result()


def streamed(plan: Plan) -> dict[str, Any]:
    """What Ray's trainer is given besides, where training rows are streamed; it imports torch."""
    if plan.training.ingest != "stream":
        return {}
    from pipelines.training import streaming

    return streaming.words_of(plan)


def scaling(training: TrainingSettings, selector: Mapping[str, str]) -> Any:
    """Workers, what each asks of Ray, and the labels of the nodes they may run on."""
    from ray.train import ScalingConfig

    on_gpu = training.gpus_per_worker > 0
    resources: dict[str, float] = {"CPU": training.cpus_per_worker}
    if on_gpu:
        resources["GPU"] = training.gpus_per_worker
    workers = training.workers
    return ScalingConfig(
        num_workers=workers if isinstance(workers, int) else (workers.min, workers.max),
        use_gpu=on_gpu,
        resources_per_worker=resources,
        placement_strategy=training.placement,
        label_selector=dict(selector) or None,
    )


def running(plan: Plan) -> Any:
    """Name, storage, retries, and the workers' environment."""
    from ray.train import FailureConfig, RunConfig

    environment = dict(WORKER_ENVIRONMENT)
    if plan.training.gpus_per_worker == 0:
        environment |= CPU_WORKER_ENVIRONMENT
    environment |= {name: os.environ[name] for name in CPU_ENVIRONMENT if name in os.environ}
    storage = Path(plan.storage)
    return RunConfig(
        name=storage.name,
        storage_path=str(storage.parent),
        failure_config=FailureConfig(max_failures=plan.training.max_failures),
        worker_runtime_env={"env_vars": environment},
    )


def reason(error: BaseException) -> str:
    """The workers' own errors, one line each, without their stack traces."""
    failures = getattr(error, "worker_failures", None) or {0: error}
    lines = {f"worker {rank}: {last_line(failure)}" for rank, failure in failures.items()}
    return "; ".join(sorted(lines))


def last_line(error: BaseException) -> str:
    """The line of a remote error that names it."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
