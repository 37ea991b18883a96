"""Forgetting in a whole run's folder: what goes, what is counted, what stays current, what is listed."""

import json
import shutil
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from configs.errors import DataError, StageOrderError
from pipelines import manifest
from pipelines.forgetting import kept
from pipelines.forgetting.forget import forget
from pipelines.forgetting.report import Report
from pipelines.forgetting.requests import Requests
from pipelines.manifest import CARD, fingerprint
from tests.pipelines.forgetting.world import World, files_with, words


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path / "run").everything()


def ask(world: World, *names: str, **options: Any) -> Report:
    """Forget what is named as in the file."""
    found = {kind: frozenset(n[len(p) :] for n in names if n.startswith(p)) for kind, p in PREFIXES.items()}
    asked = Requests(found["posts"], found["comments"], frozenset(name.lower() for name in found["authors"]))
    options.setdefault("ratings", [world.at.ratings / "ratings.jsonl"])
    return forget(world.settings, asked, **options)


PREFIXES = {"posts": "t3_", "comments": "t1_", "authors": "u/"}


def rows(folder: Path) -> int:
    return sum(pq.read_metadata(path).num_rows for path in folder.rglob("*.parquet"))


def test_a_forgotten_post_is_in_no_file_and_neither_is_anything_under_it(world: World) -> None:
    before = files_with(world.root, words("p4"))
    assert {"threads/part-1.parquet", "sft/gm/test/part-0.parquet", "evaluation/report.html"} <= set(before)
    ask(world, "t3_p4")
    for name in ("p4", "c4x0", "c4x1", "c4x2"):
        assert files_with(world.root, words(name)) == []
    assert files_with(world.root, words("p5"))


def test_a_forgotten_comment_leaves_its_thread_and_takes_every_row_it_stands_in(world: World) -> None:
    ask(world, "t1_c1x2")
    assert files_with(world.root, words("c1x2")) == []
    assert files_with(world.root, words("c1x1"))
    left = pq.read_table(world.at.sft / "im" / "train", partitioning=None)["post_id"].to_pylist()
    assert left == ["p2"]  # p1's completion was c1x2, p0's prompt showed it as an example
    left = pq.read_table(world.at.sft / "gm" / "train", partitioning=None)["post_id"].to_pylist()
    assert left == ["p0", "p2"]


def test_a_forgotten_draft_takes_the_rows_that_revise_it_and_the_teachers_revisions(world: World) -> None:
    ask(world, "t1_c1x0")
    assert files_with(world.root, words("c1x0")) == []
    assert pq.read_table(world.at.sft / "im" / "train", partitioning=None)["post_id"].to_pylist() == ["p0", "p2"]
    assert rows(world.at.sft / "gm") == 6
    assert rows(world.at.rated_pairs / "im") == 0  # what raters saw as a draft has no id there, only words
    answers = (world.at.teacher / "answers-1.jsonl").read_text().splitlines()
    assert [json.loads(line)["post_id"] for line in answers] == ["p0", "p2", "p3", "p4", "p5"]


def test_a_forgotten_author_takes_posts_and_comments_whatever_the_case_of_the_name(world: World) -> None:
    ask(world, "u/ANN", "u/gus")
    for name in ("p0", "p1", "c0x0", "c1x2", *(f"c{k}x1" for k in range(6)), "c9x9"):
        assert files_with(world.root, words(name)) == [], name
    assert files_with(world.root, words("c2x0"))
    assert files_with(world.root, "words of c8x8")  # another's quarantined line


def test_what_is_kept_names_nobody_and_the_same_request_again_finds_nothing(world: World) -> None:
    first = ask(world, "u/Ann", "t3_p4", "t1_zzz")
    assert first.unknown == ["t1_zzz"]
    text = (world.root / kept.FILE).read_text()
    for name in ("Ann", "ann", "p0", "p4", "zzz", "c0x0", words("c0x0")):
        assert f'"{name}"' not in text
    assert files_with(world.root, '"Ann"') == files_with(world.root, '"ann"') == []
    again = ask(world, "u/Ann", "t3_p4", "t1_zzz")
    assert {change.action for change in again.changes} == {"kept", "trained"}
    assert (world.root / kept.FILE).read_text() == text
    assert again.kept_out == first.kept_out
    assert again.unknown == []


def test_rows_are_conserved_and_the_manifest_says_what_went_without_naming_it(world: World) -> None:
    before = manifest.read(world.at.pairs)
    assert before is not None
    report = ask(world, "u/Ann")
    threads, pairs = manifest.read(world.at.threads), manifest.read(world.at.pairs)
    assert threads is not None and pairs is not None
    assert threads.rows["posts"].model_dump() == {"read": 7, "kept": 4, "dropped": {"deleted": 1, "forgotten": 2}}
    assert threads.rows["comments"].model_dump() == {"read": 19, "kept": 12, "dropped": {"deleted": 1, "forgotten": 6}}
    assert threads.figures["subreddits"] == {"Quiet": {"posts": 4, "comments": 12}}
    assert threads.figures["splits"]["train"] == {"posts": 1, "comments": 3}
    for model in ("gm", "im"):
        assert pairs.rows[model].model_dump() == {"read": 6, "kept": 4, "dropped": {"forgotten": 2}}
        assert pairs.rows[model].kept == rows(world.at.pairs / model)
        assert pairs.figures[model]["train"]["pairs"] == 1
    assert pairs.rows["threads"].dropped == {"forgotten": 2}
    (event,) = pairs.figures["forgotten"]["times"]
    assert event == {"when": report.when, "rows": {"gm": 2, "im": 2, "threads": 2}}
    assert any("llumi forget" in note for note in pairs.notes)
    told = {change.output: (change.rows, change.of) for change in report.changes if change.action == "rows"}
    assert told["pairs"] == ({"gm": 2, "im": 2, "threads": 2}, {"gm": 6, "im": 6, "threads": 6})


def test_the_card_is_written_again_from_what_is_left(world: World) -> None:
    ask(world, "u/Ann")
    made = manifest.read(world.at.pairs)
    text = (world.at.pairs / CARD).read_text()
    assert made is not None and made.key in text
    assert "| gm | 6 | 4 | 2 |" in text
    assert made.files[CARD] == len(text.encode())


def test_outputs_stay_linked_as_they_were_made_from_each_other_and_training_does_not(world: World) -> None:
    ask(world, "t1_c0x2")  # a row of SFT and of the pairs, of both models, in the training split

    def reads(folder: Path, name: str, source: Path) -> bool:
        made = manifest.read(folder)
        assert made is not None
        assert made.key == manifest.key_of(made.stage, made.settings, made.inputs)
        return made.inputs[name] == fingerprint(source)

    for folder in (world.at.sft, world.at.pairs, world.at.ratings, world.at.rated_pairs, world.root / "exposure"):
        assert reads(folder, "threads", world.at.threads), folder
    ratings = manifest.read(world.at.rated_pairs)
    assert ratings is not None
    assert ratings.inputs["ratings"] == fingerprint([world.at.ratings / "ratings.jsonl"])
    assert not list(world.root.glob("tokens/*/*"))
    adapter = manifest.read(world.at.adapter("gm", "sft"))
    assert adapter is not None and adapter.notes == [
        "Trained on rows that were forgotten since: stop serving it, and train again with `llumi run`."
    ]
    assert not reads(world.at.adapter("gm", "dpo1"), "start", world.at.adapter("gm", "sft"))
    assert not (world.root / "manifest.json").exists()


def test_threads_name_the_list_so_that_a_build_from_the_dumps_has_the_same_key_and_rows(world: World) -> None:
    ask(world, "u/Ann", "t1_c5x0")
    in_place = manifest.read(world.at.threads)
    tables = [pq.read_table(path) for path in sorted(world.at.threads.glob("*.parquet"))]
    world.threads()  # what the stage does: the list it loads, applied to all that the dumps hold
    rebuilt = manifest.read(world.at.threads)
    assert in_place is not None and rebuilt is not None
    assert rebuilt.key == in_place.key
    assert rebuilt.rows == in_place.rows
    assert [pq.read_table(path) for path in sorted(world.at.threads.glob("*.parquet"))] == tables


def test_models_that_no_removed_row_reached_stay_current_and_are_not_listed(world: World) -> None:
    report = ask(world, "t1_c1x0")  # a draft of IM; no row of GM
    assert {model.output for model in report.models} == {"adapters/im/sft", "adapters/im/dpo1", "models/im"}
    for stage in ("sft", "dpo1"):
        made = manifest.read(world.at.adapter("gm", stage))
        assert made is not None
        assert made.inputs["tokens"] == fingerprint(world.at.tokens("gm", stage))
        assert made.notes == []
    tokens = manifest.read(world.at.tokens("gm", "sft"))
    assert tokens is not None and tokens.inputs["rows"] == fingerprint(world.at.sft)
    merged = manifest.read(world.at.model("gm"))
    assert merged is not None and merged.inputs["adapter"] == fingerprint(world.at.adapter("gm", "dpo1"))


def test_models_are_listed_with_the_rows_and_the_models_through_which_they_were_reached(world: World) -> None:
    report = ask(world, "t1_c0x1", config="mine.yaml")  # rejected in the pairs, in no row of SFT
    listed = {model.output: model for model in report.models}
    assert set(listed) == {f"adapters/{m}/dpo1" for m in ("gm", "im")} | {"models/gm", "models/im"}
    assert listed["adapters/gm/dpo1"].rows == 1
    assert listed["models/gm"].through == ["train/gm/dpo1"]
    assert listed["models/gm"].command == "llumi run mine.yaml"
    again = ask(world, "t1_c0x1")
    assert {model.output for model in again.models} == set(listed), "they stay listed until they are trained again"


def test_a_test_post_is_no_reason_to_train_again_and_the_report_that_shows_it_goes(world: World) -> None:
    report = ask(world, "t3_p5")
    assert report.models == []
    assert not world.at.evaluation.exists()
    assert world.at.tokens("gm", "sft").is_dir()


def test_a_post_to_validate_with_leaves_the_weights_current_and_the_tokens_without_it(world: World) -> None:
    report = ask(world, "t3_p3")
    assert report.models == []
    for model in ("gm", "im"):
        tokens, reference = world.at.tokens(model, "dpo1"), world.at.reference(model, "dpo1")
        adapter = manifest.read(world.at.adapter(model, "dpo1"))
        assert adapter is not None
        assert adapter.inputs["tokens"] == fingerprint(tokens)
        assert adapter.inputs["reference"] == fingerprint(reference)
        for split, left in (("train", 3), ("validation", 0)):
            assert rows(tokens / split) == rows(reference / split) == left
        made = manifest.read(tokens)
        assert made is not None
        assert made.rows["validation"].model_dump() == {"read": 1, "kept": 0, "dropped": {"forgotten": 1}}


def test_what_stands_beside_tokens_goes_with_them(world: World) -> None:
    ask(world, "t1_c0x2")
    assert not world.at.reference("gm", "dpo1").exists()


def test_the_report_stays_where_only_training_rows_went(world: World) -> None:
    ask(world, "t3_p2")
    assert (world.at.evaluation / "report.html").is_file()


def test_checkpoints_of_runs_in_progress_go(world: World) -> None:
    (world.at.checkpoints / "gm-sft-0123456789ab").mkdir(parents=True)
    ask(world, "t1_zzz")
    assert (world.at.checkpoints / "gm-sft-0123456789ab").is_dir()
    ask(world, "t3_p2")
    assert not (world.at.checkpoints / "gm-sft-0123456789ab").exists()


def test_rating_files_elsewhere_are_named_and_left_alone(world: World, tmp_path: Path) -> None:
    given = tmp_path / "given.jsonl"
    given.write_bytes((world.at.ratings / "ratings.jsonl").read_bytes())
    inside = world.root / "own.jsonl"
    inside.write_bytes(given.read_bytes())
    before = given.read_bytes()
    report = ask(world, "t3_p1", ratings=[world.at.ratings / "ratings.jsonl", given, inside])
    assert [(file.file, file.lines) for file in report.outside] == [(str(given), 2)]
    assert not report.is_done
    assert given.read_bytes() == before
    assert len(inside.read_text().splitlines()) == 5


def test_rows_made_of_other_threads_than_those_that_are_there_are_removed(world: World) -> None:
    world.threads(note="made again")  # the same posts, but nobody can tell
    report = ask(world, "u/Ann")
    gone = {change.output for change in report.changes if change.action == "removed"}
    assert {"sft", "pairs", "ratings", "rated_pairs", "evaluation"} <= gone
    assert not world.at.pairs.exists()
    assert files_with(world.root, words("p0")) == []


def test_rows_without_their_threads_are_refused_with_the_way_out(world: World) -> None:
    shutil.rmtree(world.at.threads)
    with pytest.raises(StageOrderError, match="run `llumi corpus CONFIG` first"):
        ask(world, "u/Ann")
    assert not (world.root / ".forgetting").exists()
    assert not (world.root / kept.FILE).exists()


def test_an_output_of_an_unknown_kind_goes_where_its_sources_changed(world: World) -> None:
    with world.write(world.root / "topics", "topics", {"pairs": world.at.pairs}) as draft:
        (draft.path / "topics.json").write_text(words("c0x2"))
    ask(world, "t1_zzz")
    assert (world.root / "topics").is_dir()
    ask(world, "t1_c0x2")
    assert not (world.root / "topics").exists()


def test_a_dry_run_counts_the_same_and_changes_no_byte(world: World) -> None:
    def state() -> dict[str, bytes]:
        return {str(path): path.read_bytes() for path in world.root.rglob("*") if path.is_file()}

    before = state()
    shown = ask(world, "u/Ann", "t3_p4", dry_run=True)
    assert state() == before
    assert not (world.root / ".forgetting").exists()
    done = ask(world, "u/Ann", "t3_p4")
    assert shown.model_dump(exclude={"when", "dry_run"}) == done.model_dump(exclude={"when", "dry_run"})


def test_forgetting_before_anything_was_built_keeps_a_list(tmp_path: Path) -> None:
    world = World(tmp_path / "run")
    report = ask(world, "u/Ann", ratings=[])
    assert report.unknown == ["u/ann"] and report.changes == []
    world.threads()
    assert files_with(world.root, words("p0")) == []
    assert files_with(world.root, words("p2"))


def test_another_key_stops_a_build_instead_of_forgetting_nothing(world: World) -> None:
    ask(world, "u/Ann")
    key = world.root / "author.key"
    text = key.read_text()
    key.write_text("another key, long enough\n")
    with pytest.raises(DataError, match="another key"):
        kept.load(world.root)
    key.unlink()
    with pytest.raises(DataError, match=r"restore .*author\.key"):
        kept.depends(world.root)
    key.write_text(text)
    assert kept.load(world.root)
    (world.root / kept.FILE).write_text("{}")
    with pytest.raises(DataError, match="is damaged"):
        kept.load(world.root)


def test_threads_hashed_by_another_key_are_refused(world: World) -> None:
    (world.root / "author.key").write_text("another key, long enough\n")
    with pytest.raises(DataError, match="another key than the one at hand"):
        ask(world, "u/Ann")
