"""Threads to pairs through real Ray: rows, accounts, the report."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from configs import DataError, Settings
from configs.corpus import SampleSettings
from configs.errors import StageOrderError
from pipelines.corpus.build import build as build_threads
from pipelines.manifest import Input, Manifest
from pipelines.pairs import build as pairs
from pipelines.pairs import exposure
from pipelines.pairs.exposure_model import Exposure
from pipelines.pairs.im.build import build as build_revisions
from pipelines.pairs.replies import Replies
from pipelines.pairs.rules import rule_of
from pipelines.pairs.schema import PAIR, SPLITS
from pipelines.pairs.select import select
from pipelines.sample.build import build as build_sample
from tests.pipelines.pairs.making import ids
from tests.pipelines.pairs.test_bias import check_page


def settings_for(folder: Path, **changes: Any) -> Settings:
    """Settings with the output in ``folder`` and splits of like size."""
    split = {"train": 0.6, "validation": 0.2, "test": 0.2}
    corpus = {"split": split, "rows_per_file": 60, "subreddits": ["QuietHarbor"]}
    return Settings(output=str(folder), corpus=corpus, improvement={"floor": -1.0}, **changes)


@pytest.fixture(scope="module")
def world(ray_cluster: None, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Input]:
    """A small sample, its threads in several files, their exposure model and revisions."""
    folder = tmp_path_factory.mktemp("pairs")
    settings = settings_for(folder)
    build_sample(SampleSettings(threads=240, seed=3), folder / "sample")
    dumps = {"posts": [f"{folder}/sample/RS_*.zst"], "comments": [f"{folder}/sample/RC_*.zst"]}
    build_threads(settings, dumps, folder / "threads")
    found: dict[str, Input] = {"threads": folder / "threads"}
    exposure.build(settings, found, folder / "exposure")
    found["exposure"] = folder / "exposure"
    build_revisions(settings, found, folder / "revisions")
    return {**found, "revisions": folder / "revisions", "truth": folder / "sample" / "truth.parquet"}


def tables(folder: Path) -> dict[tuple[str, str], pa.Table]:
    """Rows by model and split."""
    found = {}
    for model in ("gm", "im"):
        for split in SPLITS:
            parts = [
                pq.read_table(file, partitioning=None) for file in sorted((folder / model / split).glob("*.parquet"))
            ]
            assert parts and all(part.schema.equals(PAIR) for part in parts)
            found[model, split] = pa.concat_tables(parts)
    return found


@pytest.fixture(scope="module")
def built(world: dict[str, Input], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Manifest]:
    """The pairs of the default rule."""
    folder = tmp_path_factory.mktemp("built") / "pairs"
    return folder, pairs.build(settings_for(folder.parent), world, folder)


def test_pairs_lie_by_model_and_split_and_every_candidate_is_accounted_for(built: tuple[Path, Manifest]) -> None:
    folder, manifest = built
    got = tables(folder)
    for (model, split), table in got.items():
        assert set(table["split"].to_pylist()) <= {split}
        assert manifest.figures[model][split]["pairs"] == table.num_rows
    for model in ("gm", "im"):
        assert manifest.rows[model].kept == sum(got[model, split].num_rows for split in SPLITS) > 100
    posts = {post for split in SPLITS for post in got["gm", split]["post_id"].to_pylist()}
    assert manifest.rows["threads"].kept == len(posts)
    assert set(manifest.rows["gm"].dropped) == {"over_cap", "unbalanced"}
    assert manifest.figures["rules"]["matched"]["pairs"] == manifest.rows["gm"].kept


def test_the_pairs_written_are_those_that_the_rule_gives_on_all_threads_at_once(
    built: tuple[Path, Manifest], world: dict[str, Input]
) -> None:
    files = sorted(Path(str(world["threads"])).glob("*.parquet"))
    assert len(files) > 1
    threads, settings = pa.concat_tables([pq.read_table(file) for file in files]), settings_for(built[0]).pairs
    model = Exposure.read(Path(str(world["exposure"])))
    expected = ids(threads, select(Replies.of(threads, model), rule_of(settings, model), settings))
    written = pa.concat_tables([table for (kind, _), table in tables(built[0]).items() if kind == "gm"])
    assert sorted(zip(written["chosen_id"].to_pylist(), written["rejected_id"].to_pylist(), strict=True)) == sorted(
        expected
    )


def test_the_default_rule_chooses_neither_early_nor_long_replies_and_agrees_best_of_the_large_rules(
    built: tuple[Path, Manifest],
) -> None:
    rules, agreement = (built[1].figures[name] for name in ("rules", "agreement"))
    assert 0.45 <= rules["matched"]["chosen_earlier"] <= 0.55
    assert 0.45 <= rules["matched"]["chosen_longer"] <= 0.55
    assert rules["naive"]["chosen_earlier"] > 0.75 and rules["shp"]["chosen_earlier"] == 0.0
    for name in ("askell", "margin", "naive"):
        assert agreement[name]["minus"]["verdict"] == "rises"


def test_the_report_is_one_page_without_requests_and_a_csv_for_each_table(built: tuple[Path, Manifest]) -> None:
    check_page(built[0], "matched")
    page = (built[0] / "report.html").read_text()
    assert "Are the pairs right?" in page and page.count("<svg") == 8
    assert {path.stem for path in (built[0] / "tables").iterdir()} == {
        "rules", "gaps", "overlap", "splits", "exposure", "agreement",
    }  # fmt: skip


def test_a_rerun_gives_the_same_pairs(built: tuple[Path, Manifest], world: dict[str, Input], tmp_path: Path) -> None:
    without = {name: value for name, value in world.items() if name != "truth"}
    manifest = pairs.build(settings_for(tmp_path), without, tmp_path / "pairs")
    assert all(table.equals(tables(built[0])[key]) for key, table in tables(tmp_path / "pairs").items())
    assert "agreement" not in manifest.figures
    assert "Are the pairs right?" not in (tmp_path / "pairs" / "report.html").read_text()


def test_no_pairs_in_the_training_split_is_refused_with_the_settings_to_change(
    world: dict[str, Input], tmp_path: Path
) -> None:
    for changes, message in (
        ({"matched": {"min_margin": 90}}, r"no pairs in the training split.*pairs\.matched\.min_margin=90"),
        ({"rule": "shp", "min_ratio": 1000}, r"pairs\.min_ratio=1000"),
        ({"rule": "naive", "min_post_score": 9999}, r"pairs\.min_post_score=9999"),
    ):
        with pytest.raises(DataError, match=message):
            pairs.build(settings_for(tmp_path, pairs=changes), world, tmp_path / "pairs")
    assert not list(tmp_path.iterdir())


def test_inputs_that_are_not_complete_are_refused(world: dict[str, Input], tmp_path: Path) -> None:
    for name in ("threads", "exposure", "revisions"):
        with pytest.raises(StageOrderError, match="is not complete"):
            pairs.build(settings_for(tmp_path), world | {name: tmp_path / name}, tmp_path / "out")


def dumps(shared_data: Path, name: str) -> dict[str, Input]:
    """Real dumps."""
    return {"posts": [f"{shared_data / name}/RS_*.zst"], "comments": [f"{shared_data / name}/RC_*.zst"]}


def test_dumps_without_order_of_arrival_need_a_rule_that_asks_for_none(
    ray_cluster: None, shared_data: Path, tmp_path: Path
) -> None:
    settings = Settings(output=str(tmp_path), improvement={"floor": -1.0})
    build_threads(settings, dumps(shared_data, "counselchat"), tmp_path / "threads")
    inputs: dict[str, Input] = {name: tmp_path / name for name in ("threads", "exposure", "revisions")}
    exposure.build(settings, {"threads": inputs["threads"]}, tmp_path / "exposure")
    ranked = {name: inputs[name] for name in ("threads", "exposure")}
    with pytest.raises(DataError, match=r"set pairs\.rule=shp and pairs\.timing=false"):
        build_revisions(settings, ranked, tmp_path / "revisions")
    changes = {"pairs": {"rule": "shp", "timing": False, "min_score": 1}, "improvement": {"floor": -1.0}}
    untimed = Settings(output=str(tmp_path), **changes)
    build_revisions(untimed, ranked, tmp_path / "revisions")
    manifest = pairs.build(untimed, inputs, tmp_path / "pairs")
    assert manifest.rows["gm"].kept > 100
    assert "timing rule is off" in manifest.notes[0]
    assert "matched" not in manifest.figures["rules"]
    check_page(tmp_path / "pairs", "shp")


def test_on_real_threads_the_default_rule_is_balanced_and_yields_enough(
    ray_cluster: None, shared_data: Path, tmp_path: Path
) -> None:
    settings = Settings(output=str(tmp_path))
    build_threads(settings, dumps(shared_data, "college"), tmp_path / "threads")
    inputs: dict[str, Input] = {name: tmp_path / name for name in ("threads", "exposure", "revisions")}
    exposure.build(settings, {"threads": inputs["threads"]}, tmp_path / "exposure")
    ranked = {name: inputs[name] for name in ("threads", "exposure")}
    build_revisions(settings, ranked, tmp_path / "revisions")
    found = pairs.build(settings, inputs, tmp_path / "pairs").figures["rules"]["matched"]
    assert found["pairs"] >= 1500
    assert 0.45 <= found["chosen_earlier"] <= 0.55 and 0.45 <= found["chosen_longer"] <= 0.55
