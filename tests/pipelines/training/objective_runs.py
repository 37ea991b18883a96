"""A short training of each kind in one process of its own, with DeepSpeed as workers have it, without Ray.

python -m tests.pipelines.training.objective_runs plans.pickle curves.json
"""

import json
import os
import pickle
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipelines.training.fit import CPU_WORKER_ENVIRONMENT, WORKER_ENVIRONMENT
from pipelines.training.plan import Plan
from tests.ports import free_port


def run(plans: Sequence[Plan], folder: Path) -> dict[str, list[dict[str, float]]]:
    """The curves of each plan by its name, or what stopped it, under ``error``."""
    (folder / "plans.pickle").write_bytes(pickle.dumps(list(plans)))
    group = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "WORLD_SIZE": "1", "RANK": "0"}
    words = [sys.executable, "-m", __name__, str(folder / "plans.pickle"), str(folder / "curves.json")]
    environment = {**os.environ, **WORKER_ENVIRONMENT, **CPU_WORKER_ENVIRONMENT, **group, "LOCAL_RANK": "0"}
    done = subprocess.run(
        words, env={**environment, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=200
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found: dict[str, list[dict[str, float]]] = json.loads((folder / "curves.json").read_text())
    return found


def one(plan: Plan) -> list[dict[str, Any]]:
    """Train, and return the log."""
    from accelerate.state import AcceleratorState
    from transformers.integrations.deepspeed import unset_hf_deepspeed_config

    from configs.errors import TrainingError
    from pipelines.training import trainers
    from pipelines.training.rows import open_rows
    from pipelines.training.weights import load_tokenizer, trainable_model

    unset_hf_deepspeed_config()
    AcceleratorState._reset_state(True)
    args = trainers.arguments(plan, Path(plan.output))
    model, tokenizer = trainable_model(plan), load_tokenizer(plan.base)
    trainer = trainers.make_trainer(plan, args, model, tokenizer, open_rows(plan))
    try:
        trainer.train()
    except TrainingError as error:
        return [{"error": str(error)}]
    return list(trainer.state.log_history)


def main() -> None:
    import torch.distributed as dist

    from pipelines.training.zero import join

    dist.init_process_group("gloo")
    join(on_gpu=False)
    plans = pickle.loads(Path(sys.argv[1]).read_bytes())
    Path(sys.argv[2]).write_text(json.dumps({plan.name: one(plan) for plan in plans}), encoding="utf-8")


if __name__ == "__main__":
    main()
