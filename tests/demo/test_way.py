"""The whole way on the built-in sample, as a user runs it: what lies where, and that it is kept.

Its rows are few, so that every change can afford it; what the demo claims is in ``test_claims``.
"""

import json
import subprocess

import pyarrow.parquet as pq
import pytest

from pipelines import manifest
from pipelines.pairs.schema import PAIR, SFT, SPLITS
from tests.demo.conftest import LLUMI, Run

MODELS = ("gm", "im")
STAGES = ("sft", "dpo1", "dpo2")

pytestmark = pytest.mark.timeout(900)


def test_the_outputs_lie_where_users_expect_them(small: Run) -> None:
    for model in MODELS:
        for split in SPLITS:
            assert pq.read_schema(next((small.root / "sft" / model / split).glob("*.parquet"))).equals(SFT)
            assert pq.read_schema(next((small.root / "pairs" / model / split).glob("*.parquet"))).equals(PAIR)
        for stage in STAGES:
            assert (small.root / "adapters" / model / stage / "adapter_model.safetensors").stat().st_size > 10_000
        assert (small.root / "models" / model / "model.safetensors").is_file()
    assert "<html" in (small.root / "evaluation" / "report.html").read_text()[:300].lower()
    assert json.loads((small.root / "manifest.json").read_text())["settings"]["sample"]["threads"] > 0


def test_every_stage_conserves_its_rows_and_names_what_it_dropped(small: Run) -> None:
    folders = [path.parent for path in small.root.rglob(manifest.FILE)]
    assert len(folders) > 15
    for folder in folders:
        made = manifest.read(folder)  # a manifest whose rows do not add up is refused
        assert made is not None
        assert made.code and made.key, folder
        assert (folder / "settings.yaml").is_file(), folder
    corpus = manifest.read(small.root / "threads")
    sample = manifest.read(small.root / "sample")
    assert corpus and sample
    lines = sum(corpus.rows[kind].read for kind in ("posts", "comments"))
    assert lines == sum(count.read for count in sample.rows.values())
    assert {"bot", "deleted", "duplicate", "moderator", "not_english", "own_reply", "post_missing"} <= set(
        corpus.rows["comments"].dropped
    )


def test_the_splits_share_no_post_author(small: Run) -> None:
    threads = pq.read_table(next((small.root / "threads").glob("*.parquet")))
    authors: dict[str, set[str]] = {split: set() for split in SPLITS}
    for author, split in zip(threads["author_hash"].to_pylist(), threads["split"].to_pylist(), strict=True):
        authors[split].add(author)
    assert all(authors.values())
    assert not authors["train"] & (authors["test"] | authors["validation"])


def test_the_first_dpo_step_had_the_loss_of_an_unchanged_model(small: Run) -> None:
    for model in MODELS:
        for stage in ("dpo1", "dpo2"):
            curve = json.loads((small.root / "adapters" / model / stage / "curves.json").read_text())
            assert next(point["loss"] for point in curve if "loss" in point) == pytest.approx(0.693147, abs=1e-3)


def test_a_merged_model_loads_with_plain_transformers_and_answers(small: Run) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = str(small.root / "models" / "gm")
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModelForCausalLM.from_pretrained(folder)
    message = [{"role": "user", "content": "I feel alone at work."}]
    ids = tokenizer.apply_chat_template(message, return_tensors="pt", return_dict=True)["input_ids"]
    new = model.generate(ids, max_new_tokens=40, do_sample=False)[0, ids.shape[1] :]
    assert len(tokenizer.decode(new, skip_special_tokens=True).split()) >= 3


def test_the_report_says_that_nobody_rated_anything(small: Run) -> None:
    report = (small.root / "evaluation" / "report.html").read_text()
    assert "simulated" in report
    assert "no human rated" in report


def test_the_service_gave_a_draft_and_a_revision(small: Run) -> None:
    for title in ("GM's draft", "IM's revision of it", "report:"):
        assert title in small.printed


def test_a_second_run_keeps_every_output_without_starting_ray(small: Run) -> None:
    parts = [path for path in small.root.rglob(manifest.FILE) if path.parent != small.root]
    before = {path: path.read_bytes() for path in parts}
    command = [LLUMI, "run", "demo", "--set", f"output={small.root}", *small.overrides]
    again = subprocess.run(command, capture_output=True, text=True, check=False)
    assert again.returncode == 0, again.stderr[-2000:]
    assert "kept" in again.stderr
    assert "made" not in again.stderr
    assert "Ray" not in again.stderr
    assert {path: path.read_bytes() for path in parts} == before
