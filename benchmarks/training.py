"""DPO on stored log-probabilities against TRL with its reference in memory; steps against torchrun; what a start costs.

DPO: a random Mistral of 6 million weights, pairs of 250 to 420 tokens a reply, two epochs. Each way runs
in a process of its own, one worker, one torch thread, on the same rows in the same order and
under the same DeepSpeed configuration, the ways in turns. Rates are tokens a CPU second, padding
not counted. The pass that stores the log-probabilities is timed too, by the very actor code.
SFT steps on Ray Train against torchrun are ``step_time``'s part.
"""

import contextlib
import multiprocessing
import os
import random
import resource
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from configs.settings import Settings
from pipelines.training.plan import Plan
from pipelines.training.tokens import DPO_TOKENS, PAIR_KEYS, SPLITS

PAIRS, MICRO_BATCH, EPOCHS, ROUNDS = 24, 4, 2, 2
PROMPT, REPLY = (220, 300), (30, 120)
"""Shortest and longest, in tokens."""
VOCABULARY = 4096


def run() -> dict[str, object]:
    """Rates, memory and their ratios, and the seconds of a start through Ray Train."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        alone(prepare, root)
        ways: dict[str, list[dict[str, float]]] = {"stock": [], "stored": []}
        passes = [alone(store, root)]
        for _ in range(ROUNDS):
            for name, taken in ways.items():
                taken.append(alone(train, root, name))
        start = alone(started, root)
        from benchmarks import step_time

        step = {f"{workers} workers": step_time.run(root, workers) for workers in (1, 2)}
    rates = {name: statistics.median(one["tokens_per_cpu_s"] for one in taken) for name, taken in ways.items()}
    memory = {name: statistics.median(one["peak_mb"] for one in taken) for name, taken in ways.items()}
    pass_s, step_s = passes[0]["cpu_s"], statistics.median(one["cpu_s"] for one in ways["stored"])
    tokens = ways["stored"][0]["tokens"]
    return {
        "tokens_per_cpu_s": {name: round(value, 1) for name, value in rates.items()},
        "peak_mb": memory,
        "stored / stock, tokens/s": round(rates["stored"] / rates["stock"], 2),
        f"stored / stock, tokens/s, with the pass that stores them ({EPOCHS} epochs)": round(
            tokens / (pass_s + step_s) / rates["stock"], 2
        ),
        "stored / stock, peak memory": round(memory["stored"] / memory["stock"], 2),
        "first losses": {name: round(taken[0]["first_loss"], 6) for name, taken in ways.items()},
        "last losses": {name: round(taken[0]["last_loss"], 6) for name, taken in ways.items()},
        "start to first step, s": start,
        "SFT steps": step,
    }


def alone(task: Any, *args: Any) -> Any:
    """``task`` in a fresh process of its own; an error there is raised here."""
    with multiprocessing.get_context("spawn").Pool(1, initializer=environment) as pool:
        return pool.apply(task, args)


def environment() -> None:
    """What Ray Train and our settings give a worker on the CPU."""
    from pipelines.training.fit import CPU_WORKER_ENVIRONMENT

    one = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1", "OMP_NUM_THREADS": "1"}
    os.environ.update({**one, **CPU_WORKER_ENVIRONMENT, "MASTER_PORT": str(20_000 + os.getpid() % 20_000)})


def settings_of(root: Path) -> Settings:
    """One worker, ZeRO-2, float32."""
    dpo = {"micro_batch": MICRO_BATCH, "epochs": EPOCHS, "learning_rate": 1e-3}
    training = {"workers": 1, "dpo1": dpo, "log_every": 1, "lora": {"dropout": 0.0}}
    return Settings.model_validate({"output": str(root), "training": training})


def plan_of(root: Path, *, reference: bool) -> Plan:
    """The run on the prepared folders."""
    settings = settings_of(root)
    return Plan(
        name=f"benchmark-{root.name}",
        task="dpo",
        tokens=str(root / "tokens"),
        reference=str(root / "reference") if reference else None,
        base=str(root / "base"),
        revision=None,
        start=str(root / "start"),
        output=str(root / "adapter"),
        storage=str(root / "checkpoints" / "benchmark"),
        attention=settings.model.attention,
        stage=settings.training.dpo1,
        training=settings.training,
        seed=1,
    )


def prepare(root: Path) -> None:
    """The base, an adapter that changes it, and rows of random tokens."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import MistralConfig, MistralForCausalLM

    from benchmarks.engine import make_model

    make_model(root / "base")
    torch.manual_seed(0)
    sizes = {"hidden_size": 256, "intermediate_size": 768, "num_hidden_layers": 6, "num_attention_heads": 8}
    model = MistralForCausalLM(
        MistralConfig(vocab_size=VOCABULARY, num_key_value_heads=4, sliding_window=None, **sizes)
    )
    model.save_pretrained(root / "base")
    targets = list(settings_of(root).training.lora.targets)
    lora = LoraConfig(task_type="CAUSAL_LM", r=16, lora_alpha=32, target_modules=targets, init_lora_weights=False)
    get_peft_model(model, lora).save_pretrained(root / "start")
    draw = random.Random(0)

    def ids(shortest: int, longest: int, *end: int) -> list[int]:
        return [*(draw.randrange(5, VOCABULARY) for _ in range(draw.randint(shortest, longest))), *end]

    for split, rows in zip(SPLITS, (PAIRS, 0), strict=True):
        made = [
            {"prompt_ids": ids(*PROMPT), "chosen_ids": ids(*REPLY, 0), "rejected_ids": ids(*REPLY, 0)}
            | {key: f"{key}{number}" for key in PAIR_KEYS}
            for number in range(rows)
        ]
        for row in made:
            row["length"] = len(row["prompt_ids"]) + max(len(row["chosen_ids"]), len(row["rejected_ids"]))
        (root / "tokens" / split).mkdir(parents=True)
        pq.write_table(pa.Table.from_pylist(made, schema=DPO_TOKENS), root / "tokens" / split / "part-0.parquet")


def store(root: Path) -> dict[str, float]:
    """The pass that stores the log-probabilities; CPU seconds without loading."""
    import numpy as np
    import torch

    from pipelines.training import reference

    torch.set_num_threads(1)
    tokens = root / "tokens"
    referee = reference.Referee(tokens, str(root / "base"), root / "start", settings_of(root))
    began = time.process_time()
    done = [referee(item) for item in reference.items(tokens)]
    seconds = time.process_time() - began
    for split in SPLITS:
        parts = [np.stack([row["chosen"], row["rejected"]], axis=1) for row in done if row["split"] == split]
        found = {(split, "part-0.parquet"): np.concatenate(parts)} if parts else {}
        reference.write(tokens / split / "part-0.parquet", root / "reference" / split / "part-0.parquet", found)
    return {"cpu_s": seconds}


def train(root: Path, way: str) -> dict[str, float]:
    """All steps of one way; the first, in which the optimizer is built, is not timed."""
    import torch
    from trl import DPOTrainer

    from pipelines.training import token_rows, trainers, zero
    from pipelines.training.rows import open_rows
    from pipelines.training.weights import load_tokenizer, trainable_model

    class Stock(token_rows.TokenRows, DPOTrainer):
        """TRL's trainer as it is, but for rows that are tokens already and their order."""

    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo")
    zero.join(on_gpu=False)
    trainers.score_labels_only_on_the_cpu()
    plan = plan_of(root, reference=way == "stored")
    with tempfile.TemporaryDirectory() as scratch, contextlib.redirect_stdout(None):
        words = trainers.arguments(plan, Path(scratch)), trainable_model(plan), load_tokenizer(plan.base)
        rows = open_rows(plan)
        if way == "stored":
            trainer = trainers.make_trainer(plan, *words, rows)
        else:
            args, model, tokenizer = words
            trainer = Stock(args=args, model=model, processing_class=tokenizer, train_dataset=rows["train"])
            trainer.take(plan)
        marks: list[tuple[float, int]] = []
        trainer.add_callback(trainers.OnFirstStep(lambda: marks.append((time.process_time(), trainer.tokens_here))))
        trainer.train()
    seconds, tokens = time.process_time() - marks[0][0], trainer.tokens_here - marks[0][1]
    losses = [point["loss"] for point in trainer.state.log_history if "loss" in point]
    return {
        "cpu_s": seconds,
        "tokens": tokens,
        "tokens_per_cpu_s": tokens / seconds,
        "peak_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
        "first_loss": losses[0],
        "last_loss": losses[-1],
    }


def started(root: Path) -> dict[str, float]:
    """Seconds of each part of a start through Ray Train, from the driver's call to the end of the first step."""
    import ray

    from pipelines.training.fit import fit

    ray.init("local", num_cpus=2, include_dashboard=False, log_to_driver=False, object_store_memory=100_000_000)
    (root / "adapter").mkdir()
    seconds = fit(plan_of(root, reference=True))["seconds"]
    ray.shutdown()
    parts = {"processes": seconds["start"], "imports": seconds["import"], "load": seconds["load"]}
    parts["first step"] = seconds["first_step"]
    return {**parts, "all but imports": round(sum(parts.values()) - parts["imports"], 2)}
