"""The whole way on the built-in sample, as a user runs it, and what it claims on held-out data.

Takes about ten minutes on two cores. ``LLUMI_DEMO`` may name the output of an earlier
``llumi demo`` to check instead of making one.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml

from pipelines import manifest
from pipelines.pairs.schema import PAIR, SFT, SPLITS
from pipelines.sample.scorer import repetition, tokens

LLUMI = str(Path(sys.executable).parent / "llumi")
MODELS = ("gm", "im")
STAGES = ("sft", "dpo1", "dpo2")

pytestmark = pytest.mark.timeout(1700)


@dataclass(frozen=True)
class Run:
    """A finished demo."""

    root: Path
    printed: str
    figures: dict[str, Any]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    given = os.environ.get("LLUMI_DEMO")
    root = Path(given) if given else tmp_path_factory.mktemp("demo") / "run"
    printed = ""
    if not given:
        done = subprocess.run([LLUMI, "demo", "--output", str(root)], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr[-3000:]
        printed = done.stdout
    yield Run(root, printed, json.loads((root / "evaluation" / "figures.json").read_text()))


def test_the_outputs_lie_where_users_expect_them(run: Run) -> None:
    for model in MODELS:
        for split in SPLITS:
            assert pq.read_schema(next((run.root / "sft" / model / split).glob("*.parquet"))).equals(SFT)
            assert pq.read_schema(next((run.root / "pairs" / model / split).glob("*.parquet"))).equals(PAIR)
        for stage in STAGES:
            assert (run.root / "adapters" / model / stage / "adapter_model.safetensors").stat().st_size > 10_000
        assert (run.root / "models" / model / "model.safetensors").is_file()
    assert "<html" in (run.root / "evaluation" / "report.html").read_text()[:300].lower()
    assert json.loads((run.root / "manifest.json").read_text())["settings"]["sample"]["threads"] > 0


def test_every_stage_conserves_its_rows_and_names_what_it_dropped(run: Run) -> None:
    folders = [path.parent for path in run.root.rglob(manifest.FILE)]
    assert len(folders) > 15
    for folder in folders:
        made = manifest.read(folder)  # a manifest whose rows do not add up is refused
        assert made is not None
        assert made.code and made.key, folder
        assert (folder / "settings.yaml").is_file(), folder
    corpus = manifest.read(run.root / "threads")
    sample = manifest.read(run.root / "sample")
    assert corpus and sample
    lines = sum(corpus.rows[kind].read for kind in ("posts", "comments"))
    assert lines == sum(count.read for count in sample.rows.values())
    assert {"bot", "deleted", "duplicate", "moderator", "not_english", "own_reply", "post_missing"} <= set(
        corpus.rows["comments"].dropped
    )


def test_the_splits_share_no_post_author(run: Run) -> None:
    threads = pq.read_table(next((run.root / "threads").glob("*.parquet")))
    authors: dict[str, set[str]] = {split: set() for split in SPLITS}
    for author, split in zip(threads["author_hash"].to_pylist(), threads["split"].to_pylist(), strict=True):
        authors[split].add(author)
    assert all(authors.values())
    assert not authors["train"] & (authors["test"] | authors["validation"])


def test_default_pairs_agree_with_the_truth_and_naive_ones_clearly_less(run: Run) -> None:
    agreement = run.figures["agreement"]
    assert agreement["shp"]["mean"] >= 0.80
    assert agreement["shp"]["low"] > agreement["naive"]["high"]


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("stage", ["dpo1", "dpo2"])
def test_dpo_prefers_the_better_reply_on_held_out_pairs(run: Run, model: str, stage: str) -> None:
    reward = run.figures["rewards"][model][stage]
    assert reward["n"] >= 100
    assert reward["accuracy"] > 0.70
    assert reward["low"] > 0.5


def test_drafts_get_better_from_sft_to_dpo2(run: Run) -> None:
    rise = run.figures["quality"]["gm"]["dpo2_minus_sft"]
    assert rise["mean"] > 0
    assert rise["low"] > 0


def test_drafts_are_readable_english(run: Run) -> None:
    drafts = pq.read_table(run.root / "evaluation" / "drafts.parquet").to_pylist()
    last = [row for row in drafts if row["model"] == "gm" and row["stage"] == "dpo2"]
    assert len({row["text"] for row in last}) >= 0.9 * len(last)
    ended = [row for row in last if row["finish_reason"] == "stop" and row["text"][-1] in ".?!"]
    assert len(ended) >= 0.8 * len(last)
    assert sum(repetition(tokens(row["text"])) < 0.2 for row in last) >= 0.9 * len(last)


def test_the_first_dpo_step_had_the_loss_of_an_unchanged_model(run: Run) -> None:
    for model in MODELS:
        for stage in ("dpo1", "dpo2"):
            curve = json.loads((run.root / "adapters" / model / stage / "curves.json").read_text())
            assert next(point["loss"] for point in curve if "loss" in point) == pytest.approx(0.693147, abs=1e-3)


def test_a_merged_model_loads_with_plain_transformers_and_answers(run: Run) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = str(run.root / "models" / "gm")
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModelForCausalLM.from_pretrained(folder)
    message = [{"role": "user", "content": "I feel alone at work."}]
    ids = tokenizer.apply_chat_template(message, return_tensors="pt", return_dict=True)["input_ids"]
    new = model.generate(ids, max_new_tokens=40, do_sample=False)[0, ids.shape[1] :]
    assert len(tokenizer.decode(new, skip_special_tokens=True).split()) >= 3


def test_the_report_says_that_nobody_rated_anything(run: Run) -> None:
    report = (run.root / "evaluation" / "report.html").read_text()
    assert "simulated" in report
    assert "no human rated" in report


def test_the_service_gave_a_draft_and_a_revision(run: Run) -> None:
    if not run.printed:
        pytest.skip("LLUMI_DEMO names a run that was made elsewhere")
    for title in ("GM's draft", "IM's revision of it", "report:"):
        assert title in run.printed


def test_a_second_run_keeps_every_output_without_starting_ray(run: Run) -> None:
    parts = [path for path in run.root.rglob(manifest.FILE) if path.parent != run.root]
    before = {path: path.read_bytes() for path in parts}
    output = yaml.safe_load((run.root / "settings.yaml").read_text())["output"]
    again = subprocess.run(
        [LLUMI, "run", "demo", "--set", f"output={output}"], capture_output=True, text=True, check=False
    )
    assert again.returncode == 0, again.stderr[-2000:]
    assert "kept" in again.stderr
    assert "made" not in again.stderr
    assert "Ray" not in again.stderr
    assert {path: path.read_bytes() for path in parts} == before
