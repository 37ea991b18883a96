"""Model cards: what a model is for, what it is not for, and from what it was made.

Written by us since PEFT's own card names folders of this machine and says nothing of use.
"""

from collections.abc import Mapping
from typing import Any

import yaml

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
- Held-out figures are in the run's evaluation report; nothing here shows that it is safe.
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
) -> str:
    """The card as Markdown with Hugging Face's metadata block.

    ``key`` and ``inputs`` are the manifest's, so that the card names the very rows.
    """
    metadata: dict[str, Any] = {
        "language": "en",
        "library_name": "transformers" if merged or stage == "base" else "peft",
    }
    metadata |= {"base_model": base, "tags": ["llumi", model, stage], "pipeline_tag": "text-generation"}
    task = TASKS.get(model, "is the small language model that both adapters of this run stand on")
    parts = [
        f"---\n{yaml.safe_dump(metadata, sort_keys=False)}---",
        f"# LLUMI {model.upper()}, {stage}{', merged' if merged else ''}",
        f"This model {task}. Base: `{base}`. Training: {STAGES[stage]}.",
        LIMITS.strip(),
        "## Made from",
        "\n".join([f"- manifest `{key}`", *(f"- {name} `{print_}`" for name, print_ in sorted(inputs.items()))]),
        "## Settings",
        f"```yaml\n{yaml.safe_dump(dict(settings), sort_keys=False).strip()}\n```",
        "## Last figures of training",
        table(figures),
    ]
    return "\n\n".join(parts) + "\n"


def table(figures: Mapping[str, Any]) -> str:
    """Numbers as a Markdown table; what is no number is left out."""
    numbers = {name: value for name, value in sorted(figures.items()) if isinstance(value, int | float)}
    rows = [f"| {name} | {value:.6g} |" for name, value in numbers.items()]
    return "\n".join(["| figure | value |", "| --- | --- |", *rows])
