"""The table of stages: its order, what applies to which configuration, and how stages are named."""

import json
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cluster.checks import check_settings
from cluster.stage import Stage
from cluster.stages import check_order, check_plan, select, table, until
from configs import load
from configs.errors import ConfigError, MissingInput, ModelNotFound, StageOrderError, UsageError
from pipelines.manifest import writing

ORDER = [
    "sample",
    "corpus",
    "retrieval",
    "exposure",
    "revisions",
    "sft",
    "pairs",
    "base",
    *(
        f"train/{model}/{part}"
        for model in ("gm", "im")
        for part in ("sft/tokens", "sft/adapter", "dpo1/tokens", "dpo1/reference", "dpo1/adapter")
    ),
    "feedback/ratings",
    "feedback/pairs",
    *(f"train/{model}/dpo2/{part}" for model in ("gm", "im") for part in ("tokens", "reference", "adapter")),
    "models/gm",
    "models/im",
    "evaluation",
]


def stages(name: str, *overrides: str) -> dict[str, Stage]:
    return {stage.name: stage for stage in table(load(name, overrides))}


def skipped(name: str, *overrides: str) -> dict[str, str]:
    return {stage: reason for stage, s in stages(name, *overrides).items() if (reason := s.unless())}


def complete(folder: Path, **tables: pa.Table) -> None:
    """A folder with a manifest, as a stage leaves it."""
    with writing(folder, stage="x", settings={}, inputs={}) as draft:
        for name, rows in tables.items():
            path = draft.path / f"{name.replace('_', '/')}.parquet"
            path.parent.mkdir(parents=True)
            pq.write_table(rows, path)


def test_the_table_is_the_drawing_in_order():
    assert list(stages("demo")) == ORDER


def test_the_demo_skips_only_what_is_off_by_default():
    assert skipped("demo") == {"retrieval": "retrieval is off: retrieval.examples is 0"}


@pytest.mark.parametrize("asked", ["retrieval.examples=2", "retrieval.index=true"])
def test_the_index_is_built_for_training_prompts_or_for_the_service_alone(asked):
    assert skipped("demo", asked) == {}


def test_dumps_without_ratings_skip_the_sample_and_dpo2_with_a_reason():
    reasons = skipped("tiny")
    assert set(reasons) == {
        "sample",
        "retrieval",
        "feedback/ratings",
        "feedback/pairs",
        *(f"train/{model}/dpo2/{part}" for model in ("gm", "im") for part in ("tokens", "reference", "adapter")),
    }
    assert reasons["train/gm/dpo2/adapter"] == "no ratings: DPO2 skipped"


def test_ratings_by_people_bring_dpo2_back_without_a_panel():
    reasons = skipped("tiny", "feedback.ratings=[r.jsonl]")
    assert set(reasons) == {"sample", "retrieval", "feedback/ratings"}


def test_a_given_base_is_not_made():
    assert skipped("tiny", "model.base=some/model")["base"] == "model.base is some/model"
    assert stages("tiny", "model.base=some/model")["train/gm/sft/adapter"].inputs()["base"] == "some/model"


def test_each_training_stage_starts_from_the_one_before(tmp_path):
    way = stages("demo", f"output={tmp_path}")
    assert "start" not in way["train/gm/sft/adapter"].inputs()
    assert way["train/gm/dpo1/adapter"].inputs()["start"] == tmp_path / "adapters" / "gm" / "sft"
    assert way["train/im/dpo2/adapter"].inputs()["start"] == tmp_path / "adapters" / "im" / "dpo1"


def test_dpo_reads_the_reference_that_was_computed_from_what_it_starts_from(tmp_path):
    way = stages("demo", f"output={tmp_path}")
    scored, trained = way["train/gm/dpo2/reference"], way["train/gm/dpo2/adapter"].inputs()
    assert trained["reference"] == scored.output == tmp_path / "reference" / "gm" / "dpo2"
    assert scored.inputs() == {name: trained[name] for name in ("tokens", "base", "start")}
    assert "reference" not in way["train/gm/sft/adapter"].inputs()


def test_each_training_stage_reads_its_own_rows(tmp_path):
    way = stages("demo", f"output={tmp_path}")
    read = {stage: way[f"train/gm/{stage}/tokens"].inputs()["rows"] for stage in ("sft", "dpo1", "dpo2")}
    assert read == {"sft": tmp_path / "sft", "dpo1": tmp_path / "pairs", "dpo2": tmp_path / "rated_pairs"}


def test_the_merged_model_is_that_of_the_last_stage_trained(tmp_path):
    assert stages("demo", f"output={tmp_path}")["models/gm"].inputs()["adapter"] == tmp_path / "adapters/gm/dpo2"
    assert stages("tiny", f"output={tmp_path}")["models/gm"].inputs()["adapter"] == tmp_path / "adapters/gm/dpo1"


def test_a_model_whose_ratings_left_no_pair_skips_dpo2_and_merges_dpo1(tmp_path):
    some, none = pa.table({"x": [1]}), pa.table({"x": pa.array([], pa.int64())})
    complete(tmp_path / "rated_pairs", gm_train_0=some, im_train_0=none)
    way = stages("demo", f"output={tmp_path}")
    assert way["train/gm/dpo2/adapter"].unless() is None
    assert way["train/im/dpo2/adapter"].unless() == "no rated pairs for im: DPO2 skipped"
    assert way["models/im"].inputs()["adapter"] == tmp_path / "adapters/im/dpo1"
    assert "adapters/im/dpo2" not in way["evaluation"].inputs()


def test_the_report_is_about_every_adapter_and_knows_the_truth_only_of_the_sample():
    demo, tiny = (stages(name)["evaluation"].inputs() for name in ("demo", "tiny"))
    assert {f"adapters/{m}/{s}" for m in ("gm", "im") for s in ("sft", "dpo1", "dpo2")} <= set(demo)
    assert "truth" in demo and "truth" not in tiny
    assert "adapters/gm/dpo2" not in tiny


def test_outputs_lie_where_scripts_expect_them(tmp_path):
    way = stages("demo", f"output={tmp_path}")
    expected = {
        "corpus": "threads",
        "sft": "sft",
        "pairs": "pairs",
        "train/gm/dpo1/adapter": "adapters/gm/dpo1",
        "models/im": "models/im",
        "evaluation": "evaluation",
    }
    assert {name: str(way[name].output.relative_to(tmp_path)) for name in expected} == expected


@pytest.mark.parametrize(
    ("prefix", "count"),
    [
        ("train", 16),
        ("train/gm", 8),
        ("train/gm/", 8),
        ("train/gm/sft", 2),
        ("train/gm/dpo1", 3),
        ("feedback", 2),
        ("models", 2),
    ],
)
def test_a_prefix_names_a_group(prefix, count):
    assert len(select(table(load("demo")), prefix)) == count


def test_an_embedder_that_is_not_there_is_refused_before_the_run(tmp_path):
    with pytest.raises(ModelNotFound, match=r"retrieval\.embedder\.model: .* holds no modules\.json"):
        check_settings(load("tiny", [f"retrieval.embedder.model={tmp_path}"]))
    check_settings(load("tiny", ["retrieval.examples=2"]))


def test_rows_read_the_examples_only_where_prompts_show_some(tmp_path):
    on, off = (stages("demo", f"output={tmp_path}", f"retrieval.examples={n}") for n in (2, 0))
    readers = ("revisions", "sft", "pairs", "feedback/pairs", "evaluation")
    assert all(on[name].inputs()["retrieval"] == tmp_path / "retrieval" for name in readers)
    assert not any("retrieval" in off[name].inputs() for name in readers)


def test_until_a_training_stage_stops_right_after_it():
    assert until(table(load("demo")), "train/gm/dpo1")[-1].name == "train/gm/dpo1/adapter"


@pytest.mark.parametrize("prefix", ["trai", "train/gm/dpo3", "", "pairs/x"])
def test_a_name_that_is_none_is_refused(prefix):
    names = "sample, corpus, retrieval, exposure, revisions, sft, pairs, base, train, feedback, models, evaluation"
    with pytest.raises(UsageError, match=f"stages are: {names}"):
        select(table(load("demo")), prefix)


@pytest.mark.parametrize(
    ("stage", "there", "command"),
    [
        ("pairs", [], "llumi corpus mine.yaml"),
        ("train/gm/sft/tokens", ["models/base"], "llumi pairs mine.yaml"),
        ("train/gm/dpo1/reference", ["models/base", "tokens/gm/dpo1"], "llumi train mine.yaml --model gm --stage sft"),
        (
            "train/gm/dpo1/adapter",
            ["models/base", "tokens/gm/dpo1", "adapters/gm/sft"],
            "llumi train mine.yaml --model gm --stage dpo1",
        ),
        ("train/im/dpo2/tokens", ["models/base"], "llumi feedback mine.yaml"),
        ("feedback/pairs", ["threads"], "llumi feedback mine.yaml"),
        ("models/gm", ["models/base"], "llumi train mine.yaml --model gm --stage dpo2"),
        ("evaluation", ["threads", "exposure", "sft", "pairs"], "llumi run mine.yaml --until base"),
    ],
)
def test_a_missing_input_names_the_command_that_makes_it(stage, there, command, tmp_path):
    settings = load("demo", [f"output={tmp_path}"])
    for folder in there:
        complete(tmp_path / folder)
    stages = table(settings)
    chosen = select(stages, stage)[0]
    with pytest.raises(StageOrderError, match=f"run `{command}` first"):
        check_order(chosen, stages, "mine.yaml")


def test_every_command_that_a_message_names_exists():
    from cluster.cli import app

    known = {command.name or command.callback.__name__ for command in app.registered_commands if command.callback}
    known |= {group.name or group.typer_instance.info.name for group in app.registered_groups if group.typer_instance}
    assert {stage.command.split()[1] for stage in table(load("demo"))} <= known


def test_a_glob_that_matches_nothing_is_found_out_before_anything_runs(tmp_path):
    stages = table(load("tiny", [f"corpus.posts=[{tmp_path}/RS_*.zst]", f"corpus.comments=[{tmp_path}/RC_*.zst]"]))
    with pytest.raises(MissingInput, match=r"RS_\*\.zst"):
        check_plan(stages, stages, "tiny")


def test_dumps_that_are_not_named_are_asked_for_with_an_example():
    stages = table(load("tiny"))
    with pytest.raises(ConfigError, match=r"corpus\.posts is empty.*--set 'corpus\.posts="):
        check_plan(stages, stages, "tiny")


def test_a_panel_without_the_sample_is_refused():
    with pytest.raises(ConfigError, match=r"feedback\.panel simulates raters from the truth of the built-in sample"):
        check_settings(load("tiny", ["feedback.panel={}"]))


@pytest.mark.parametrize("base", ["/no/such/folder", "./nothing", "a/b/c", "justaname"])
def test_a_base_that_is_not_there_is_refused(base):
    with pytest.raises(ModelNotFound, match=f"model.base {base} is not there"):
        check_settings(load("tiny", [f"model.base={base}"]))


def test_a_folder_that_holds_no_model_is_refused(tmp_path):
    with pytest.raises(ModelNotFound, match=r"no config\.json"):
        check_settings(load("tiny", [f"model.base={tmp_path}"]))


def test_a_folder_that_holds_a_model_is_taken(tmp_path):
    sizes = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "vocab_size": 16}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 1}
    config = {"model_type": "mistral", "architectures": ["MistralForCausalLM"], **sizes, **heads}
    (tmp_path / "config.json").write_text(json.dumps(config), encoding="utf-8")
    check_settings(load("tiny", [f"model.base={tmp_path}"]))


def test_a_folder_whose_configuration_is_no_model_s_is_refused(tmp_path):
    (tmp_path / "config.json").write_text("{}", encoding="utf-8")
    with pytest.raises(ModelNotFound, match="has no configuration that can be read"):
        check_settings(load("tiny", [f"model.base={tmp_path}"]))


def test_a_hub_name_that_is_neither_cached_nor_reachable_is_refused(monkeypatch, tmp_path):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ModelNotFound, match="nobody/nothing can be read neither"):
        check_settings(load("tiny", ["model.base=nobody/nothing"]))


MODULES = sorted({stage.module for stage in table(load("demo"))})


@pytest.mark.parametrize("module", MODULES)
def test_looking_whether_a_stage_is_current_imports_no_torch(module):
    code = f"import sys, {module}; print(sorted({{'torch', 'transformers', 'deepspeed'}} & set(sys.modules)))"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert shown.strip() == "[]"
