"""Before workers are taken the plan is held against what the cluster has."""

import logging
from pathlib import Path

import pytest

from configs import load
from configs.errors import ConfigError
from configs.settings import Settings
from pipelines.manifest import RowCount, writing
from pipelines.training.planner import check, volume
from pipelines.training.planner.check import Room
from pipelines.training.planner.memory import GIB

BASE = "mistralai/Mistral-7B-Instruct-v0.2"


def settings_of(*overrides: str) -> Settings:
    return load("production", overrides)


@pytest.fixture
def room(monkeypatch: pytest.MonkeyPatch) -> None:
    """A cluster of GPUs with 17 GiB free, which is not at hand here."""
    there = Room(device=17 * GIB, host=10 * GIB, words="the smallest GPU (A) has 17.0 GiB free")
    monkeypatch.setattr(check, "room_of", lambda settings: there)


def test_a_stage_that_cannot_fit_is_refused_with_both_numbers_and_a_way_out(room: None) -> None:
    with pytest.raises(ConfigError) as caught:
        check.check(settings_of(), "gm", "sft", BASE)
    words = str(caught.value)
    assert "training.sft needs 21.0 GiB (weights 13.6, activations" in words
    assert "has 17.0 GiB free: --set training.zero_stage=3 fits" in words
    assert "memory_check=warn" in words


def test_a_stage_is_let_pass_that_fits_or_that_is_wanted_all_the_same(
    room: None, caplog: pytest.LogCaptureFixture
) -> None:
    check.check(settings_of("training.zero_stage=3"), "gm", "sft", BASE)
    check.check(settings_of("training.memory_check=off"), "gm", "sft", BASE)
    with caplog.at_level(logging.WARNING, "llumi.training"):
        check.check(settings_of("training.memory_check=warn"), "gm", "sft", BASE)
    assert "training.sft needs 21.0 GiB" in caplog.text


def test_the_reference_holds_whole_weights_and_is_refused_where_they_do_not_fit(room: None) -> None:
    with pytest.raises(ConfigError, match=r"the reference's log-probabilities need 19\.8 GiB"):
        check.check_reference(settings_of("training.zero_stage=3"), BASE)


def test_offloading_is_refused_where_the_host_cannot_take_it(room: None) -> None:
    full = settings_of("training.mode=full", "training.zero_stage=3", "training.offload.optimizer=cpu")
    check.check(full, "gm", "sft", BASE)
    alone = full.model_copy(update={"training": full.training.model_copy(update={"workers": 8})})
    with pytest.raises(ConfigError, match=r"offloading needs 15\.2 GiB of the host for each worker, there are 10\.0"):
        check.check(alone, "gm", "sft", BASE)


def test_a_model_that_is_not_known_is_not_checked_and_this_is_said(
    room: None, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "llumi.training"):
        check.check(settings_of("model.base=nobody/nothing"), "gm", "sft", "nobody/nothing")
    assert "memory is not checked" in caplog.text


def test_on_the_cpu_a_node_s_memory_is_shared_by_the_workers_on_it() -> None:
    nodes = [{"CPU": 4.0, "memory": 8 * GIB}, {"CPU": 1.0, "memory": 4 * GIB}]
    packed = check.on_cpu(load("demo", ["training.workers=4"]), nodes)
    assert packed is not None and packed.device == 2 * GIB and "8.0 GiB for 4 workers" in packed.words
    spread = check.on_cpu(load("demo", ["training.workers=4", "training.placement=SPREAD"]), nodes)
    assert spread is not None and spread.device == 4 * GIB


def test_a_cluster_on_cpus_is_looked_at_through_ray(ray_cluster: None, tmp_path: Path) -> None:
    found = check.room_of(load("demo"))
    assert found is not None and found.device > 0

    (tmp_path / "config.json").write_text('{"model_type": "mistral"}')
    huge = load("demo", ["model.scratch.hidden_size=8192", "model.scratch.layers=200", "training.mode=full"])
    with pytest.raises(ConfigError, match=r"training\.sft needs .* GiB .* for each worker; the node has"):
        check.check(huge, "gm", "sft", "scratch")
    check.check(load("demo"), "gm", "sft", "scratch")


def test_rows_and_lengths_are_taken_from_what_is_there(tmp_path: Path) -> None:
    settings = load("production", [f"output={tmp_path}", "training.sft.max_rows=0"])
    assert volume.rows_of(settings, "gm", "sft").source == "assumed"
    assert volume.rows_of(settings, "gm", "sft", 77).rows == 77

    with writing(tmp_path / "sft", stage="sft", settings={}, inputs={}) as draft:
        draft.figures["gm"] = {"train": 120, "validation": 3, "test": 3}
    assert volume.rows_of(settings, "gm", "sft").rows == 120

    parts = {
        part: {"count": 100, "mean": mean, "max": 2 * mean} for part, mean in (("prompt", 300), ("completion", 50))
    }
    with writing(tmp_path / "tokens" / "gm" / "sft", stage="tokens/gm/sft", settings={}, inputs={}) as draft:
        draft.rows["train"] = RowCount(read=120, kept=100, dropped={"too_long": 20})
        draft.figures["lengths"] = {"train": {**parts, "whole": {"count": 100, "mean": 350, "max": 700}}}
    found = volume.rows_of(settings, "gm", "sft")
    assert (found.rows, found.source, found.longest) == (100, "tokens", 700)
    assert (found.trained("sft"), found.trained("dpo"), found.scored()) == (35_000, 70_000, 40_000)
