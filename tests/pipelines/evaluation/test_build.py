"""The whole stage on a small run: with truth and ratings, and without."""

import csv
import json
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from configs.errors import StageOrderError
from pipelines.evaluation.build import build, depends
from pipelines.evaluation.drafts import DRAFT
from pipelines.manifest import Input, Manifest, fingerprints, is_current, writing
from tests.pipelines.evaluation.world import settings, write_adapters

ALL = ("gm/sft", "gm/dpo1", "gm/dpo2", "im/sft", "im/dpo1", "im/dpo2")


class Page(HTMLParser):
    """Tags and ids of a page, and whether everything opened is closed."""

    VOID = frozenset({"meta", "link", "br", "img", "input", "hr"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.ids: set[str] = set()
        self.links: list[str] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        values = dict(attrs)
        self.ids.add(values.get("id") or "")
        self.links += [value for name in ("href", "src") if (value := values.get(name))]
        if tag not in self.VOID:
            self.open.append(tag)
        if tag == "svg":
            assert values["role"] == "img" and values["aria-label"]

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)


TOKENISED = {
    "train_cut": 3,
    "masking": {"rows": 4, "tokens": 1234, "trained": 99, "wrong": 0},
    "lengths": {"train": {"whole": {"p50": 300, "max": 640}, "trained_share": 0.1875}},
}
"""What the manifest of tokenised rows says of them."""


@pytest.fixture(scope="module")
def whole(ray_cluster: None, evaluated_run: dict[str, Input], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Evaluation of all six adapters, with truth and ratings."""
    root = tmp_path_factory.mktemp("whole")
    inputs = evaluated_run | write_adapters(root, Path(str(evaluated_run["base"])), ALL)
    with writing(root / "tokens", stage="tokens/gm/sft", settings={}, inputs={}) as draft:
        draft.figures |= TOKENISED
    inputs["tokens/gm/sft"] = root / "tokens"
    manifest = build(settings(root), inputs, root / "evaluation")
    assert is_current(root / "evaluation", "evaluation", depends(settings(root)), fingerprints(inputs))
    assert manifest == Manifest.model_validate_json((root / "evaluation" / "manifest.json").read_text())
    return root / "evaluation"


@pytest.fixture(scope="module")
def bare(ray_cluster: None, evaluated_run: dict[str, Input], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Evaluation as on real dumps: no truth, no ratings, GM only, no DPO2."""
    root = tmp_path_factory.mktemp("bare")
    inputs = {name: evaluated_run[name] for name in ("threads", "sft", "pairs", "base")}
    inputs |= write_adapters(root, Path(str(evaluated_run["base"])), ("gm/sft", "gm/dpo1"))
    build(settings(root, sample=None), inputs, root / "evaluation")
    return root / "evaluation"


def figures(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "figures.json").read_text())
    return found


def test_each_stage_is_measured_on_its_own_kind_of_pairs(whole: Path) -> None:
    rewards = figures(whole)["rewards"]
    for model in ("gm", "im"):
        assert {stage: (row["pairs"], row["reference"]) for stage, row in rewards[model].items()} == {
            "sft": ("votes", "base"),
            "dpo1": ("votes", "sft"),
            "dpo2": ("ratings", "dpo1"),
        }
        for row in rewards[model].values():
            assert row["n"] == 5 and row["low"] <= row["accuracy"] <= row["high"]
    table = figures(whole)["rewards_table"]
    assert len(table) == 2 * 2 * (1 + 4)


def test_the_figures_follow_from_the_saved_log_probabilities(whole: Path) -> None:
    rows = [row for row in pq.read_table(whole / "rewards.parquet").to_pylist() if row["model"] == "gm"]
    votes = [row for row in rows if row["pairs"] == "votes"]
    margins = [
        0.1 * ((row["chosen_dpo1"] - row["chosen_sft"]) - (row["rejected_dpo1"] - row["rejected_sft"])) for row in votes
    ]
    found = figures(whole)["rewards"]["gm"]["dpo1"]
    assert found["accuracy"] == sum(margin > 0 for margin in margins) / len(margins)
    assert found["margin"] == pytest.approx(sum(margins) / len(margins))


def test_every_stage_writes_for_the_same_posts(whole: Path) -> None:
    drafts = pq.read_table(whole / "drafts.parquet", schema=DRAFT).to_pylist()
    posts = {name: [row["post_id"] for row in drafts if f"{row['model']}/{row['stage']}" == name] for name in ALL}
    assert all(len(chosen) == 4 and chosen == posts[name[:2] + "/sft"] for name, chosen in posts.items())
    assert all(row["quality"] is not None for row in drafts)
    assert all((row["original_id"] is None) == (row["model"] == "gm") for row in drafts)


def test_quality_and_agreement_are_told_where_the_truth_is_known(whole: Path) -> None:
    found = figures(whole)
    assert {"sft", "dpo1_minus_sft", "dpo2_minus_sft"} <= set(found["quality"]["gm"])
    assert {"original", "dpo2_minus_original"} <= set(found["quality"]["im"])
    assert found["agreement"]["shp"]["mean"] == 1.0
    assert found["agreement"]["ratings"]["n"] == 5
    assert found["quality"]["judge"]["n"] == 15


def test_without_truth_and_ratings_the_report_claims_neither_and_says_why(bare: Path) -> None:
    found = figures(bare)
    assert "quality" not in found and "agreement" not in found
    assert set(found["rewards"]["gm"]) == {"sft", "dpo1"}
    assert "ratings" in found["skipped"]["gm/dpo2"]
    text = (bare / "report.html").read_text()
    assert "GM DPO2 was skipped: there are no ratings" in text
    assert "simulation" not in text
    assert all(row["quality"] is None for row in pq.read_table(bare / "drafts.parquet").to_pylist())


@pytest.mark.parametrize("kind", ["whole", "bare"])
def test_the_page_is_sound_and_holds_nobodys_markup(kind: str, request: pytest.FixtureRequest) -> None:
    folder: Path = request.getfixturevalue(kind)
    text = (folder / "report.html").read_text()
    page = Page(text)
    assert page.open == []
    assert "script" not in page.tags and "b" not in page.tags and "i" not in page.tags
    assert "<script>alert('post')</script> & <b>bold</b>" in "".join(page.words)
    for link in page.links:
        assert link.lstrip("#") in page.ids if link.startswith("#") else (folder / link).is_file()


def test_the_report_shows_rows_notes_curves_and_examples(whole: Path) -> None:
    page = Page((whole / "report.html").read_text())
    words = "".join(page.words)
    for expected in ("score too low 2", "Ratings are simulated.", "Training of IM", "Examples, side by side", "Limits"):
        assert expected in words
    assert {"rows", "training", "rewards", "agreement", "quality", "examples", "limits"} <= page.ids


def test_a_csv_lies_beside_every_table_and_holds_the_same_figures(whole: Path) -> None:
    with (whole / "tables" / "rewards.csv").open() as file:
        rows = list(csv.DictReader(file))
    expected = figures(whole)["rewards_table"]
    assert [float(row["accuracy"]) for row in rows] == [row["accuracy"] for row in expected]
    names = {path.stem for path in (whole / "tables").glob("*.csv")}
    assert names == {"funnel", "tokens", "curves", "rewards", "agreement", "quality", "texts"}
    with (whole / "tables" / "tokens.csv").open() as file:
        (row,) = csv.DictReader(file)
    assert (row["stage"], row["learned"], row["checked"], row["wrong"]) == ("gm/sft", "0.1875", "1234", "0")
    assert "18.8" in (whole / "report.html").read_text()


def test_the_manifest_carries_headlines_and_conserved_rows(whole: Path) -> None:
    manifest = Manifest.model_validate_json((whole / "manifest.json").read_text())
    assert manifest.figures["rewards"]["im"]["dpo2"]["n"] == 5
    assert manifest.figures["agreement"]["naive"]["n"] > 5
    assert manifest.rows["pairs/gm/votes"].kept == 5
    assert manifest.rows["texts/im/dpo2"].kept == 4


def test_an_input_that_is_not_complete_is_named(evaluated_run: dict[str, Input], tmp_path: Path) -> None:
    (tmp_path / "adapter").mkdir()
    with pytest.raises(StageOrderError, match="adapter is not complete"):
        build(settings(tmp_path), evaluated_run | {"adapters/gm/sft": tmp_path / "adapter"}, tmp_path / "evaluation")
    assert not (tmp_path / "evaluation").exists()
