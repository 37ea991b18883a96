"""A run with trained models in it, made without Ray: every manifest, tiny weights, real adapters."""

import json
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model

from configs import load, prompts
from configs.settings import Settings
from pipelines import manifest
from pipelines.layout import Layout
from pipelines.manifest import fingerprints, writing
from pipelines.training import artefacts, curves, merge, scratch
from pipelines.training.weights import load_model

COMMUNITY = "lonelyhearts"
PAIRS = 40
TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
DPO_CURVE = [
    {"step": 1, "loss": 0.69},
    {"step": 2, "loss": 0.6, "rewards/accuracies": 0.6, "eval_loss": 0.65, "eval_rewards/accuracies": 0.75},
]


def settings_of(root: Path) -> Settings:
    """The demo's, with a small model, no ratings and a way of sampling of its own."""
    sizes = ["hidden_size=32", "intermediate_size=64", "layers=2", "heads=2", "kv_heads=1", "vocabulary=400"]
    sampling = ["temperature=0.6", "top_p=0.9", "max_new_tokens=77", "repetition_penalty=1.1"]
    return load(
        "demo",
        [
            f"output={root}",
            "feedback.panel=null",
            *(f"model.scratch.{size}" for size in sizes),
            *(f"generation.{value}" for value in sampling),
        ],
    )


def build(root: Path) -> Settings:
    """Threads, rows, tokens, reference, base, two adapters of GM and what was merged of the second."""
    settings, at = settings_of(root), Layout(root)
    empty(at.threads, "corpus", {}, figures={"subreddits": {COMMUNITY: {"posts": 30}}, "dates": days()}, posts=30)
    worded = {"prompts": {name: prompts.fingerprint(name) for name in ("gm", "im")}}
    empty(at.sft, "sft_rows", {"threads": at.threads}, settings=worded)
    empty(at.pairs, "pairs", {"threads": at.threads}, settings={"pairs": {"rule": "matched"}, **worded})
    base(settings, at)
    empty(at.tokens("gm", "sft"), "tokens/gm/sft", {"rows": at.sft, "base": at.base}, validation=PAIRS)
    empty(at.tokens("gm", "dpo1"), "tokens/gm/dpo1", {"rows": at.pairs, "base": at.base}, validation=PAIRS)
    adapter(settings, at, "sft", {"tokens": at.tokens("gm", "sft"), "base": at.base}, [{"step": 1, "eval_loss": 2.0}])
    before = {"tokens": at.tokens("gm", "dpo1"), "base": at.base, "start": at.adapter("gm", "sft")}
    empty(at.reference("gm", "dpo1"), "reference/gm/dpo1", before)
    adapter(settings, at, "dpo1", {**before, "reference": at.reference("gm", "dpo1")}, DPO_CURVE)
    merged(settings, at)
    return settings


def days() -> dict[str, str]:
    return {"first_post": "2021-04-01", "last_post": "2021-06-30"}


def empty(folder: Path, stage: str, inputs: Any, *, settings: Any = None, figures: Any = None, **rows: int) -> None:
    """An output of which only the manifest counts."""
    with writing(folder, stage=stage, settings=settings or {}, inputs=fingerprints(inputs)) as draft:
        draft.figures |= figures or {}
        for kind, n in rows.items():
            draft.count(kind, read=n + 2, kept=n, dropped={"too_long": 2})


def base(settings: Settings, at: Layout) -> None:
    """An untrained model with a tokenizer that knows a few words."""
    sizes = settings.model.scratch
    with writing(at.base, stage="base", settings={}, inputs=fingerprints({"threads": at.threads})) as draft:
        words = ["That sounds hard.", "I moved here and know nobody.", "What weighs most about it?"] * 20
        tokenizer = scratch.train_tokenizer(iter(words), sizes.vocabulary, sizes.max_positions)
        tokenizer.save_pretrained(draft.path)
        scratch.model_config(sizes, tokenizer).save_pretrained(draft.path)
        torch.manual_seed(0)
        load_model(str(draft.path)).save_pretrained(draft.path)


def adapter(settings: Settings, at: Layout, stage: str, inputs: Any, curve: list[dict[str, float]]) -> None:
    """A fresh adapter whose factors are random, so that it changes the base's answers."""
    torch.manual_seed(len(stage))
    config = LoraConfig(task_type="CAUSAL_LM", r=4, target_modules=TARGETS, init_lora_weights=False)
    model = get_peft_model(load_model(str(at.base)), config)
    prints = fingerprints(inputs)
    with writing(at.adapter("gm", stage), stage=f"train/gm/{stage}", settings={"seed": 1}, inputs=prints) as draft:
        model.save_pretrained(draft.path)
        artefacts.tidy(draft.path, Base(str(at.base)))  # type: ignore[arg-type]
        for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
            (draft.path / name).write_bytes((at.base / name).read_bytes())
        (draft.path / curves.FILE).write_text(json.dumps(curve))
        draft.figures["last"] = curves.last_values(curve)
        (draft.path / "masking.html").write_text("what somebody wrote")


class Base:
    """The part of a plan that ``tidy`` reads."""

    revision = None

    def __init__(self, base: str):
        self.base = base


def merged(settings: Settings, at: Layout) -> None:
    """What the last adapter makes of the base, by the very function that the stage runs on a worker."""
    inputs = fingerprints({"base": at.base, "adapter": at.adapter("gm", "dpo1")})
    with writing(at.model("gm"), stage="merge/gm", settings={"model": "gm"}, inputs=inputs) as draft:
        difference, allowed = merge.merge(str(at.base), str(at.adapter("gm", "dpo1")), str(draft.path), None, False)
        assert difference <= allowed


def evaluate(at: Layout) -> None:
    """An evaluation that measured GM's adapters as they are now."""
    inputs = {f"adapters/gm/{stage}": at.adapter("gm", stage) for stage in ("sft", "dpo1")}
    reward = {"n": 90, "accuracy": 0.71, "low": 0.62, "high": 0.79, "margin": 0.2}
    quality = {"n": 30, "mean": 0.4, "low": 0.1, "high": 0.7}
    figures = {"rewards": {"gm": {"dpo1": reward}}, "quality": {"gm": {"dpo1_minus_sft": quality}}}
    empty(at.evaluation, "evaluation", inputs, figures=figures)


def mark(folder: Path, **figures: Any) -> None:
    """Change an output's manifest as ``llumi forget`` does."""
    made = manifest.read(folder)
    assert made is not None
    (folder / manifest.FILE).write_text(manifest.dump(made.model_copy(update={"figures": made.figures | figures})))
