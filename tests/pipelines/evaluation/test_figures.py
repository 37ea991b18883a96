"""The figures before they reach the report: rewards, agreement, flaws, and which rows are taken."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.corpus.schema import THREAD
from pipelines.evaluation import agreement, drafts, rewards, rows
from pipelines.evaluation.summary import curve, funnel, sentences, skipped
from pipelines.manifest import Input, read
from pipelines.pairs.schema import PAIR, SFT
from tests.pipelines.evaluation.world import POSTS, QUALITY, REPLIES, pair, revision, settings, thread


def logps(chosen: list[float], rejected: list[float]) -> pa.Table:
    """DPO1 finds replies this likely; SFT, and the base before it, -10 for everything."""
    flat = [-10.0] * len(chosen)
    columns = {f"{side}_{policy}": flat for side in ("chosen", "rejected") for policy in ("base", "sft")}
    return pa.table({"chosen_dpo1": chosen, "rejected_dpo1": rejected, **columns})


MANY = {"cut_off": 82, "repeated": 27}
THREE = logps([-8.0, -12.0, -9.0], [-10.0, -11.0, -9.0])


def test_a_reward_is_what_a_reply_gained_over_the_reference() -> None:
    assert rewards.reward_margins(THREE, "dpo1", "sft", 0.1).tolist() == pytest.approx([0.2, -0.1, 0.0])


def test_a_tie_is_not_right_and_length_stands_beside_the_stages(tmp_path: Path) -> None:
    pairs = pa.Table.from_pylist([pair(post, "gm") for post in POSTS[:3]], schema=PAIR)
    table = rewards.compare(settings(tmp_path), "gm", "votes", pairs, THREE, ["sft", "dpo1"])
    found = {(row.policy, row.reference): row for row in table}
    dpo1 = found["dpo1", "sft"]
    assert dpo1.accuracy.mean == pytest.approx(1 / 3)
    assert dpo1.margin is not None and dpo1.margin.mean == pytest.approx(0.1 / 3)
    assert dpo1.headline and found["sft", "base"].accuracy.mean == 0.0
    longer = len(REPLIES[0].split()) > len(REPLIES[2].split())
    assert found["length", None].accuracy.mean == float(longer)
    assert found["length", None].as_dict()["verdict"] == "baseline"


def test_pairs_that_cannot_be_scored_are_counted_by_reason() -> None:
    reasons = pa.table(
        {
            "model": ["gm"] * 3,
            "pairs": ["votes"] * 3,
            "chosen_reason": [None, "too_long", None],
            "rejected_reason": [None, None, "no_text"],
        }
    )
    expected = {"read": 3, "kept": 1, "dropped": {"too_long": 1, "no_text": 1}}
    assert rewards.conserved(reasons) == {"gm/votes": expected}


def early_bird() -> dict[str, Any]:
    """A thread whose first reply has most votes and is worst."""
    row = thread("t9")
    for comment in row["comments"]:
        if comment["comment_id"] == "t9c2":
            comment["score"] = 100
    return row


def test_the_naive_rule_is_caught_where_the_first_reply_collected_the_votes(tmp_path: Path) -> None:
    threads = pa.Table.from_pylist([early_bird()], schema=THREAD)
    truth = {f"t9c{i}": value for i, value in enumerate(QUALITY)}
    found = agreement.measure(settings(tmp_path), threads, None, truth, None)
    assert (found["shp"]["n"], found["shp"]["mean"]) == (1, 1.0)
    assert (found["naive"]["n"], found["naive"]["mean"]) == (3, pytest.approx(1 / 3))
    assert found["shp_minus_naive"]["mean"] == pytest.approx(2 / 3)
    assert found["shp"]["default"] and not found["naive"]["default"]
    assert "matched" not in found and {"shp_minus_askell", "shp_minus_margin"} <= set(found)


def test_pairs_of_replies_without_a_known_truth_are_left_out() -> None:
    assert agreement.judged([("p", "a", "b"), ("p", "a", "c")], {"a": 1.0, "b": 0.0}) == [("p", True)]


@pytest.mark.parametrize(
    ("text", "reason", "flaws"),
    [
        ("", "stop", ["empty"]),
        ("I hear you, and it", "length", ["cut_off"]),
        ("I am here for you. " * 3, "stop", ["repeated"]),
        ("I am here for you. You can write any time.", "stop", []),
    ],
)
def test_texts_that_went_wrong_are_named(text: str, reason: str, flaws: list[str]) -> None:
    assert drafts.flaws(text, reason) == flaws


def test_prompts_too_long_for_the_model_leave_no_text() -> None:
    tasks = pa.Table.from_pylist([{"post_id": name, "post": name, "prompt": []} for name in "ab"], schema=drafts.TASK)
    answers = pa.table(
        {"request_id": ["b", "a"], "text": ["", " fine "], "finish_reason": ["too_long", "stop"], "new_tokens": [0, 2]}
    )
    written = drafts.texts("gm", "sft", tasks, answers, judged=False).to_pylist()
    assert [(row["post_id"], row["text"]) for row in written] == [("a", "fine")]


def test_only_test_rows_are_read_whatever_the_files(tmp_path: Path) -> None:
    threads = [thread("b"), thread("x", "train"), thread("a")]
    for i, row in enumerate(threads):
        pq.write_table(pa.Table.from_pylist([row], schema=THREAD), tmp_path / f"{i}.parquet")
    assert rows.test_threads(tmp_path)["post_id"].to_pylist() == ["a", "b"]


def test_one_revision_a_post_is_taken(tmp_path: Path) -> None:
    folder = tmp_path / "im" / "test"
    folder.mkdir(parents=True)
    made = [revision(post) for post in ("t1", "t0", "t1", "t2")]
    pq.write_table(pa.Table.from_pylist(made, schema=SFT), folder / "a.parquet")
    assert rows.test_revisions(tmp_path, 10, seed=0)["post_id"].to_pylist() == ["t0", "t1", "t2"]
    assert rows.test_revisions(tmp_path, 2, seed=0).num_rows == 2


def test_a_choice_depends_on_the_seed_only() -> None:
    table = pa.table({"post_id": [f"p{i}" for i in range(50)]})
    first = rows.choose(table, 10, seed=3)["post_id"].to_pylist()
    assert first == rows.choose(table, 10, seed=3)["post_id"].to_pylist()
    assert first != rows.choose(table, 10, seed=4)["post_id"].to_pylist()


def test_a_stage_without_ratings_is_skipped_for_that_reason() -> None:
    reasons = skipped({"adapters/gm/sft": "x", "pairs": "y"})
    assert "ratings" in reasons["gm/dpo2"] and reasons["gm/dpo1"] == "it has not been trained"
    assert "gm/sft" not in reasons
    assert "left no pairs" in skipped({"rated_pairs": "z"})["gm/dpo2"]


def test_the_funnel_follows_the_way_of_the_data(evaluated_run: dict[str, Input]) -> None:
    sources = {
        name: source for name in ("rated_pairs", "threads", "pairs") if (source := read(Path(str(evaluated_run[name]))))
    }
    assert [row["stage"] for row in funnel(sources)] == ["threads", "pairs", "rated_pairs"]


def test_the_summary_says_learned_only_where_it_was() -> None:
    row = {"n": 90, "pairs": "votes", "accuracy": 0.8, "low": 0.7, "high": 0.9, "verdict": "learned"}
    lines = sentences({"rewards": {"gm": {"dpo1": row}}, "texts": {}})
    assert lines == ["GM DPO1: ranks 90 held-out pairs from votes right in 80.0 % [70.0, 90.0] (learned)."]


def test_the_summary_warns_of_stages_whose_texts_go_wrong() -> None:
    texts = {"sft": {"n": 100, "empty": 0, "cut_off": 5, "repeated": 1}, "dpo2": {"n": 100, "empty": 0} | MANY}
    assert sentences({"rewards": {}, "texts": {"gm": texts}}) == [
        "Warning: of 100 texts by GM DPO2, 82 were cut off by the token limit, 27 repeat themselves."
    ]


def test_curves_lose_what_is_no_number_and_may_be_absent(tmp_path: Path) -> None:
    assert curve(tmp_path) == []
    (tmp_path / "curves.json").write_text('[{"step": 1, "loss": NaN}, {"step": 2, "loss": 0.5}]')
    assert curve(tmp_path) == [{"step": 1}, {"step": 2, "loss": 0.5}]
