"""Rows of GM out of tables of threads: what they say, and how each reply and thread is accounted for."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from configs import Settings
from configs.pairs import PairSettings, SftRowSettings
from configs.prompts import messages, whole_post
from pipelines.corpus.notes import Notes
from pipelines.pairs import build as pairs
from pipelines.pairs import gm, rows
from pipelines.pairs.rules import rules
from pipelines.pairs.schema import MESSAGES, PAIR, SFT
from pipelines.pairs.select import select
from pipelines.retrieval.examples import Retrieved
from tests.pipelines.pairs.making import exposure, of, row, table


def told(post: str, *votes: tuple[int, int], split: str = "test") -> dict[str, Any]:
    """A thread whose reply i says ``reply i to <post>``."""
    made = row(post, votes, split=split)
    for i, comment in enumerate(made["comments"]):
        comment["text"] = f"reply {i} to {post}"
    return made


def naive(threads: pa.Table, **changes: Any) -> Any:
    """The pairs of the rule naive."""
    settings = PairSettings(rule="naive", **changes)
    return select(of(threads), rules(settings, None)["naive"], settings).pairs


def test_a_pair_carries_both_replies_and_their_votes() -> None:
    threads = table(told("p", (2, 1)), told("q", (2, 1), (8, 2)), told("r", (9, 5), (1, 6), split="train"))
    found = gm.pair_table(threads, naive(threads), "gm", "naive")
    assert found.schema.equals(PAIR)
    first, second = found.to_pylist()
    assert first == {
        "prompt": messages("gm", whole_post("Title of q", "What worries me.")),
        "chosen": [{"role": "assistant", "content": "reply 1 to q"}],
        "rejected": [{"role": "assistant", "content": "reply 0 to q"}],
        "post_id": "q", "chosen_id": "qc1", "rejected_id": "qc0", "chosen_score": 8, "rejected_score": 2,
        "chosen_created_utc": 2, "rejected_created_utc": 1, "rule": "naive", "split": "test",
        "original_id": None, "example_ids": None,
    }  # fmt: skip
    assert (second["chosen_id"], second["split"]) == ("rc0", "train")


def test_retrieved_examples_stand_in_the_prompts_of_their_own_posts() -> None:
    threads = table(told("p", (2, 1), (8, 2)), told("q", (2, 1), (8, 2)))
    shown = [Retrieved([], []), Retrieved([{"post": "Alike.", "reply": "It passed."}], ["zc1"])]
    plain, helped = gm.pair_table(threads, naive(threads), "gm", "naive", shown).to_pylist()
    assert "It passed." not in plain["prompt"][0]["content"] and plain["example_ids"] == []
    assert "It passed." in helped["prompt"][0]["content"] and helped["example_ids"] == ["zc1"]


def test_gm_learns_from_the_best_replies_that_have_votes_enough() -> None:
    threads = table(told("p", (1, 1), (5, 2), (9, 3), (3, 4)), told("q", (4, 1)), told("r"))
    replies = of(threads)
    learned, over, below = gm.well_received(replies, SftRowSettings(max_per_post=2))
    found = gm.sft_table(threads, replies, learned, "gm")
    assert found.schema.equals(SFT)
    assert found["comment_id"].to_pylist() == ["pc2", "pc1", "qc0"]
    assert (over, below) == (1, 1)
    assert found["completion"][0].as_py() == [{"role": "assistant", "content": "reply 2 to p"}]
    assert found["original_id"].null_count == 3


def test_no_pair_and_no_reply_make_empty_tables_of_the_same_columns() -> None:
    threads = table(told("p", (2, 1)))
    assert gm.pair_table(threads, naive(threads), "gm", "naive").schema.equals(PAIR)
    assert gm.sft_table(threads, of(threads), np.zeros(0, np.int64), "gm").schema.equals(SFT)
    assert rows.turns(pa.array([], pa.string())).type == MESSAGES


@pytest.mark.parametrize(
    ("votes", "score", "end"),
    [
        (((2, 1), (8, 2)), 20, None),
        (((2, 1), (8, 2)), 3, "post_score_too_low"),
        (((2, 1), (8, 2)), None, "post_score_too_low"),
        (((2, 1),), 20, "too_few_replies"),
        ((), 20, "too_few_replies"),
        (((8, 1), (2, 2)), 20, "no_pair"),
    ],
)
def test_each_thread_is_counted_once(votes: Any, score: int | None, end: str | None) -> None:
    settings, notes = PairSettings(rule="shp", min_post_score=10), Notes()
    threads = table(row("p", votes, score=score))
    replies = of(threads)
    found = select(replies, rules(settings, exposure())["shp"], settings)
    pairs.note_threads(threads, replies, found, settings.min_post_score, notes)
    assert {name: n for (kind, name), n in notes.entries.items() if kind == "threads"} == {end: 1}


def test_a_prompt_of_other_words_is_another_output(tmp_path: Path) -> None:
    template = tmp_path / "gm.md"
    template.write_text("Answer: {{ post }}")
    plain, other = Settings(output="x"), Settings(output="x", prompts={"gm": str(template)})
    assert pairs.depends(plain) != pairs.depends(other) == pairs.depends(other)


def test_rows_of_a_file_are_written_under_its_name_by_split(tmp_path: Path) -> None:
    threads = table(*(told(f"p{i}", (2, 1), (8, 2), split="train" if i % 3 else "test") for i in range(9)))
    pq.write_table(threads, tmp_path / "part-7.parquet")

    def make(slice_: pa.Table, file: Path, notes: Notes) -> Any:
        notes.add("seen", file.name, slice_.num_rows)
        yield "gm", gm.pair_table(slice_, naive(slice_), "gm", "naive")

    for split in ("train", "test", "validation"):
        (tmp_path / "out" / "gm" / split).mkdir(parents=True)
    noted = rows.write_file(tmp_path / "part-7.parquet", make, PAIR, tmp_path / "out")
    assert noted.to_pylist() == [{"kind": "seen", "name": "part-7.parquet", "count": 9}]
    sizes = {
        path.parent.name: pq.read_table(path, schema=PAIR).num_rows for path in tmp_path.glob("out/gm/*/*.parquet")
    }
    assert sizes == {"train": 6, "test": 3}
