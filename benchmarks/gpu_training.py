"""SFT and DPO on one GPU, without a network and without weights: tokens/s, MFU, memory, and the same for stock TRL.

    python benchmarks/gpu_training.py                       # a random 7B Mistral, LoRA r=16, 2048 tokens, bfloat16
    python benchmarks/gpu_training.py --wheels .wheels      # with TRL from wheels (make wheels)
    python benchmarks/gpu_training.py --config tiny --here  # the same code in seconds, on any machine

Needs torch, transformers and peft. ZeRO-2 through DeepSpeed where that can be imported; else the same
step in plain torch (see gpu_steps), which with one worker shards nothing either. DPO is run against
stored log-probabilities and, hand-written, with the reference's forward pass in each step; where
TRL can be imported, its own trainers too, as they are. Each way runs in a process of its own, ways in
turns, the device waited for before each reading of the clock. ``mfu`` is model FLOPs (gpu_steps)
over the device's data sheet; ``device_utilisation`` what the device really did, over what a large
matrix product reached on it just before.
"""

import argparse
import json
import multiprocessing
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import asdict, replace
from importlib import import_module
from itertools import pairwise
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))
os.environ.setdefault("TORCHDYNAMO_DISABLE", "1")  # nothing is compiled: our trainers do not
os.environ.setdefault("HF_HUB_OFFLINE", "1")

from benchmarks import gpu_steps as steps  # noqa: E402 - found by the lines above

GIB = 2**30
PEAKS = {"H200": 989.4e12, "H100 80GB HBM3": 989.4e12, "A100": 312e12}
"""Dense bfloat16 FLOP/s by what the device's name holds, from NVIDIA's data sheets."""
WAYS = {"sft": ("ours", "trl"), "dpo": ("stored", "reference", "trl")}
USED = {"trl": ("SFTTrainer", "DPOTrainer")}
NAMES = {
    "ours": "our step",
    "stored": "our step, stored log-probabilities",
    "reference": "our step with the reference's forward pass (hand-written stand-in for stock TRL)",
    "trl": "stock TRL",
}


def main(arguments: list[str] | None = None) -> int:
    """Measure what was asked for and print it as JSON."""
    asked = parse(arguments)
    if asked.wheels:
        use_wheels(asked.wheels)
    size = steps.SIZES[asked.config]
    if asked.sequence:
        size = replace(size, sequence=asked.sequence, completion=min(size.completion, asked.sequence // 4))
    run = here if asked.here else alone
    found: dict[str, Any] = {"machine": run(machine), "size": asdict(size), "lora_rank": steps.RANK}
    for task in asked.tasks:
        ways = [way for way in WAYS[task] if way != "trl" or (asked.stock and found["machine"]["trl"])]
        taken: dict[str, list[dict[str, Any]]] = {way: [] for way in ways}
        for _ in range(asked.rounds):
            for way in ways:
                sys.stderr.write(f"{task}: {NAMES[way]} ...\n")
                taken[way].append(run(measured, task, way, size, vars(asked)))
        found[task] = compared(task, taken, found["machine"], size, vars(asked))
    text = json.dumps(found, indent=1)
    sys.stdout.write(text + "\n")
    if asked.output:
        Path(asked.output).write_text(text + "\n", encoding="utf-8")
    return 0


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--config", choices=sorted(steps.SIZES), default="7b")
    parser.add_argument("--tasks", nargs="+", choices=sorted(WAYS), default=["sft", "dpo"])
    parser.add_argument("--steps", type=int, default=10, help="measured steps")
    parser.add_argument("--warmup", type=int, default=3, help="steps before them")
    parser.add_argument("--rounds", type=int, default=1, help="each way again and again, in turns")
    parser.add_argument("--sequence", type=int, default=0, help="tokens a row")
    parser.add_argument("--checkpointing", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--attention", default="sdpa", help="attention implementation of transformers")
    parser.add_argument("--head", choices=["auto", "trl", "torch"], default="auto")
    parser.add_argument("--loop", choices=["auto", "deepspeed", "torch"], default="auto")
    parser.add_argument(
        "--stock", action=argparse.BooleanOptionalAction, default=True, help="stock TRL, if it is there"
    )
    parser.add_argument("--here", action="store_true", help="no process of its own for each way")
    parser.add_argument("--wheels", help="folder of wheels to install beside what is there: see `make wheels`")
    parser.add_argument("--output", help="also write the JSON to this file")
    return parser.parse_args(arguments)


def use_wheels(folder: str) -> None:
    """Install the folder's wheels into a temporary place that this process and its children look at first."""
    target = tempfile.mkdtemp(prefix="gpu-training-wheels-")
    wheels = sorted(map(str, Path(folder).glob("*.whl")))
    if not wheels:
        sys.exit(f"error: {folder} holds no wheels: run `make wheels` where there is a network")
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--target", target]
    subprocess.run([*command, *wheels], check=True)
    sys.path.insert(0, target)
    os.environ["PYTHONPATH"] = os.pathsep.join([target, *filter(None, [os.environ.get("PYTHONPATH")])])


def here(task: Callable[..., Any], *args: Any) -> Any:
    """``task`` in this process; memory then counts what ran before."""
    return task(*args)


def alone(task: Callable[..., Any], *args: Any) -> Any:
    """``task`` in a fresh process, so that memory is its own and the device's is given back."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(task, args)


def machine() -> dict[str, Any]:
    """Device, its speed at a large matrix product, and versions."""
    import torch
    import transformers

    on_gpu = torch.cuda.is_available()
    name = torch.cuda.get_device_name() if on_gpu else platform.processor() or platform.machine()
    return {
        "device": name,
        "memory_gib": round(torch.cuda.get_device_properties(0).total_memory / GIB, 1) if on_gpu else None,
        "peak_flops": next((peak for part, peak in PEAKS.items() if part in name), None) if on_gpu else None,
        "matrix_product_flops": product_speed() if on_gpu else None,
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "trl": version("trl"),
        "peft": version("peft"),
        "deepspeed": version("deepspeed"),
    }


def version(name: str) -> str | None:
    """Version of a package that can be used, None where it cannot."""
    try:
        with redirect_stdout(sys.stderr):
            found = import_module(name)
            for part in USED.get(name, ()):  # TRL looks for what it needs only when it is asked for these
                getattr(found, part)
            return str(getattr(found, "__version__", "of unknown version"))
    except (ImportError, RuntimeError, OSError, AttributeError) as error:  # there, but without what it needs
        sys.stderr.write(f"{name} cannot be imported: {error}\n")
        return None


def product_speed(side: int = 8192, times: int = 20) -> float:
    """FLOP/s of bfloat16 matrix products on random numbers."""
    import torch

    left, right = (torch.randn(side, side, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    for _ in range(5):
        left @ right
    torch.cuda.synchronize()
    began = time.perf_counter()
    for _ in range(times):
        left @ right
    torch.cuda.synchronize()
    return times * 2 * side**3 / (time.perf_counter() - began)


def measured(task: str, way: str, size: steps.Size, asked: dict[str, Any]) -> dict[str, Any]:
    """One way in this process: seconds of each step, memory, losses."""
    import torch

    torch.manual_seed(0)
    on_gpu = torch.cuda.is_available()
    device = torch.device("cuda", 0) if on_gpu else torch.device("cpu")
    if on_gpu:
        torch.cuda.set_device(device)
        torch.cuda.reset_peak_memory_stats()
    if way == "trl":
        from benchmarks.gpu_libraries import by_trl

        with tempfile.TemporaryDirectory() as scratch, redirect_stdout(sys.stderr):
            done = by_trl(task, size, device, asked, Path(scratch))
    else:
        done = by_hand(task, way, size, device, asked)
    if on_gpu:
        memory = torch.cuda.max_memory_allocated() / GIB, torch.cuda.max_memory_reserved() / GIB
    else:
        memory = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / GIB,) * 2
    return {**done, "allocated_gib": memory[0], "reserved_gib": memory[1]}


def by_hand(task: str, way: str, size: steps.Size, device: Any, asked: dict[str, Any]) -> dict[str, Any]:
    """Our step, against stored log-probabilities or with the reference in it; the loop is DeepSpeed's or torch's."""
    import torch

    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    model = steps.make_model(size, device, dtype, asked["attention"], checkpointing=asked["checkpointing"])
    flops = steps.flops_per_token(model, size)
    done = steps.done_per_token(model, size, checkpointing=asked["checkpointing"])
    logps, head = steps.head_for(model, asked["head"])
    count = asked["warmup"] + asked["steps"]
    make = steps.sft_batch if task == "sft" else steps.dpo_batch
    made = [make(size, device, seed) for seed in range(count)]
    stored: list[Any] = [None] * count
    storing = None
    if way == "stored":
        began = now(device)
        stored = [steps.reference_logps(logps, model, batch) for batch in made]
        storing = (now(device) - began) / count
    step, loop = stepper(model, dtype, asked["loop"])
    marks, losses = [], []
    for batch, reference in zip(made, stored, strict=True):
        loss = steps.sft_loss(logps, model, batch) if task == "sft" else steps.dpo_loss(logps, model, batch, reference)
        step(loss)
        losses.append(loss.detach())
        marks.append(now(device))
    values = [float(loss) for loss in losses]
    shown = {"first_loss": values[0], "last_loss": values[-1], "storing_s": storing, "head": head, "loop": loop}
    return {**shown, "marks": marks, "flops_per_token": flops, "done_per_token": done}


def now(device: Any) -> float:
    """The clock, once the device has done all it was given."""
    import torch

    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def stepper(model: Any, dtype: Any, wanted: str) -> tuple[Callable[[Any], None], str]:
    """What takes a loss and makes the step of it, and its name."""
    import torch

    if wanted == "deepspeed" or (wanted == "auto" and version("deepspeed")):
        from benchmarks.gpu_libraries import engine_for

        engine = engine_for(model, dtype == torch.bfloat16)

        def by_engine(loss: Any) -> None:
            engine.backward(loss)
            engine.step()

        return by_engine, "deepspeed ZeRO-2"
    masters = steps.MasterWeights(model)

    def by_torch(loss: Any) -> None:
        loss.backward()
        masters.step()

    return by_torch, "torch"


def compared(
    task: str, taken: dict[str, list[dict[str, Any]]], machine: dict[str, Any], size: steps.Size, asked: dict[str, Any]
) -> dict[str, Any]:
    """Medians over all measured steps of each way, and the first way's ratios to the others."""
    tokens = size.sequence * (size.rows if task == "sft" else 2 * size.pairs)
    found: dict[str, Any] = {"tokens_a_step": tokens, "ways": {}}
    for way, runs in taken.items():
        seconds = statistics.median(value for run in runs for value in intervals(run["marks"], asked["steps"]))
        found["ways"][way] = {"what": NAMES[way], **figures(runs, tokens / seconds, machine)}
    first, *others = found["ways"].values()
    for other, name in zip(others, list(taken)[1:], strict=True):
        ratio = first["tokens_per_s"] / other["tokens_per_s"]
        found[f"{next(iter(taken))} / {name}"] = {
            "tokens_per_s": round(ratio, 3),
            "peak_memory": round(first["allocated_gib"] / other["allocated_gib"], 3),
        }
    found["planner"] = planned(task, size, asked)
    return found


def intervals(marks: list[float], count: int) -> list[float]:
    """Seconds of the last ``count`` steps; those before warm the device up."""
    return [after - before for before, after in pairwise(marks)][-count:]


def figures(runs: list[dict[str, Any]], rate: float, machine: dict[str, Any]) -> dict[str, Any]:
    """One way's figures; a share of the device's speed is None where that is not known."""
    run = runs[0]
    peak, reached = machine["peak_flops"], machine["matrix_product_flops"]
    return {
        "tokens_per_s": round(rate, 1),
        "mfu": round(rate * run["flops_per_token"] / peak, 3) if peak else None,
        "device_utilisation": round(rate * run["done_per_token"] / reached, 3) if reached else None,
        "allocated_gib": round(max(one["allocated_gib"] for one in runs), 3),
        "reserved_gib": round(max(one["reserved_gib"] for one in runs), 3),
        **{name: run[name] for name in ("first_loss", "last_loss", "storing_s", "head", "loop")},
    }


def planned(task: str, size: steps.Size, asked: dict[str, Any]) -> dict[str, Any]:
    """What `llumi plan`'s formulas say of this run, where they can be imported."""
    try:
        from pipelines.training.planner import memory
        from pipelines.training.planner.activations import Batch
        from pipelines.training.planner.model import Architecture
    except ImportError as error:
        return {"not available": str(error)}
    sizes = (size.hidden, size.layers, size.heads, size.kv_heads, size.hidden // size.heads, size.intermediate)
    setup = memory.Setup(
        task="sft" if task == "sft" else "dpo",
        mode="lora",
        zero_stage=2,
        offload_optimizer=False,
        offload_parameters=False,
        bf16=asked["config"] != "tiny",
        checkpointing=asked["checkpointing"],
        workers=1,
        accumulation=1,
        on_gpu=asked["config"] != "tiny",
        attention=asked["attention"],
        targets=tuple(steps.TARGETS),
        rank=steps.RANK,
        dropout=steps.DROPOUT > 0,
    )
    rows = size.rows if task == "sft" else 2 * size.pairs
    batch = Batch(sequences=rows, length=size.sequence, completion=size.completion, padded=False)
    found = memory.memory(Architecture("mistral", *sizes, size.vocabulary, tied=False), setup, batch)
    return {"allocated_gib": round(found.terms.tensors / GIB, 3), "total_gib": round(found.total / GIB, 3)}


if __name__ == "__main__":
    sys.exit(main())
