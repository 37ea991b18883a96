"""One real training run in processes of its own, and the memory that it took at most.

The trainers are ours, on DeepSpeed and gloo; only Ray is left out. Every row is as long as the shape
says, so that the peak is that of the settings and not of a draw. Two things are measured, each in
a run of its own: the bytes of live tensors as torch's profiler sees its allocator, and the resident
set (``VmHWM``) above what the process held once everything was imported and the workers had met.
"""

import contextlib
import json
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

STEPS = 3
MB = 2**20
END_ID = 2
"""The end-of-sequence token of the scratch tokenizer."""


@dataclass(frozen=True)
class Shape:
    """A model, rows of one length, and settings."""

    name: str
    task: str = "sft"
    """``sft``, ``dpo`` or ``lm``."""
    sizes: Mapping[str, int] = field(default_factory=dict)
    """Of MistralConfig."""
    training: Mapping[str, Any] = field(default_factory=dict)
    """Of ``training``."""
    micro_batch: int = 1
    prompt: int = 256
    completion: int = 256
    """Tokens of a row, or of a pair's prompt and of each of its replies."""
    workers: int = 1


def measure(shape: Shape, what: str) -> dict[str, Any]:
    """Peak of the worker that took most, in bytes: of its ``tensors``, or ``resident`` above its imports."""
    with tempfile.TemporaryDirectory() as folder, socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        free.close()
        prepare(shape, Path(folder))
        given = json.dumps(asdict(shape))
        logs = [Path(folder) / f"worker{rank}.log" for rank in range(shape.workers)]
        runs = [
            subprocess.Popen(
                [sys.executable, "-m", "benchmarks.planner_shapes", what, folder, given],
                env=environment(rank, shape.workers, port),
                stdout=subprocess.PIPE,
                stderr=log.open("w"),  # a pipe that nobody reads would fill up and stop its worker
                text=True,
            )
            for rank, log in enumerate(logs)
        ]
        answers = [run.communicate(timeout=300)[0] for run in runs]
        for run, log in zip(runs, logs, strict=True):
            if run.returncode:
                raise RuntimeError(f"{shape.name}: {log.read_text()[-3000:]}")
    found = [json.loads(answer.strip().splitlines()[-1]) for answer in answers]
    return max(found, key=lambda one: int(one["peak"]))


def environment(rank: int, workers: int, port: int) -> dict[str, str]:
    """What Ray Train and our settings give a worker on the CPU."""
    from pipelines.training.fit import CPU_WORKER_ENVIRONMENT, WORKER_ENVIRONMENT

    place = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(workers)}
    meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    return {**os.environ, **place, **meeting, **CPU_WORKER_ENVIRONMENT, **WORKER_ENVIRONMENT}


def settings_of(shape: Shape) -> Any:
    """The shape's settings, checked as any configuration is."""
    from configs.settings import Settings

    stage = {"micro_batch": shape.micro_batch, "max_steps": STEPS, "learning_rate": 1e-4}
    own = {"workers": shape.workers, "log_every": 1, "max_length": shape.prompt + shape.completion}
    stages = dict.fromkeys(("base", "sft", "dpo1"), stage)
    return Settings.model_validate({"output": "unused", "training": {**own, **stages, **shape.training}})


def model_config(shape: Shape) -> Any:
    """Mistral in the shape's sizes."""
    from transformers import MistralConfig

    return MistralConfig(sliding_window=None, architectures=["MistralForCausalLM"], **shape.sizes)


def prepare(shape: Shape, root: Path) -> None:
    """A base without weights, which is initialised when it is loaded, its tokenizer, and the rows."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from pipelines.training import scratch

    scratch.train_tokenizer(["a b c"], 300, 4096).save_pretrained(root / "base")
    model_config(shape).save_pretrained(root / "base")
    (root / "tokens" / "train").mkdir(parents=True)
    rows = [row_of(shape, number) for number in range(STEPS * shape.micro_batch * shape.workers)]
    pq.write_table(pa.Table.from_pylist(rows), root / "tokens" / "train" / "part-0.parquet")


def row_of(shape: Shape, number: int) -> dict[str, Any]:
    """A row of tokens, with the reference's log-probabilities of a uniform model for a pair."""
    reply = [*([11] * (shape.completion - 1)), END_ID]
    prompt = [5 + number % 7] * (shape.prompt - number % 2)  # every other row is padded, as rows are
    whole = {"length": len(prompt) + len(reply), "row": number, "margin": 1.0}
    if shape.task == "dpo":
        scored = {"ref_chosen_logps": 0.0, "ref_rejected_logps": 0.0}
        return {"prompt_ids": prompt, "chosen_ids": reply, "rejected_ids": reply, **scored, **whole}
    return {"input_ids": prompt + reply, "labels": [-100] * len(prompt) + reply, **whole}


def status(name: str) -> int:
    """A size in this process's status, in bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    raise KeyError(name)


def plan_of(shape: Shape, root: Path) -> Any:
    """The run as a worker is told it."""
    from pipelines.training.plan import Plan

    settings = settings_of(shape)
    stage = {"lm": settings.training.base, "sft": settings.training.sft, "dpo": settings.training.dpo1}[shape.task]
    return Plan(
        name="shape",
        task=shape.task,  # type: ignore[arg-type]
        tokens=str(root / "tokens"),
        reference=None,
        base=str(root / "base"),
        revision=None,
        start=None,
        output=str(root / "out"),
        storage=str(root / "checkpoints"),
        attention="sdpa",
        stage=stage,
        training=settings.training,
        seed=0,
    )


def train(root: Path, shape: Shape, before: Any) -> None:
    """Train; ``before`` is called once all is imported and the workers have met."""
    import torch
    from datasets import Dataset

    from pipelines.training import trainers, zero
    from pipelines.training.weights import load_tokenizer, trainable_model

    class Uniform(trainers.DpoTrainer):
        """Its rows were scored by no model, so there is no first loss to check."""

        def check_reference(self, loss: Any) -> None: ...

    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo")
    zero.join(on_gpu=False)
    trainers.score_labels_only_on_the_cpu()
    plan = plan_of(shape, root)
    files = str(root / "tokens" / "train" / "*.parquet")
    rows = Dataset.from_parquet(files, cache_dir=str(root / f"cache{os.getpid()}"))
    arguments = trainers.arguments(plan, Path(tempfile.mkdtemp(dir=root)))
    tokenizer = load_tokenizer(plan.base)
    before()
    kind = Uniform if shape.task == "dpo" else trainers.KINDS[plan.task]
    kind(model=trainable_model(plan), args=arguments, train_dataset=rows, processing_class=tokenizer).train()


def resident(root: Path, shape: Shape) -> dict[str, int]:
    """Most bytes that were resident above the imports, and those."""
    marks: list[int] = []

    def before() -> None:
        Path("/proc/self/clear_refs").write_text("5")  # the peak so far is forgotten
        marks.append(status("VmRSS"))

    train(root, shape, before)
    return {"peak": status("VmHWM") - marks[0], "imports": marks[0]}


def tensors(root: Path, shape: Shape) -> dict[str, int]:
    """Most bytes of tensors that were alive at once, by the allocations and frees that torch's profiler records."""
    import torch

    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        train(root, shape, lambda: None)
    events: list[tuple[int, int, int]] = []
    waiting = list(profile.profiler.kineto_results.experimental_event_tree())
    while waiting:
        event = waiting.pop()
        waiting += event.children
        if event.tag == torch._C._profiler._EventType.Allocation:
            events.append((event.start_time_ns, event.extra_fields.ptr, event.extra_fields.alloc_size))
    alive: dict[int, int] = {}
    now = peak = 0
    for _, address, size in sorted(events):
        now -= alive.pop(address, 0)  # also where a free was not recorded, but the address is given out again
        if size > 0:
            alive[address] = size
            now += size
        peak = max(peak, now)
    return {"peak": peak}


if __name__ == "__main__":
    shape_given = Shape(**json.loads(sys.argv[3]))
    with contextlib.redirect_stdout(sys.stderr):
        found_here = {"resident": resident, "tensors": tensors}[sys.argv[1]](Path(sys.argv[2]), shape_given)
    sys.stdout.write(json.dumps(found_here) + "\n")
