"""Pairs that can be learned, a tiny base with a start adapter, and their reference: all that DPO reads, without Ray."""

import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from configs import load
from configs.settings import Settings
from configs.training import StageSettings, TrainingSettings
from pipelines.training import reference
from pipelines.training.plan import Plan
from pipelines.training.tokens import DPO_TOKENS, MARGIN
from tests.pipelines.training.steps import tiny_base

ROWS = {"train": 48, "validation": 13}
END = 2
"""Id of the scratch tokenizer's end-of-sequence token."""
KIND, UNKIND = range(10, 60), range(60, 110)
"""Tokens that chosen and rejected replies are made of."""
SCHEMA = DPO_TOKENS if MARGIN in DPO_TOKENS.names else DPO_TOKENS.append(pa.field(MARGIN, pa.float32()))


def pair(number: int, draw: random.Random) -> dict[str, Any]:
    """A pair whose chosen reply is kind; its margin grows with its number."""
    ids = {
        "prompt_ids": [draw.randrange(110, 250) for _ in range(draw.randint(3, 9))],
        "chosen_ids": [*(draw.choice(KIND) for _ in range(draw.randint(3, 12))), END],
        "rejected_ids": [*(draw.choice(UNKIND) for _ in range(draw.randint(3, 12))), END],
    }
    longer = max(len(ids["chosen_ids"]), len(ids["rejected_ids"]))
    names = {"post_id": f"p{number}", "chosen_id": f"c{number}", "rejected_id": f"r{number}"}
    return {**ids, **names, "length": len(ids["prompt_ids"]) + longer, MARGIN: 0.5 + number % 4}


class World:
    """Files in a folder, made once; ``plan`` is a run over them."""

    def __init__(self, root: Path, bf16: bool = False, width: int = 32):
        from peft import LoraConfig, get_peft_model

        from pipelines.training.weights import load_model

        self.root = root
        self.settings: Settings = load("demo", [f"training.bf16={str(bf16).lower()}"])
        self.base = tiny_base(root / "base", width=width)
        draw = random.Random(7)
        self.tokens, self.scored, self.start = root / "tokens", root / "reference", root / "start"
        for split, rows in ROWS.items():
            (self.tokens / split).mkdir(parents=True)
            table = pa.Table.from_pylist([pair(k, draw) for k in range(rows)], schema=SCHEMA)
            pq.write_table(table, self.tokens / split / "part-0.parquet")
        lora = self.settings.training.lora
        config = LoraConfig(task_type="CAUSAL_LM", r=4, lora_alpha=8, target_modules=list(lora.targets))
        model = get_peft_model(load_model(str(self.base)), config)
        for name, weight in model.named_parameters():
            if "lora_B" in name:
                weight.data.normal_(std=0.05)
        model.save_pretrained(self.start)
        self.score(self.start, self.scored)

    def score(self, start: Path, into: Path) -> None:
        """The reference's columns under an adapter, by the actor that Ray Data runs, in this process."""
        referee = reference.Referee(self.tokens, str(self.base), start, self.settings)
        for item in reference.items(self.tokens):
            done = referee(item)
            found = {(item["split"], item["file"]): np.stack([done["chosen"], done["rejected"]], axis=1)}
            reference.write(self.tokens / item["split"] / item["file"], into / item["split"] / item["file"], found)

    def plan(self, name: str, *, training: dict[str, Any] | None = None, **stage: Any) -> Plan:
        """A DPO run of four pairs a step; ``stage`` and ``training`` differ from the demo's settings."""
        given = {"micro_batch": 4, "max_steps": 12, "learning_rate": 3e-3, "warmup_share": 0.0, **stage}
        own = StageSettings.model_validate({**self.settings.training.dpo1.model_dump(), "max_rows": 0, **given})
        common = self.settings.training.model_dump() | {"workers": 1, "log_every": 1, **(training or {})}
        return Plan(
            name=name,
            task="dpo",
            tokens=str(self.tokens),
            reference=str(self.scored),
            base=str(self.base),
            revision=None,
            start=str(self.start),
            output=str(self.root / "runs" / name / "output"),
            storage=str(self.root / "runs" / name / "storage"),
            attention="sdpa",
            stage=own,
            training=TrainingSettings.model_validate(common),
            seed=5,
            logs=str(self.root / "logs"),
        )


def again(plan: Plan, name: str) -> Plan:
    """The same run under another name, in folders of its own."""
    runs = Path(plan.output).parent.parent
    return replace(plan, name=name, output=str(runs / name / "output"), storage=str(runs / name / "storage"))
