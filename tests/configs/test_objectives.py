"""What a stage may be told to minimise: everything TRL would refuse late is refused when the settings are read."""

import inspect
import re
from typing import Any, get_args

import pytest

from configs import load
from configs.errors import ConfigError
from configs.objectives import MEASURED_SCHEDULES, SCHEDULES, LossName


def loaded(*overrides: str) -> Any:
    return load("demo", list(overrides)).training


def refused(*overrides: str) -> str:
    with pytest.raises(ConfigError) as error:
        loaded(*overrides)
    return str(error.value)


def test_schedules_are_those_of_transformers_with_what_each_takes() -> None:
    from transformers import SchedulerType
    from transformers.optimization import TYPE_TO_SCHEDULER_FUNCTION

    assert {*SCHEDULES, *MEASURED_SCHEDULES} == {name.value for name in SchedulerType}
    common = {"optimizer", "num_warmup_steps", "num_training_steps", "last_epoch"}
    for name, options in SCHEDULES.items():
        takes = {*inspect.signature(TYPE_TO_SCHEDULER_FUNCTION[SchedulerType(name)]).parameters} - common
        assert takes == {*options}, name


def test_losses_are_those_of_trl() -> None:
    from trl import DPOConfig

    words = (
        DPOConfig.__dataclass_fields__["loss_type"].metadata["help"].split("Possible values are")[1].split(". If")[0]
    )
    assert {*get_args(LossName)} == {*re.findall(r"'(\w+)'", words)}


def test_an_unknown_schedule_is_named_with_the_known_ones() -> None:
    assert "training.dpo1.schedule" in (said := refused("training.dpo1.schedule=cosin"))
    assert "cosin is no schedule" in said and "inverse_sqrt" in said
    assert "DeepSpeed" in refused("training.sft.schedule=reduce_lr_on_plateau")
    assert "schedule cosine takes num_cycles" in refused("training.sft.schedule_options={power: 2}")
    assert "needs schedule_options.min_lr or min_lr_rate" in refused("training.dpo1.schedule=cosine_with_min_lr")
    fine = loaded("training.dpo1.schedule=cosine_with_min_lr", "training.dpo1.schedule_options={min_lr_rate: 0.1}")
    assert fine.dpo1.schedule_options == {"min_lr_rate": 0.1}


@pytest.mark.parametrize(
    ("overrides", "why"),
    [
        (["loss=exo_pair"], "exo_pair needs it above 0"),
        (["loss=robust", "label_smoothing=0.5"], r"0.5 is not in [0, 0.5)"),
        (["loss=hinge", "label_smoothing=0.1"], "loss hinge has none"),
        (["loss=exo_pair", "label_smoothing=auto"], "auto is for loss sigmoid and robust"),
        (["loss=aot", "weights=margin"], "aot is no mean over pairs"),
        (["loss=sft", "rpo_alpha=1"], "rpo_alpha"),
        (["early_stopping={patience: 2}"], "early_stopping needs evaluate_every"),
        (["loss=dpo"], "sigmoid_norm"),
    ],
)
def test_what_does_not_go_together_is_refused_by_name(overrides: list[str], why: str) -> None:
    said = refused(*(f"training.dpo2.{override}" for override in overrides))
    assert "training.dpo2" in said and why in said


def test_sft_has_one_loss_and_dpo_no_adapter_on_the_head() -> None:
    assert "sft.weights is DPO's alone" in refused("training.sft.weights=margin")
    assert "lm_head" in refused("training.lora.targets=[q_proj, lm_head]")
