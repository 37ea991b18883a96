"""The simulated panel: real rating files, honest about being simulated, that lead to true preferences."""

from pathlib import Path
from statistics import fmean

import orjson
import pyarrow.parquet as pq
import pytest

from configs import Settings
from configs.corpus import SampleSettings
from configs.errors import UsageError
from configs.pairs import FeedbackSettings, PanelSettings
from pipelines.feedback import build as rated_pairs
from pipelines.feedback import panel
from pipelines.feedback.ratings import Rating, read_ratings
from pipelines.manifest import Manifest
from pipelines.sample.build import simulate, truth
from pipelines.sample.quality import DIMENSIONS
from tests.pipelines.feedback.making import write_threads

SPLIT_OF = ("train", "train", "train", "test")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Threads of a simulated community, cleaned by hand, and its truth."""
    folder = tmp_path_factory.mktemp("panel")
    threads = [t for t in simulate(SampleSettings(threads=200, seed=3)) if t.kind == "normal"]
    pq.write_table(truth(threads), folder / "truth.parquet")
    rows = [
        {
            "post_id": thread.post_id,
            "title": thread.title,
            "text": thread.text,
            "split": SPLIT_OF[i % 4],
            "comments": [
                {
                    "comment_id": c.comment_id,
                    "author_hash": "h",
                    "text": c.text,
                    "created_utc": c.created_utc,
                    "score": 1,
                }
                for c in thread.comments
                if c.kind == "normal"
            ],
        }
        for i, thread in enumerate(threads)
    ]
    write_threads(folder / "threads", rows)
    return folder


def settings(**changes: float) -> Settings:
    """Settings of a panel over 150 items a model."""
    return Settings(output="unused", feedback=FeedbackSettings(panel=PanelSettings(items=150, **changes)))


def rate(folder: Path, output: Path, **changes: float) -> tuple[Manifest, list[Rating]]:
    """The panel's manifest and its ratings."""
    inputs = {"threads": folder / "threads", "truth": folder / "truth.parquet"}
    manifest = panel.build(settings(**changes), inputs, output)
    return manifest, read_ratings([output / panel.FILE])


@pytest.fixture(scope="module")
def rated(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Manifest, list[Rating]]:
    """A panel's output, its manifest and its ratings."""
    output = tmp_path_factory.mktemp("rated") / "ratings"
    return output, *rate(folder, output)


def test_the_panel_says_that_no_human_rated_anything(rated: tuple[Path, Manifest, list[Rating]]) -> None:
    _, manifest, rows = rated
    assert manifest.notes == ["ratings are simulated from the sample's truth, no human rated anything"]
    assert {row.source for row in rows} == {"simulated"}


def test_each_item_has_its_raters_and_an_im_item_a_weaker_draft(
    folder: Path, rated: tuple[Path, Manifest, list[Rating]]
) -> None:
    _, manifest, rows = rated
    judged = {row["comment_id"]: row for row in pq.read_table(folder / "truth.parquet").to_pylist()}
    texts = {
        comment["text"]: fmean(judged[comment["comment_id"]][d] for d in DIMENSIONS)
        for thread in pq.read_table(folder / "threads" / "part-0.parquet").to_pylist()
        for comment in thread["comments"]
    }
    for model in ("gm", "im"):
        items = {row.item_id: row for row in rows if row.model == model}
        assert (
            len(items) == 150 + 15 == manifest.figures[f"{model}_items"] + manifest.figures[f"{model}_attention_items"]
        )
        assert all(3 <= sum(row.item_id == item for row in rows) <= 4 for item in items)
    drafted = {row.item_id: row for row in rows if row.model == "im" and not row.is_attention}.values()
    assert all(row.draft not in (None, row.response_a.text, row.response_b.text) for row in drafted)
    weaker = fmean(
        texts[row.draft or ""] < max(texts[row.response_a.text], texts[row.response_b.text]) for row in drafted
    )
    assert weaker > 0.95


def test_posts_of_all_splits_are_rated_and_sides_are_random(
    folder: Path, rated: tuple[Path, Manifest, list[Rating]]
) -> None:
    output, _, rows = rated
    real = {row.item_id: row for row in rows if row.model == "gm" and not row.is_attention}.values()
    threads = pq.read_table(folder / "threads" / "part-0.parquet").to_pylist()
    split = {thread["post_id"]: thread["split"] for thread in threads}
    assert {split[row.post_id] for row in real} == {"train", "test"}
    better_is_a = fmean(sum(row.ratings_a.given()) > sum(row.ratings_b.given()) for row in real)
    assert 0.35 < better_is_a < 0.65
    assert (output / panel.FILE).read_bytes().count(b"\n") == len(rows)


def test_raters_differ_in_severity_and_the_careless_one_is_found_out(
    folder: Path, rated: tuple[Path, Manifest, list[Rating]], tmp_path: Path
) -> None:
    output, _, rows = rated
    means: dict[str, list[int]] = {}
    for row in rows:
        if not row.is_attention:
            means.setdefault(row.rater_id, []).extend(row.ratings_a.given() + row.ratings_b.given())
    assert len(means) == 25
    spread = [fmean(values) for values in means.values()]
    assert max(spread) - min(spread) > 0.7
    inputs = {"threads": folder / "threads", "ratings": [output / panel.FILE]}
    manifest = rated_pairs.build(settings(), inputs, tmp_path / "out")
    assert manifest.figures["excluded_raters"] == {"failed_attention": 1}


def test_preferences_of_the_panel_agree_with_the_truth_on_close_and_clear_items(
    folder: Path, rated: tuple[Path, Manifest, list[Rating]], tmp_path: Path
) -> None:
    inputs = {"threads": folder / "threads", "ratings": [rated[0] / panel.FILE]}
    manifest = rated_pairs.build(settings(), inputs, tmp_path / "out")
    quality = {row["comment_id"]: row["quality"] for row in pq.read_table(folder / "truth.parquet").to_pylist()}
    for model in ("gm", "im"):
        pairs = pq.read_table(tmp_path / "out" / model).to_pylist()
        assert len(pairs) > 90
        assert fmean(quality[p["chosen_id"]] > quality[p["rejected_id"]] for p in pairs) > 0.93
        assert manifest.rows[f"{model}_items"].dropped["margin_too_small"] > 5
    assert manifest.figures["gm_pairs"]["test"] >= 20


def test_noisier_raters_agree_less(folder: Path, rated: tuple[Path, Manifest, list[Rating]], tmp_path: Path) -> None:
    noisy = tmp_path / "noisy"
    rate(folder, noisy, noise=2.0)
    kept = []
    for ratings in (rated[0], noisy):
        inputs = {"threads": folder / "threads", "ratings": [ratings / panel.FILE]}
        kept.append(rated_pairs.build(settings(), inputs, tmp_path / f"out-{len(kept)}").rows["gm_items"].kept)
    assert kept[1] < kept[0]


def test_the_same_seed_gives_the_same_ratings(
    folder: Path, rated: tuple[Path, Manifest, list[Rating]], tmp_path: Path
) -> None:
    rate(folder, tmp_path / "again")
    rate(folder, tmp_path / "other", seed=12)
    first = (rated[0] / panel.FILE).read_bytes()
    assert first == (tmp_path / "again" / panel.FILE).read_bytes()
    assert first != (tmp_path / "other" / panel.FILE).read_bytes()
    assert set(orjson.loads(first.splitlines()[0])) == set(Rating.model_fields) - {"preferred"}


def test_without_a_panel_in_the_configuration_none_is_simulated(folder: Path, tmp_path: Path) -> None:
    inputs = {"threads": folder / "threads", "truth": folder / "truth.parquet"}
    with pytest.raises(UsageError, match=r"feedback\.panel"):
        panel.build(Settings(output="unused"), inputs, tmp_path / "out")
    assert not (tmp_path / "out").exists()
