"""One optimizer step by two processes over gloo, without Ray: what each way of sharding makes of the same rows.

    weights = run(base, [Case("zero-3", {"zero_stage": 3}), ...], folder)

Both processes go through all cases, since most of the time goes into their imports.
"""

import os
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset

from configs import load
from pipelines.training.plan import Plan, Task
from tests.ports import free_port

WORKERS, MICRO, ROWS = 2, 2, 4
END = 2
"""The end-of-sequence token."""
RATE = EPSILON = 1.0
"""With these, AdamW's first step is g / (|g| + 1): the gradient itself, and not just its sign."""


@dataclass(frozen=True)
class Case:
    """A way to train."""

    name: str
    training: dict[str, Any] = field(default_factory=dict)
    """Settings of training that differ from the defaults."""
    task: Task = "sft"
    start: str | None = None
    """Adapter or model that is continued."""
    steps: int = 1
    words: dict[str, Any] = field(default_factory=dict)
    """Arguments of the trainer that differ."""


def tiny_base(folder: Path, tied: bool = True, width: int = 32) -> Path:
    """A random model of some ten thousand weights, with its tokenizer."""
    from pipelines.training import scratch
    from pipelines.training.weights import load_model

    sizes = load("demo").model.scratch.model_copy(
        update={"hidden_size": width, "intermediate_size": 2 * width, "layers": 2, "heads": 2, "kv_heads": 1}
    )
    tokenizer = scratch.train_tokenizer(["a reply to a post " * 9, "[INST] how are you today [/INST]"], 400, 256)
    tokenizer.save_pretrained(folder)
    config = scratch.model_config(sizes, tokenizer)
    config.tie_word_embeddings = tied
    config.save_pretrained(folder)
    torch.manual_seed(0)
    load_model(str(folder)).save_pretrained(folder)
    return folder


def sft_rows() -> Dataset:
    """Rows of one length's order, so that any sampler gives each step the same ones."""
    draw = random.Random(1)
    ids = [[*(draw.randrange(3, 250) for _ in range(11 + 3 * k)), END] for k in range(ROWS)]
    labels = [[-100] * 5 + row[5:] for row in ids]
    return Dataset.from_dict({"input_ids": ids, "labels": labels, "length": [len(row) for row in ids]})


def scored_pairs(plan: Plan) -> Dataset:
    """``pairs`` under what the plan starts from, as the reference of a run is scored."""
    from pipelines.generation.scoring import Policies

    settings = load("demo").model_copy(update={"training": plan.training})
    with Policies(plan.base, {"reference": plan.start}, settings).under("reference") as model:
        return pairs(model)


def pairs(model: Any) -> Dataset:
    """Pairs with the log-probabilities that ``model`` gives them."""
    from pipelines.generation.logprobs import completion_logps

    draw = random.Random(2)

    def text(length: int) -> list[int]:
        return [draw.randrange(3, 250) for _ in range(length)]

    rows: list[dict[str, Any]] = []
    for k in range(ROWS):
        prompt, chosen, rejected = text(6 + k), [*text(8 - k), END], [*text(3 + k), END]
        logps = completion_logps(model.eval(), [(prompt, chosen), (prompt, rejected)])
        ids = {"prompt_ids": prompt, "chosen_ids": chosen, "rejected_ids": rejected, "length": 20 + k}
        rows.append({**ids, "ref_chosen_logps": logps[0], "ref_rejected_logps": logps[1]})
    return Dataset.from_list(rows)


def plan_of(base: Path, case: Case, folder: Path) -> Plan:
    """The case's plan: two workers on the CPU, a step of RATE."""
    settings = load("demo", ["training.workers=2"])
    stage = settings.training.sft.model_copy(
        update={"max_steps": case.steps, "micro_batch": MICRO, "learning_rate": RATE, "warmup_share": 0.0}
    )
    lora = settings.training.lora.model_copy(update={"r": 4, "dropout": 0.0})
    training = type(settings.training).model_validate(
        {**settings.training.model_dump(), "lora": lora.model_dump(), "sft": stage.model_dump(), **case.training}
    )
    return Plan(
        name=case.name,
        task=case.task,
        tokens="",
        reference=None,
        base=str(base),
        revision=None,
        start=case.start,
        output=str(folder / case.name),
        storage=str(folder),
        attention="sdpa",
        stage=training.sft,
        training=training,
        seed=3,
    )


def run(base: Path, cases: Sequence[Case], folder: Path) -> dict[str, dict[str, torch.Tensor]]:
    """The weights that each case leaves, by case and name."""
    from safetensors.torch import load_file

    where = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "WORLD_SIZE": str(WORKERS)}
    torch.multiprocessing.spawn(work, (base, list(cases), folder, where), nprocs=WORKERS)
    found = {}
    for case in cases:
        (file,) = (folder / case.name).glob("*.safetensors")
        found[case.name] = {name: value.float() for name, value in load_file(file).items()}
    return found


def work(rank: int, base: Path, cases: Sequence[Case], folder: Path, where: dict[str, str]) -> None:
    """One of the two processes."""
    ranks = {"RANK": str(rank), "LOCAL_RANK": str(rank)}
    os.environ |= {**where, **ranks, "DS_ACCELERATOR": "cpu", "TORCHDYNAMO_DISABLE": "1", "OMP_NUM_THREADS": "1"}
    torch.set_num_threads(1)
    from pipelines.training.zero import join

    torch.distributed.init_process_group("gloo")
    join(on_gpu=False)
    for case in cases:
        one(base, case, folder)
        torch.distributed.barrier()
    torch.distributed.destroy_process_group()


def one(base: Path, case: Case, folder: Path) -> None:
    """Train one case and write its weights, as training itself does."""
    from accelerate.state import AcceleratorState
    from transformers.integrations.deepspeed import unset_hf_deepspeed_config

    from pipelines.training import trainers
    from pipelines.training.weights import load_tokenizer, trainable_model

    unset_hf_deepspeed_config()
    AcceleratorState._reset_state(True)
    plan = plan_of(base, case, folder)
    rows = scored_pairs(plan) if case.task == "dpo" else sft_rows()
    args = trainers.arguments(plan, folder / "scratch")
    for name, value in {"adam_epsilon": EPSILON, **case.words}.items():
        setattr(args, name, value)
    trainer = trainers.KINDS[case.task](
        model=trainable_model(plan), args=args, train_dataset=rows, processing_class=load_tokenizer(str(base))
    )
    trainer.train()
    trainer.save_model(plan.output)
