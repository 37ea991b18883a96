"""Presets, ``extends``, overrides, and the messages for what does not fit."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from pydantic import BaseModel

from configs import Settings, load
from configs.errors import ConfigError
from configs.load import PRESETS, to_yaml

NAMES = sorted(path.stem for path in PRESETS.glob("*.yaml"))


def write(folder: Path, name: str, **tree: object) -> Path:
    path = folder / name
    path.write_text(yaml.safe_dump(tree), encoding="utf-8")
    return path


def sections(model: type[BaseModel]) -> Iterator[type[BaseModel]]:
    """``model`` and every settings model below it."""
    yield model
    for field in model.model_fields.values():
        for option in (field.annotation, *getattr(field.annotation, "__args__", ())):
            if isinstance(option, type) and issubclass(option, BaseModel):
                yield from sections(option)


def test_the_presets_that_users_rely_on_are_there():
    assert {"demo", "tiny", "production"} <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_every_preset_loads_by_its_name_and_by_its_path(name):
    assert load(name) == load(PRESETS / f"{name}.yaml")


@pytest.mark.parametrize("name", NAMES)
def test_the_resolved_configuration_reads_back_to_the_same_settings(name, tmp_path):
    (tmp_path / "settings.yaml").write_text(to_yaml(load(name)), encoding="utf-8")
    assert load(tmp_path / "settings.yaml") == load(name)


@pytest.mark.parametrize("name", NAMES)
def test_the_settings_of_a_preset_cannot_be_changed_in_place(name):
    with pytest.raises(ValueError, match="frozen"):
        load(name).seed = 3  # type: ignore[misc]


@pytest.mark.parametrize("section", list(dict.fromkeys(sections(Settings))), ids=lambda s: s.__name__)
def test_every_field_says_what_it_is(section):
    silent = [name for name, field in section.model_fields.items() if not (field.description or "").endswith(".")]
    assert not silent, f"{section.__name__}: no docstring on {silent}"


@pytest.mark.parametrize("section", list(dict.fromkeys(sections(Settings))), ids=lambda s: s.__name__)
def test_every_section_refuses_unknown_keys(section):
    assert section.model_config.get("extra") == "forbid"


@pytest.mark.parametrize(
    ("key", "text", "value"),
    [
        ("output", "/some/dir", "/some/dir"),
        ("corpus.posts", '["a/RS_*.zst", "s3://b/RS_*.zst"]', ("a/RS_*.zst", "s3://b/RS_*.zst")),
        ("corpus.comments", "[gs://b/RC_*.zst]", ("gs://b/RC_*.zst",)),
        ("corpus.subreddits", "[depression]", ("depression",)),
        ("model.base", "mistralai/Mistral-7B-Instruct-v0.2", "mistralai/Mistral-7B-Instruct-v0.2"),
        ("training.workers", "4", 4),
        ("training.zero_stage", "3", 3),
        ("serving.host", "0.0.0.0", "0.0.0.0"),
        ("serving.port", "9000", 9000),
    ],
)
def test_the_keys_that_scripts_rely_on_can_be_set(key, text, value):
    found = load("tiny", [f"{key}={text}"])
    for name in key.split("."):
        found = getattr(found, name)
    assert found == value


def test_the_demo_reads_the_sample_and_tiny_reads_dumps_at_the_same_sizes():
    demo, tiny = load("demo"), load("tiny")
    assert demo.sample and not tiny.sample
    assert demo.model == tiny.model and demo.generation == tiny.generation
    # Real threads are longer than the sample's, so tiny takes fewer rows; all else is the demo's.
    fewer = {name: getattr(demo.training, name).max_rows for name in ("base", "sft", "dpo1")}
    stages = {name: getattr(tiny.training, name).model_copy(update={"max_rows": n}) for name, n in fewer.items()}
    assert tiny.training.model_copy(update=stages) == demo.training


def test_production_asks_for_two_nodes_of_eight_gpus_in_bf16():
    training = load("production").training
    assert (training.workers, training.gpus_per_worker, training.zero_stage, training.bf16) == (16, 1, 2, True)
    assert "SuicideWatch" in load("production").corpus.subreddits


def test_an_unknown_key_is_refused_with_the_known_ones(tmp_path):
    path = write(tmp_path, "mine.yaml", output="o", training={"worker": 2})
    with pytest.raises(ConfigError, match=r"unknown key training\.worker; known here: .*workers"):
        load(path)


def test_an_unknown_key_in_an_optional_section_is_refused_with_the_known_ones(tmp_path):
    path = write(tmp_path, "mine.yaml", output="o", feedback={"panel": {"rater": 3}})
    with pytest.raises(ConfigError, match=r"unknown key feedback\.panel\.rater; known here: .*raters"):
        load(path)


def test_every_misfit_is_named_at_once(tmp_path):
    path = write(tmp_path, "mine.yaml", seed="x", training={"workers": 0})
    with pytest.raises(ConfigError, match=r"(?s)output: .*seed: .*training\.workers: "):
        load(path)


def test_workers_are_a_number_or_a_range(tmp_path):
    fixed, elastic = load("demo", ["training.workers=3"]).training, load("demo", ["training.workers={min: 2, max: 4}"])
    assert (fixed.least_workers, fixed.most_workers) == (3, 3)
    assert (elastic.training.least_workers, elastic.training.most_workers) == (2, 4)
    path = tmp_path / "again.yaml"
    path.write_text(to_yaml(elastic))
    assert load(path) == elastic


@pytest.mark.parametrize(
    ("workers", "told"),
    [
        ("{min: 4, max: 2}", r"training\.workers: .*min 4 is above max 2"),
        ("{mn: 1, max: 2}", r"unknown key training\.workers\.mn; known here: max, min"),
        ("two", r"training\.workers: .*integer"),
        ("0", r"training\.workers: .*greater than or equal to 1"),
    ],
)
def test_workers_that_make_no_sense_are_refused(workers, told):
    with pytest.raises(ConfigError, match=told):
        load("demo", [f"training.workers={workers}"])


def test_a_file_extends_another_beside_it_and_lists_replace(tmp_path):
    write(tmp_path, "below.yaml", output="o", corpus={"subreddits": ["a", "b"]}, training={"workers": 3})
    above = write(tmp_path, "above.yaml", extends="below.yaml", corpus={"subreddits": ["c"]})
    settings = load(above)
    assert settings.corpus.subreddits == ("c",)
    assert settings.training.workers == 3


def test_a_file_elsewhere_extends_a_shipped_preset_by_name(tmp_path):
    settings = load(write(tmp_path, "mine.yaml", extends="tiny", output="elsewhere"))
    assert settings.output == "elsewhere"
    assert settings.training == load("tiny").training


def test_files_that_extend_each_other_are_refused(tmp_path):
    write(tmp_path, "a.yaml", extends="b.yaml")
    write(tmp_path, "b.yaml", extends="a.yaml")
    with pytest.raises(ConfigError, match="extends itself"):
        load(tmp_path / "a.yaml")


def test_overrides_are_typed_like_yaml_and_the_last_one_wins():
    settings = load("tiny", ['corpus.posts=["x.zst", "y.zst"]', "training.bf16=true", "seed=1", "seed=2"])
    assert settings.corpus.posts == ("x.zst", "y.zst")
    assert settings.training.bf16 is True
    assert settings.seed == 2


def test_an_override_reaches_into_a_section_that_was_empty():
    assert load("tiny", ["sample.threads=50"]).sample.threads == 50


@pytest.mark.parametrize("override", ["seed", "=3", "training..workers=2", "seed=[1"])
def test_an_override_that_is_none_is_refused_by_name(override):
    with pytest.raises(ConfigError, match="--set"):
        load("tiny", [override])


def test_an_override_of_an_unknown_key_names_the_known_ones():
    with pytest.raises(ConfigError, match=r"unknown key serving\.prt; known here: .*port"):
        load("tiny", ["serving.prt=1"])


def test_a_configuration_that_is_not_there_names_the_presets():
    with pytest.raises(ConfigError, match=r"no/such\.yaml is not there.*demo.*tiny"):
        load("no/such.yaml")


@pytest.mark.parametrize("text", ["a: [1", "- just\n- a list\n", "\x00"])
def test_a_file_that_is_no_mapping_is_refused_by_name(text, tmp_path):
    path = tmp_path / "broken.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=r"broken\.yaml"):
        load(path)


def test_shares_that_do_not_add_up_are_refused_with_their_sum():
    with pytest.raises(ConfigError, match=r"corpus\.split.*must be 1, they are 1\.4"):
        load("tiny", ["corpus.split={train: 0.8, validation: 0.3, test: 0.3}"])
