"""Rated pairs as files: columns, splits, prompts, counts."""

from pathlib import Path

import pyarrow.parquet as pq
import pytest

from configs import Settings
from configs.errors import DataError, MissingInput
from configs.prompts import messages, whole_post
from pipelines.feedback.build import SIMULATED, build
from pipelines.forgetting.forget import forget
from pipelines.forgetting.requests import Requests
from pipelines.manifest import read
from pipelines.pairs.schema import PAIR, SPLITS
from tests.pipelines.feedback.making import GOOD_TEXT, POOR_TEXT, line, write_lines, write_threads

THREE = ("r1", "r2", "r3")
DRAFT = "Sleep will come again, leave the clock alone."


@pytest.fixture()
def settings(tmp_path: Path) -> Settings:
    return Settings(output=str(tmp_path))


@pytest.fixture()
def threads(tmp_path: Path) -> Path:
    """A post in each split."""
    posts = [{"post_id": f"p-{split}", "title": f"Title {split}", "text": "Text.", "split": split} for split in SPLITS]
    return write_threads(tmp_path / "threads", posts)


def pairs(folder: Path) -> list[dict]:
    """The rows of a folder of Parquet files, which must have the schema of pairs."""
    table = pq.read_table(folder)
    assert table.schema.equals(PAIR)
    return table.to_pylist()


def test_a_pair_lies_in_the_split_of_its_post_and_is_rendered_with_the_models_prompt(
    settings: Settings, threads: Path, tmp_path: Path
) -> None:
    gm = [line(f"g-{split}", r, post_id=f"p-{split}") for split in SPLITS for r in THREE]
    im = [line("m-1", r, 1, 4, model="im", draft=DRAFT, post_id="p-test") for r in THREE]
    ratings = write_lines(tmp_path / "r.jsonl", gm + im)
    build(settings, {"threads": threads, "ratings": [ratings]}, tmp_path / "out")
    for split in SPLITS:
        (pair,) = pairs(tmp_path / "out" / "gm" / split)
        assert pair["prompt"] == messages("gm", whole_post(f"Title {split}", "Text."))
        assert pair["chosen"] == [{"role": "assistant", "content": GOOD_TEXT}]
        assert pair["rejected"] == [{"role": "assistant", "content": POOR_TEXT}]
        assert (pair["chosen_id"], pair["rejected_id"], pair["rule"]) == ("c1", "c2", "ratings")
        assert (pair["post_id"], pair["split"], pair["chosen_score"]) == (f"p-{split}", split, None)
    assert [len(pairs(tmp_path / "out" / "im" / split)) for split in SPLITS] == [0, 0, 1]
    (revision,) = pairs(tmp_path / "out" / "im" / "test")
    assert revision["prompt"] == messages("im", whole_post("Title test", "Text."), DRAFT)
    assert revision["chosen_id"] == "c2"


def test_every_rating_and_every_item_is_accounted_for(settings: Settings, threads: Path, tmp_path: Path) -> None:
    lines = [line("good", r, post_id="p-train") for r in THREE]
    lines += [line("elsewhere", r, post_id="p-unknown") for r in THREE]
    lines += [line("few", "r1", post_id="p-train"), line("blank", "r1", post_id="p-test", ratings_a={})]
    ratings = write_lines(tmp_path / "r.jsonl", lines)
    manifest = build(settings, {"threads": threads, "ratings": [ratings]}, tmp_path / "out")
    assert manifest == read(tmp_path / "out")
    assert manifest.rows["ratings"].read == 8 and manifest.rows["ratings"].dropped == {"incomplete_readability": 1}
    assert manifest.rows["gm_items"].read == 4 and manifest.rows["gm_items"].kept == 1
    assert manifest.rows["gm_items"].dropped == {"post_not_in_threads": 1, "too_few_raters": 1, "no_usable_rating": 1}
    assert manifest.figures["gm_pairs"] == {"train": 1, "validation": 0, "test": 0}
    assert SIMULATED not in manifest.notes


def test_ratings_that_were_simulated_are_called_so(settings: Settings, threads: Path, tmp_path: Path) -> None:
    ratings = write_lines(tmp_path / "r.jsonl", [line("i", r, post_id="p-test", source="simulated") for r in THREE])
    assert SIMULATED in build(settings, {"threads": threads, "ratings": [ratings]}, tmp_path / "out").notes


def test_ratings_that_show_no_preference_leave_no_output_and_say_why(
    settings: Settings, threads: Path, tmp_path: Path
) -> None:
    ratings = write_lines(tmp_path / "r.jsonl", [line("i", "r1", post_id="p-test")])
    with pytest.raises(DataError, match="gm too_few_raters 1"):
        build(settings, {"threads": threads, "ratings": [ratings]}, tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["r.jsonl", "threads"]


@pytest.mark.parametrize("given", [[], [Path("nowhere.jsonl")], Path("empty")])
def test_missing_rating_files_are_named(
    settings: Settings, threads: Path, tmp_path: Path, given: list[Path] | Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("empty").mkdir()
    with pytest.raises(MissingInput, match=r"feedback\.ratings|nowhere|empty"):
        build(settings, {"threads": threads, "ratings": given}, tmp_path / "out")


def test_what_was_forgotten_is_left_out_of_rating_files_that_still_hold_it(settings: Settings, tmp_path: Path) -> None:
    said = {"author_hash": "x", "created_utc": 1, "score": 1}
    comments = [said | {"comment_id": "c7", "text": DRAFT}, said | {"comment_id": "c8", "text": "Another reply."}]
    posts = [{"post_id": name, "text": "Text.", "split": "train", "comments": comments} for name in ("p-1", "p-2")]
    threads = write_threads(tmp_path / "threads", posts)
    by_id = [line("by-id", r, post_id="p-1", response_a={"id": "c8", "text": GOOD_TEXT}) for r in THREE]
    by_words = [line("by-words", r, 1, 4, model="im", draft=f"{DRAFT}\n", post_id="p-1") for r in THREE]
    by_post = [line("by-post", r, post_id="p-2") for r in THREE]
    stays = [line("stays", r, post_id="p-1") for r in THREE]
    ratings = write_lines(tmp_path / "given.jsonl", [*by_id, *by_words, *by_post, *stays])
    asked = Requests(frozenset({"p-2"}), frozenset({"c7", "c8"}), frozenset())
    report = forget(Settings(output=str(tmp_path)), asked)
    assert report.unknown == []
    manifest = build(settings, {"threads": threads, "ratings": [ratings]}, tmp_path / "out")
    assert manifest.rows["ratings"].model_dump() == {"read": 12, "kept": 3, "dropped": {"forgotten": 9}}
    assert [pair["post_id"] for pair in pairs(tmp_path / "out" / "gm" / "train")] == ["p-1"]
    assert manifest.rows["im_items"].read == 0
