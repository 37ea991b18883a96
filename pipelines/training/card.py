"""Model cards: what a model is for, what it is not for, from what it was made and how well it does.

Written by us since PEFT's own card names folders of this machine and says nothing of use. The
card begins with Hugging Face's metadata block, follows Mitchell et al. (2019, "Model Cards for
Model Reporting") in its order, and is rendered from manifests alone: so it holds numbers and
names of settings, and nothing that somebody wrote.
"""

import re
from collections.abc import Mapping
from typing import Any

import yaml

from pipelines.card import REDDIT_TERMS, SIMULATED, publishable
from pipelines.training.provenance import About, data_facts

TASKS = {
    "gm": "writes a first draft of a supportive comment for a post in an online support community",
    "im": "rewrites a helper's draft of a supportive comment, keeping its intent, information and voice",
}
STAGES = {
    "base": "language modelling on the training split's text",
    "sft": "supervised fine-tuning on well-received comments",
    "dpo1": "SFT, then direct preference optimisation on votes",
    "dpo2": "SFT, then direct preference optimisation on votes, then on ratings in five dimensions",
}
REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+")
"""A model's name on Hugging Face, the only kind of base that the metadata may name."""
LIMITS = """\
## Intended use
It helps a person who wants to answer a post: a human reads, changes and sends what it writes,
or does not. It is not a therapist, not a crisis service and not a source of medical advice, and
it must not answer anyone in distress by itself. Who runs it has to detect crises outside of the
model and to show local sources of help.

## Limits
- It learned from votes and ratings, which measure what a community rewards, not what helps.
- It can be wrong, miss risk, invent experience it never had, and repeat the biases of its base
  model and of the community its rows come from.
- English only. It knows nothing of the person beyond the post.
- No clinician has reviewed it, and no figure here shows that it is safe.
"""


def card(
    *,
    model: str,
    stage: str,
    base: str,
    key: str,
    inputs: Mapping[str, str],
    settings: Mapping[str, Any],
    figures: Mapping[str, Any],
    merged: bool = False,
    whole: bool = False,
    rank: int | None = None,
    about: About | None = None,
) -> str:
    """The card as Markdown with Hugging Face's metadata block.

    ``base`` is a name that means something elsewhere, never a path. ``key`` and ``inputs`` are the
    manifest's, so that the card names the very rows. ``merged`` or ``whole`` (by full fine-tuning) is a
    model that stands alone, ``rank`` what vLLM has to be told of an adapter. Without ``about`` the
    card tells neither data nor metrics.
    """
    whole = whole or merged or stage == "base"
    task = TASKS.get(model, "is the small language model that both adapters of this run stand on")
    parts = [
        f"---\n{yaml.safe_dump(metadata(model, stage, base, whole, about), sort_keys=False)}---",
        f"# LLUMI {model.upper()}, {stage}{', merged' if merged else ''}",
        f"This model {task}. Base: `{base}`. Training: {STAGES[stage]}.",
        LIMITS.strip(),
    ]
    if about is not None:
        parts += ["## How well it does", metrics(about)]
        parts += ["## Data", facts(about, model, stage)]
    if stage != "base":
        parts += ["## How to load it", usage(model, base, whole, rank)]
    parts += ["## Made from", lineage(key, inputs, about)]
    parts += ["## Settings", f"```yaml\n{yaml.safe_dump(publishable(dict(settings)), sort_keys=False).strip()}\n```"]
    parts += ["## Last figures of training", table(figures)]
    return "\n\n".join(parts) + "\n"


def metadata(model: str, stage: str, base: str, whole: bool, about: About | None) -> dict[str, Any]:
    """Hugging Face's block: library, base, licence, and the held-out figures as ``model-index``."""
    found: dict[str, Any] = {"language": ["en"], "library_name": "transformers" if whole else "peft"}
    if REPOSITORY.fullmatch(base):
        found |= {"base_model": base, "base_model_relation": "finetune" if whole else "adapter"}
    if about is not None and about.simulated and "base_model" not in found:
        found["license"] = "apache-2.0"
    else:
        name = (about.licence if about else "") or "not to be passed on; the terms of the base and of the data apply"
        found |= {"license": "other", "license_name": name, "license_link": REDDIT_TERMS}
    tags = ["llumi", "peer-support", model, stage] + ([] if whole else ["lora"])
    found |= {"tags": tags, "pipeline_tag": "text-generation", "inference": False}
    if about is not None and about.metrics:
        found["model-index"] = [index(model, stage, about)]
    return found


def index(model: str, stage: str, about: About) -> dict[str, Any]:
    """The held-out figures as Hugging Face's ``model-index`` has them."""
    rows = [{"type": metric.name, "value": round(metric.value, 6), "name": metric.label} for metric in about.metrics]
    split = {"evaluation": "test", "training": "validation"}[about.measured]
    dataset = {"type": "llumi", "name": f"held-out rows of this run ({split} split)", "split": split}
    result = {"task": {"type": "text-generation"}, "dataset": dataset, "metrics": rows}
    return {"name": f"llumi-{model}-{stage}", "results": [result]}


def metrics(about: About) -> str:
    """The held-out figures with their intervals."""
    if not about.metrics:
        return "Nothing was measured on held-out rows."
    rows = [
        f"| {one.label} | {one.value:.4g} | {interval(one.low, one.high)} | {one.n:,} | {one.method} |"
        for one in about.metrics
    ]
    head = ["| figure | value | interval | n | how |", "| --- | --- | --- | --- | --- |"]
    source = {
        "evaluation": "Measured by the evaluation stage on the test split.",
        "training": "Measured at the end of training on the validation split; `llumi evaluate` takes the test split.",
    }
    return "\n".join([source[about.measured], "", *head, *rows])


def interval(low: float | None, high: float | None) -> str:
    """Both ends, a dash where there is no interval."""
    return "\u2013" if low is None or high is None else f"{low:.4g} to {high:.4g}"


def facts(about: About, model: str, stage: str) -> str:
    """The data cards' main figures."""
    source = SIMULATED if about.simulated else f"Reddit's terms apply: {REDDIT_TERMS}."
    rows = [f"| {name} | {cell(value)} |" for name, value in data_facts(about.sources, model, stage).items()]
    head = ["", "| | |", "| --- | --- |"] if rows else []
    return "\n".join([f"{source} Each data folder of the run has a data card with all of it.", *head, *rows])


def usage(model: str, base: str, whole: bool, rank: int | None) -> str:
    """Code that loads it."""
    if whole:
        lines = [
            "from transformers import AutoModelForCausalLM, AutoTokenizer",
            "",
            'model = AutoModelForCausalLM.from_pretrained("THIS_FOLDER", dtype="auto")',
            'tokenizer = AutoTokenizer.from_pretrained("THIS_FOLDER")  # with the chat template',
        ]
        served = "vllm serve THIS_FOLDER"
    else:
        lines = [
            "from peft import PeftModel",
            "from transformers import AutoModelForCausalLM, AutoTokenizer",
            "",
            f'model = AutoModelForCausalLM.from_pretrained("{base}", dtype="auto")',
            'model = PeftModel.from_pretrained(model, "THIS_FOLDER")',
            'tokenizer = AutoTokenizer.from_pretrained("THIS_FOLDER")  # with the chat template',
        ]
        served = f"vllm serve {base} --enable-lora --max-lora-rank {rank or 'RANK'} --lora-modules {model}=THIS_FOLDER"
    code = "\n".join(lines)
    worded = (
        f"Prompts have to be worded as in training, by {model.upper()}'s template: an export holds it as `prompt.md`."
    )
    return f"```python\n{code}\n```\n\n```sh\n{served}\n```\n\n{worded}"


def lineage(key: str, inputs: Mapping[str, str], about: About | None) -> str:
    """Manifest keys of everything it was made from, and the code's hash."""
    lines = [f"- manifest `{key}`", *(f"- {name} `{print_}`" for name, print_ in sorted(inputs.items()))]
    if about is not None:
        lines.append(f"- code `{about.code}` (version {about.version})")
        lines += [f"- {name}: manifest `{made.key}`, code `{made.code}`" for name, made in about.sources.items()]
        if about.missing:
            lines.append(f"- not there any more, or given by name: {', '.join(about.missing)}")
    return "\n".join(lines)


def table(figures: Mapping[str, Any]) -> str:
    """Numbers as a Markdown table; what is no number is left out."""
    numbers = {name: value for name, value in sorted(figures.items()) if isinstance(value, int | float)}
    rows = [f"| {name} | {value:.6g} |" for name, value in numbers.items()]
    return "\n".join(["| figure | value |", "| --- | --- |", *rows])


def cell(text: str) -> str:
    """Text that cannot break a table."""
    return text.replace("|", "\\|").replace("\n", " ")
