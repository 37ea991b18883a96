"""Seconds of an optimizer step: our job on Ray Train against the same job on torchrun, DeepSpeed and TRL.

The same random Mistral of 6 million weights, LoRA, ZeRO-2 over gloo, one torch thread a worker, rows
of one length so that any order costs the same, curves to TensorBoard every ten steps in both, no
checkpoint. The ways run in turns, each in processes of its own. What is timed goes from the end of
the first step to the end of the last: starting up is ``training``'s part. Seconds of the wall are
those of a whole machine, so others on it blur them; with one worker the CPU seconds of the
training process are compared too, which tell what our code costs in it and leave Ray's daemons out.
"""

import json
import os
import random
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.training import SPLITS, VOCABULARY, alone
from configs.settings import Settings
from pipelines.training.plan import Plan
from pipelines.training.tokens import SFT_TOKENS

STEPS, MICRO_BATCH, LENGTH, COMPLETION = 24, 4, 256, 64
ROUNDS = 3
LOG_EVERY = 10
END = 0
"""The tokenizer's end-of-sequence token."""


def run(root: Path, workers: int, rounds: int = ROUNDS) -> dict[str, object]:
    """Median seconds a step of both ways and their ratio, above 1 where ours is the quicker one."""
    write_rows(root / f"rows-{workers}", STEPS * MICRO_BATCH * workers)
    taken: dict[str, list[float]] = {"torchrun": [], "ray_train": []}
    load, cpu = [], []
    for number in range(rounds):
        load.append(round(os.getloadavg()[0], 2))
        plain, plain_cpu = by_torchrun(root, workers, number)
        taken["torchrun"].append(plain)
        taken["ray_train"].append(alone(by_ray_train, root, workers, number))
        if workers == 1:
            cpu.append(plain_cpu / alone(in_process, root, number))
    ratios = [plain / ours for plain, ours in zip(taken["torchrun"], taken["ray_train"], strict=True)]
    alike = {"torchrun / our trainer, CPU seconds": [round(ratio, 3) for ratio in cpu]} if cpu else {}
    return {
        **alike,
        "seconds_a_step": {name: [round(value, 4) for value in values] for name, values in taken.items()},
        "torchrun / Ray Train": round(statistics.median(ratios), 3),
        "each round": [round(ratio, 3) for ratio in ratios],
        "load before each round": load,
    }


def write_rows(folder: Path, count: int) -> None:
    """Random rows of one length for training, none for validation."""
    draw = random.Random(0)
    rows = []
    for number in range(count):
        ids = [draw.randrange(5, VOCABULARY) for _ in range(LENGTH - 1)] + [END]
        labels = [-100] * (LENGTH - COMPLETION) + ids[-COMPLETION:]
        names = {"post_id": f"p{number}", "comment_id": f"c{number}"}
        rows.append({"input_ids": ids, "labels": labels, "length": LENGTH, **names})
    for split, made in zip(SPLITS, (rows, []), strict=True):
        (folder / split).mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.Table.from_pylist(made, schema=SFT_TOKENS), folder / split / "part-0.parquet")


def plan_of(root: Path, workers: int, name: str) -> Plan:
    """Our job."""
    sft = {"micro_batch": MICRO_BATCH, "max_steps": STEPS, "save_every": 10 * STEPS, "learning_rate": 1e-4}
    training = {"workers": workers, "sft": sft, "log_every": LOG_EVERY, "lora": {"dropout": 0.0}}
    settings = Settings.model_validate({"output": str(root), "training": training})
    output = root / "adapters" / name
    output.mkdir(parents=True)
    return Plan(
        name=name,
        task="sft",
        tokens=str(root / f"rows-{workers}"),
        reference=None,
        base=str(root / "base"),
        revision=None,
        start=None,
        output=str(output),
        storage=str(root / "checkpoints" / name),
        attention="sdpa",
        stage=settings.training.sft,
        training=settings.training,
        seed=1,
        logs=str(root / "logs"),
    )


def by_ray_train(root: Path, workers: int, number: int) -> float:
    """Seconds a step of our job, on a Ray of its own."""
    import ray

    from pipelines.training.fit import fit

    cpus = max(2, workers)
    ray.init("local", num_cpus=cpus, include_dashboard=False, log_to_driver=False, object_store_memory=100_000_000)
    try:
        done = fit(plan_of(root, workers, f"ours-{workers}-{number}"))
    finally:
        ray.shutdown()
    assert done["steps"] == STEPS, done
    seconds: float = done["seconds"]["steps"] / (STEPS - 1)
    return seconds


def in_process(root: Path, number: int) -> float:
    """CPU seconds a step of our trainer with all that a worker hangs on it, without Ray around it."""
    import time

    import torch

    from benchmarks.training import environment
    from pipelines.training import trainers, zero
    from pipelines.training.rows import open_rows
    from pipelines.training.weights import load_tokenizer, trainable_model

    environment()
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo")
    zero.join(on_gpu=False)
    plan = plan_of(root, 1, f"alone-{number}")
    arguments = trainers.arguments(plan, root / f"scratch-{number}")
    trainer = trainers.make_trainer(plan, arguments, trainable_model(plan), load_tokenizer(plan.base), open_rows(plan))
    marks: list[float] = []
    trainer.add_callback(trainers.OnFirstStep(lambda: marks.append(time.process_time())))
    trainer.train()
    return (time.process_time() - marks[0]) / (STEPS - 1)


def by_torchrun(root: Path, workers: int, number: int) -> tuple[float, float]:
    """Seconds a step of the baseline, of the wall and of the CPU."""
    from pipelines.training.fit import CPU_WORKER_ENVIRONMENT

    folder = root / f"torchrun-{workers}-{number}"
    folder.mkdir()
    job = job_of(plan_of(root, workers, f"plain-{workers}-{number}"), folder)
    (folder / "job.json").write_text(json.dumps(job), encoding="utf-8")
    script = str(Path(__file__).with_name("plain_sft.py"))
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={workers}"]
    env = os.environ | CPU_WORKER_ENVIRONMENT | {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    done = subprocess.run(
        [*torchrun, script, str(folder / "job.json")], env=env, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError(f"torchrun ended with {done.returncode}: {done.stderr[-6000:]}")
    told = json.loads((folder / "told.json").read_text(encoding="utf-8"))
    assert told["steps"] == STEPS, told
    return told["seconds"] / (STEPS - 1), told["cpu_seconds"] / (STEPS - 1)


def job_of(plan: Plan, folder: Path) -> dict[str, Any]:
    """The same job in TRL's words."""
    from pipelines.training.zero import deepspeed_config

    lora, stage = plan.training.lora, plan.stage
    os.environ["TENSORBOARD_LOGGING_DIR"] = str(folder / "logs")
    return {
        "base": plan.base,
        "rows": str(Path(plan.tokens) / "train" / "part-0.parquet"),
        "output": str(folder / "told.json"),
        "lora": {
            "task_type": "CAUSAL_LM",
            "r": lora.r,
            "lora_alpha": lora.alpha,
            "lora_dropout": lora.dropout,
            "target_modules": list(lora.targets),
        },
        "arguments": {
            "output_dir": str(folder / "out"),
            "per_device_train_batch_size": stage.micro_batch,
            "gradient_accumulation_steps": stage.accumulation,
            "max_steps": stage.max_steps,
            "learning_rate": stage.learning_rate,
            "lr_scheduler_type": stage.schedule,
            "max_grad_norm": plan.training.grad_norm,
            "bf16": False,
            "use_cpu": True,
            "gradient_checkpointing": plan.training.gradient_checkpointing,
            "deepspeed": deepspeed_config(plan.training),
            "logging_steps": LOG_EVERY,
            "logging_first_step": True,
            "save_strategy": "no",
            "report_to": "tensorboard",
            "disable_tqdm": True,
            "max_length": None,
            "seed": plan.seed,
        },
    }
