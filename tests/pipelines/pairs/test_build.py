"""Threads to SFT rows and pairs through real Ray."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from configs import DataError, Settings
from configs.errors import StageOrderError
from pipelines.corpus.build import build as build_threads
from pipelines.pairs import build as pairs
from pipelines.pairs import sft
from pipelines.pairs.old_rules import pair_ids
from pipelines.pairs.schema import PAIR, SFT, SPLITS
from tests.pipelines.corpus.dumps import APRIL_2021, comment, post, zst


def settings_for(folder: Path, **changes: Any) -> Settings:
    """Settings with the output in ``folder`` and splits of like size."""
    split = {"train": 0.5, "validation": 0.25, "test": 0.25}
    return Settings(output=str(folder), corpus={"split": split, "rows_per_file": 25}, **changes)


@pytest.fixture(scope="module")
def threads(ray_cluster: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixty threads of four replies whose votes fall with arrival in every other thread; in several files."""
    folder = tmp_path_factory.mktemp("pairs")
    posts = [post(f"p{i}") for i in range(60)]
    comments = []
    for i in range(60):
        votes = (20, 8, 3, 1) if i % 2 else (2, 5, 11, 30)
        for k, score in enumerate(votes):
            comments.append(comment(f"c{i}x{k}", f"p{i}", score=score, created_utc=APRIL_2021 + 60 * k))
    dumps = {"posts": [zst(folder / "RS.zst", posts)], "comments": [zst(folder / "RC.zst", comments)]}
    build_threads(settings_for(folder), dumps, folder / "threads")
    return folder / "threads"


def tables(folder: Path, schema: pa.Schema) -> dict[tuple[str, str], pa.Table]:
    """Rows by model and split."""
    found = {}
    for model in ("gm", "im"):
        for split in SPLITS:
            files = sorted((folder / model / split).glob("*.parquet"))
            assert files
            parts = [pq.read_table(file, partitioning=None) for file in files]
            assert all(part.schema.equals(schema) for part in parts)
            found[model, split] = pa.concat_tables(parts)
    return found


def test_pairs_lie_by_model_and_split_and_none_was_chosen_for_coming_first(threads: Path, tmp_path: Path) -> None:
    settings = settings_for(tmp_path)
    manifest = pairs.build(settings, {"threads": threads}, tmp_path / "pairs")
    got = tables(tmp_path / "pairs", PAIR)
    assert len(list(threads.glob("*.parquet"))) == 3
    assert sum(table.num_rows for table in got.values()) == manifest.rows["gm"].kept + manifest.rows["im"].kept
    for (model, split), table in got.items():
        assert set(table["split"].to_pylist()) <= {split}
        assert manifest.figures[model][split]["pairs"] == table.num_rows > 0
        times = zip(table["chosen_created_utc"].to_pylist(), table["rejected_created_utc"].to_pylist(), strict=True)
        assert all(chosen >= rejected for chosen, rejected in times)
    assert manifest.rows["threads"].model_dump() == {"read": 60, "kept": 30, "dropped": {"no_pair": 30}}
    rules = manifest.figures["rules"]
    assert rules["shp"]["chosen_earlier"] == 0.0
    assert rules["naive"]["chosen_earlier"] == 0.5
    assert rules["shp"]["pairs"] == manifest.rows["gm"].kept


def test_the_pairs_written_are_those_that_the_rule_gives_on_the_threads(threads: Path, tmp_path: Path) -> None:
    settings = settings_for(tmp_path, pairs={"rule": "naive", "max_per_post": 2})
    pairs.build(settings, {"threads": threads}, tmp_path / "pairs")
    written = pa.concat_tables([t for (model, _), t in tables(tmp_path / "pairs", PAIR).items() if model == "gm"])
    expected = pair_ids(pa.concat_tables([pq.read_table(f) for f in threads.glob("*.parquet")]), settings.pairs)
    names = expected.schema.names
    assert sorted(map(str, written.select(names).to_pylist())) == sorted(map(str, expected.to_pylist()))


def test_sft_rows_lie_by_model_and_split_and_add_up(threads: Path, tmp_path: Path) -> None:
    manifest = sft.build(settings_for(tmp_path), {"threads": threads}, tmp_path / "sft")
    got = tables(tmp_path / "sft", SFT)
    for (model, split), table in got.items():
        assert manifest.figures[model][split] == table.num_rows > 0
    assert manifest.rows["gm"].read == 240
    assert manifest.rows["gm"].kept == sum(got["gm", split].num_rows for split in SPLITS) == 180
    assert got["im", "train"]["original_id"].null_count == 0


def test_a_split_without_rows_has_an_empty_file(threads: Path, tmp_path: Path) -> None:
    folder = tmp_path / "few"
    one_author = [post(f"p{i}", author="train-author-2") for i in range(3)]
    votes = [(i, k, 3 ** (k + 1)) for i in range(3) for k in range(2)]
    replies = [comment(f"c{i}x{k}", f"p{i}", score=score, created_utc=APRIL_2021 + k) for i, k, score in votes]
    dumps = {"posts": [zst(tmp_path / "RS.zst", one_author)], "comments": [zst(tmp_path / "RC.zst", replies)]}
    build_threads(settings_for(folder), dumps, folder / "threads")
    (split,) = {row for f in (folder / "threads").glob("*.parquet") for row in pq.read_table(f)["split"].to_pylist()}
    assert split == "train"
    pairs.build(settings_for(folder), {"threads": folder / "threads"}, folder / "pairs")
    sizes = {key: table.num_rows for key, table in tables(folder / "pairs", PAIR).items()}
    assert sizes["gm", "train"] == 3
    assert sizes["gm", "validation"] == sizes["gm", "test"] == sizes["im", "test"] == 0


def test_no_pairs_in_the_training_split_is_refused_with_the_settings_to_change(threads: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no pairs in the training split.*pairs\.min_ratio=1000"):
        pairs.build(settings_for(tmp_path, pairs={"min_ratio": 1000}), {"threads": threads}, tmp_path / "pairs")
    with pytest.raises(DataError, match=r"no SFT rows for gm.*sft\.min_score=500"):
        sft.build(settings_for(tmp_path, sft={"min_score": 500}), {"threads": threads}, tmp_path / "sft")
    assert not list(tmp_path.iterdir())


def test_threads_that_are_not_complete_are_refused(tmp_path: Path) -> None:
    for stage in (sft, pairs):
        with pytest.raises(StageOrderError, match="is not complete"):
            stage.build(settings_for(tmp_path), {"threads": tmp_path / "threads"}, tmp_path / "out")


def test_dumps_without_order_of_arrival_need_the_timing_rule_off(
    ray_cluster: None, shared_data: Path, tmp_path: Path
) -> None:
    folder = shared_data / "counselchat"
    dumps = {"posts": [f"{folder}/RS_*.zst"], "comments": [f"{folder}/RC_*.zst"]}
    build_threads(settings_for(tmp_path), dumps, tmp_path / "threads")
    for stage in (sft, pairs):
        with pytest.raises(DataError, match=r"set pairs\.timing=false"):
            stage.build(settings_for(tmp_path), {"threads": tmp_path / "threads"}, tmp_path / "out")
    untimed = settings_for(tmp_path, pairs={"timing": False, "min_score": 1})
    manifest = pairs.build(untimed, {"threads": tmp_path / "threads"}, tmp_path / "pairs")
    assert manifest.rows["gm"].kept > 100
    assert "timing rule is off" in manifest.notes[0]
