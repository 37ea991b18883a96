"""Settings of what a stage minimises, by which rates, and when it stops; what TRL would refuse late is refused here.

The losses are those of TRL 1.16's DPOTrainer, under its names; ``pipelines/training/objectives.py``
says what each does and what LLUMI adds.
"""

import math
from collections.abc import Mapping
from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from configs.base import Section

LossName = Literal[
    "sigmoid",
    "sigmoid_norm",
    "robust",
    "hinge",
    "ipo",
    "exo_pair",
    "nca_pair",
    "bco_pair",
    "sppo_hard",
    "aot",
    "aot_unpaired",
    "apo_zero",
    "apo_down",
    "discopop",
    "sft",
]
SMOOTHED = ("sigmoid", "robust", "exo_pair", "aot", "aot_unpaired")
"""Losses that ``label_smoothing`` means something in."""
FLIPPED = ("sigmoid", "robust")
"""Losses in which it is the share of labels that are wrong, so that it can be estimated."""
NOT_BY_PAIR = ("aot", "aot_unpaired", "sft")
"""Losses that are no mean over pairs: they sort the batch, or look at the chosen reply alone."""
SCHEDULES: Mapping[str, tuple[str, ...]] = {
    "linear": (),
    "cosine": ("num_cycles",),
    "cosine_with_restarts": ("num_cycles",),
    "polynomial": ("lr_end", "power"),
    "constant": (),
    "constant_with_warmup": (),
    "inverse_sqrt": ("timescale",),
    "cosine_with_min_lr": ("num_cycles", "min_lr", "min_lr_rate"),
    "cosine_warmup_with_min_lr": ("num_cycles", "min_lr", "min_lr_rate", "warmup_lr_rate"),
    "warmup_stable_decay": (
        "num_decay_steps",
        "num_stable_steps",
        "warmup_type",
        "decay_type",
        "min_lr_ratio",
        "num_cycles",
    ),
}
"""Learning-rate schedules of transformers, and what each can be told."""
MEASURED_SCHEDULES = ("reduce_lr_on_plateau", "greedy")
"""Those that follow a measurement, which DeepSpeed steps without."""
NEEDED: Mapping[str, tuple[str, ...]] = {
    "cosine_with_min_lr": ("min_lr", "min_lr_rate"),
    "cosine_warmup_with_min_lr": ("min_lr", "min_lr_rate"),
    "warmup_stable_decay": ("num_decay_steps",),
}
"""Schedules that cannot do without one of some options."""


class EarlyStoppingSettings(Section):
    """Stop a stage whose held-out figure no longer rises: reward accuracy for DPO, for SFT the loss, which falls."""

    patience: int = Field(3, ge=1)
    """Evaluations in a row without an improvement after which training stops."""
    min_delta: float = Field(0.0, ge=0)
    """Least improvement that counts as one, in shares of pairs (DPO) or nats a token (SFT)."""


class ObjectiveSettings(Section):
    """What a stage minimises; all but the learning rate's schedule and the evaluations is DPO's alone."""

    loss: LossName = "sigmoid"
    """DPO's loss, by TRL's name; ``sigmoid`` is Rafailov et al. 2023, ``sigmoid_norm`` it by token."""
    beta: float = Field(0.1, gt=0)
    """DPO's strength of the pull to the reference (Rafailov et al. 2023); unused in SFT."""
    beta_to: float | None = Field(None, gt=0)
    """Beta after the last step, reached in a straight line from ``beta``; null: constant."""
    label_smoothing: float | Literal["auto"] = 0.0
    """Share of pairs whose label is taken to be wrong (0-0.5); ``auto`` estimates it from the pairs (noise.py)."""
    weights: Literal["none", "margin"] = "none"
    """``margin``: pairs count by log2(1 + the votes that part their replies), the mean pair 1."""
    rpo_alpha: float = Field(0.0, ge=0)
    """Weight of the SFT loss on the chosen reply, added to DPO's (Pang et al. 2024); in nats a token."""
    schedule: str = "cosine"
    """Learning-rate schedule, a name known to transformers."""
    schedule_options: dict[str, int | float | str] = Field(default_factory=dict)
    """What transformers' schedule of that name can be told, for example {min_lr_rate: 0.1}."""
    evaluate_every: int = Field(0, ge=0)
    """Steps between evaluations on the validation split; the best step's weights are the result. 0: at the end only."""
    early_stopping: EarlyStoppingSettings | None = None
    """When to stop before the last step; null: never."""

    @field_validator("schedule")
    @classmethod
    def known_schedule(cls, name: str) -> str:
        if name in MEASURED_SCHEDULES:
            raise ValueError(f"{name} follows a measurement, which DeepSpeed steps without; take one of {known()}")
        if name not in SCHEDULES:
            raise ValueError(f"{name} is no schedule of transformers; known: {known()}")
        return name

    @model_validator(mode="after")
    def schedule_fits(self) -> Self:
        for name in self.schedule_options:
            if name not in SCHEDULES[self.schedule]:
                takes = ", ".join(SCHEDULES[self.schedule]) or "nothing"
                raise ValueError(f"schedule_options.{name}: schedule {self.schedule} takes {takes}")
        needed = NEEDED.get(self.schedule, ())
        if needed and not {*needed} & {*self.schedule_options}:
            raise ValueError(f"schedule {self.schedule} needs schedule_options.{' or '.join(needed)}")
        return self

    @model_validator(mode="after")
    def smoothing_fits(self) -> Self:
        smoothing = self.label_smoothing
        if smoothing == "auto":
            if self.loss not in FLIPPED:
                raise ValueError(f"label_smoothing: auto is for loss {' and '.join(FLIPPED)}, not {self.loss}")
            return self
        assert isinstance(smoothing, int | float)
        if not (math.isfinite(smoothing) and 0 <= smoothing < 0.5):
            raise ValueError(f"label_smoothing: {smoothing} is not in [0, 0.5)")
        if smoothing and self.loss not in SMOOTHED:
            raise ValueError(f"label_smoothing: loss {self.loss} has none; set it to 0 or take {', '.join(SMOOTHED)}")
        if not smoothing and self.loss == "exo_pair":
            raise ValueError("label_smoothing: loss exo_pair needs it above 0; its paper takes 0.001")
        return self

    @model_validator(mode="after")
    def parts_fit(self) -> Self:
        if self.weights != "none" and self.loss in NOT_BY_PAIR:
            raise ValueError(f"weights: {self.weights}: loss {self.loss} is no mean over pairs that could be weighted")
        if self.rpo_alpha and self.loss == "sft":
            raise ValueError("rpo_alpha: loss sft is the SFT loss already; set it to 0")
        if self.early_stopping is not None and self.evaluate_every == 0:
            raise ValueError("early_stopping needs evaluate_every above 0: how often to evaluate, in steps")
        return self

    def preferential(self) -> list[str]:
        """Names of the fields that only DPO reads and that are set to something."""
        fields = ("loss", "beta_to", "label_smoothing", "weights", "rpo_alpha")
        return [name for name in fields if getattr(self, name) != type(self).model_fields[name].default]


def known() -> str:
    """The schedules that can be asked for."""
    return ", ".join(SCHEDULES)
