"""SFT rows of some threads: what is learned from, for both models, and how everything is counted."""

from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import settings as limits
from hypothesis import strategies as st

from configs import Settings
from pipelines.corpus.notes import Notes
from pipelines.pairs import sft
from pipelines.pairs.im.schema import REVISION
from pipelines.pairs.schema import SFT
from tests.pipelines.pairs.im.making import table, thread

FILE = Path("part-0.parquet")


def made(
    threads: list[dict[str, Any]], folder: Path, **changes: Any
) -> tuple[dict[str, list[dict[str, Any]]], dict[str, Counter[Any]]]:
    """The rows by model, and the notes by kind."""
    notes, kinds = Notes(), defaultdict(Counter)
    found = sft.rows_of(table(*threads), FILE, notes, Settings(output="x", sft=changes), folder, None)
    rows = {model: rows.cast(SFT).to_pylist() for model, rows in found}
    for (kind, name), count in notes.entries.items():
        kinds[kind][name] += count
    return rows, kinds


def revisions(folder: Path, *steps: tuple[str, str, str]) -> Path:
    """The output of the stage ``revisions``: (post, original, revision) of the community."""
    rows = [
        {"post_id": post, "split": "train", "source": "community", "original_id": old, "revision_id": new}
        for post, old, new in steps
    ]
    (folder / "community").mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist(rows, schema=REVISION), folder / "community" / FILE.name)
    return folder


def test_gm_learns_from_the_best_replies_and_im_from_the_revisions(tmp_path):
    threads = [thread("p", [(1, 1, "a"), (5, 2, "b"), (9, 3, "c"), (3, 4, "d")]), thread("q", [(1, 1, "z")])]
    rows, notes = made(threads, revisions(tmp_path, ("p", "pc0", "pc2")), max_per_post=2)
    assert [row["comment_id"] for row in rows["gm"]] == ["pc2", "pc1"]
    assert [row["original_id"] for row in rows["gm"]] == [None, None]
    (step,) = rows["im"]
    assert (step["original_id"], step["comment_id"], step["completion"][0]["content"]) == ("pc0", "pc2", "c")
    assert notes["gm"] == {None: 2, "over_post_cap": 1, "score_too_low": 2}
    assert notes["im"] == {None: 1}
    assert notes["threads"] == {None: 1, "no_reply_to_learn_from": 1}


def test_a_thread_of_which_only_a_draft_is_improved_gives_rows_too(tmp_path):
    rows, notes = made([thread("p", [(0, 1, "a"), (1, 2, "b")])], revisions(tmp_path, ("p", "pc0", "pc1")))
    assert (len(rows["gm"]), len(rows["im"])) == (0, 1)
    assert notes["threads"] == {None: 1}


def test_revisions_of_other_threads_are_left_to_their_own_task(tmp_path):
    folder = revisions(tmp_path, ("p", "pc0", "pc1"), ("q", "qc0", "qc1"))
    rows, notes = made([thread("q", [(0, 1, "a"), (1, 2, "b")])], folder)
    assert [row["post_id"] for row in rows["im"]] == ["q"]
    assert notes["im"] == {None: 1}


SCORES = st.lists(st.integers(-3, 9), max_size=6)


@limits(deadline=None)
@given(st.lists(SCORES, min_size=1, max_size=5), st.integers(1, 4), st.integers(0, 5))
def test_every_reply_and_every_thread_is_counted_once(tmp_path_factory, scores, most, least):
    folder = revisions(tmp_path_factory.mktemp("none"))
    threads = [thread(f"p{i}", [(s, k, f"t{k}") for k, s in enumerate(own)]) for i, own in enumerate(scores)]
    rows, notes = made(threads, folder, max_per_post=most, min_score=least)
    assert notes["gm"].total() == sum(map(len, scores))
    assert notes["threads"].total() == len(scores)
    assert notes["rows:gm"].total() == len(rows["gm"]) == notes["gm"][None]
    assert max(Counter(row["post_id"] for row in rows["gm"]).values(), default=0) <= most
    assert all(row["score"] >= least for row in rows["gm"])


@pytest.mark.parametrize(("change", "same"), [({"sft": {"min_score": 9}}, False), ({"pairs": {"min_gap": 3}}, True)])
def test_rows_depend_on_their_own_settings_and_not_on_the_rule(change, same):
    # what the pair rule changes reaches the rows through the revisions, which are an input
    assert (sft.depends(Settings(output="x", **change)) == sft.depends(Settings(output="x"))) is same
