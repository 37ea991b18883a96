"""Which reply a draft should become: promises of the join, on any threads, and the floor."""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import settings as limits
from hypothesis import strategies as st

from configs import Settings
from configs.errors import DataError
from configs.improvement import ImprovementSettings, TeacherSettings
from configs.retrieval import EmbedderSettings
from pipelines.corpus.notes import Notes
from pipelines.pairs.im.floor import floor_of
from pipelines.pairs.im.planning import Planner, binned_quantiles
from pipelines.pairs.im.store import key_of
from pipelines.pairs.rules import rule_of
from pipelines.retrieval.embed import load
from pipelines.retrieval.examples import Retrieved
from tests.pipelines.pairs.im.making import about, plain_exposure, table, thread

ENCODE = load(EmbedderSettings(dimensions=256)).encode
REPLY = st.tuples(st.integers(-3, 60), st.integers(0, 50), st.integers(0, 2), st.integers(0, 4))


@st.composite
def threads(draw: st.DrawFn) -> list[dict[str, Any]]:
    """Some threads whose replies are about few things, with many ties."""
    found = []
    for name in range(draw(st.integers(1, 4))):
        replies = draw(st.lists(REPLY, max_size=12))
        rows = [(votes, time, about(topic, f"word{more}")) for votes, time, topic, more in replies]
        found.append(thread(f"p{name}", rows, draw(st.sampled_from(["train", "test"]))))
    return found


def settings_of(**changes: Any) -> Settings:
    ours = {"rule": "shp", **{k: v for k, v in changes.items() if k in {"rule", "max_per_post", "max_per_reply"}}}
    theirs = {k: v for k, v in changes.items() if k not in ours}
    return Settings(output="x", pairs=ours, improvement=theirs)


def nothing(rows: pa.Table, file: Path) -> list[Retrieved]:
    return [Retrieved([], None)] * rows.num_rows


def planned(
    rows: list[dict[str, Any]], settings: Settings, floor: float = 0.3, retrieve: Any = nothing
) -> tuple[list[dict[str, Any]], list[dict[str, Any]], Counter[str | None]]:
    """Revisions, requests, and how the candidates or drafts ended."""
    notes, model = Notes(), plain_exposure()
    planner = Planner(settings, rule_of(settings.pairs, model), model, floor, ENCODE, retrieve)
    plan = planner.plan(table(*rows), Path("part-0.parquet"), notes)
    ends = Counter({name: n for (kind, name), n in notes.entries.items() if kind in {"candidates", "drafts"}})
    return plan.revisions.to_pylist(), plan.requests.to_pylist(), ends


def replies_of(rows: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {reply["comment_id"]: reply | {"post_id": row["post_id"]} for row in rows for reply in row["comments"]}


def similarity(first: str, second: str) -> float:
    vectors = ENCODE([first, second])
    return float(vectors[0] @ vectors[1])


@limits(deadline=None)
@given(threads(), st.sampled_from([0.0, 0.3, 0.7]), st.integers(1, 4), st.integers(1, 3), st.floats(0, 1))
def test_a_revision_is_better_by_the_rule_alike_and_within_the_caps(rows, floor, per_post, per_reply, share):
    settings = settings_of(max_per_post=per_post, max_per_reply=per_reply, worse_share=share)
    found, _, ends = planned(rows, settings, floor)
    replies = replies_of(rows)
    rule = settings.pairs
    for row in found:
        original, better = replies[row["original_id"]], replies[row["revision_id"]]
        assert original["post_id"] == better["post_id"] == row["post_id"]
        assert better["score"] >= rule.min_ratio * original["score"] and original["score"] >= rule.min_score
        assert better["created_utc"] >= original["created_utc"]
        assert similarity(original["text"], better["text"]) >= floor - 1e-4
        assert row["similarity"] == pytest.approx(similarity(original["text"], better["text"]), abs=1e-4)
        if row["worse_id"] is not None:
            worse = replies[row["worse_id"]]
            assert row["worse_id"] not in {row["original_id"], row["revision_id"]}
            assert worse["post_id"] == row["post_id"]
            assert better["score"] >= rule.min_ratio * worse["score"]
            assert similarity(original["text"], worse["text"]) >= floor - 1e-4
    posts = Counter(row["post_id"] for row in found)
    uses = Counter(row[name] for row in found for name in ("original_id", "revision_id"))
    assert max(posts.values(), default=0) <= per_post
    assert max(uses.values(), default=0) <= per_reply
    assert ends[None] == len(found)


@limits(deadline=None)
@given(threads(), st.sampled_from([0.0, 0.3]), st.integers(1, 3))
def test_every_candidate_is_kept_or_counted_under_a_reason(rows, floor, per_post):
    _, _, ends = planned(rows, settings_of(max_per_post=per_post), floor)
    settings = settings_of().pairs
    every = sum(
        better["score"] > worse["score"] >= settings.min_score
        and better["score"] >= settings.min_ratio * worse["score"]
        and better["created_utc"] >= worse["created_utc"]
        for row in rows
        for better in row["comments"]
        for worse in row["comments"]
    )
    assert set(ends) <= {None, "content_lost", "over_cap"}
    assert ends.total() == every


@limits(deadline=None)
@given(threads(), st.integers(1, 3))
def test_every_draft_is_asked_for_or_over_the_cap(rows, most):
    teacher = TeacherSettings(base_url="http://127.0.0.1/v1", model="m", max_per_post=most)
    _, asked, ends = planned(rows, settings_of(sources=["teacher"], teacher=teacher))
    replies, settings = replies_of(rows), settings_of().pairs
    drafts = {
        worse["comment_id"]
        for row in rows
        for better in row["comments"]
        for worse in row["comments"]
        if better["score"] > worse["score"] >= settings.min_score
        and better["score"] >= settings.min_ratio * worse["score"]
        and better["created_utc"] >= worse["created_utc"]
    }
    assert len(asked) + ends["over_post_cap"] == len(drafts)
    assert {row["original_id"] for row in asked} <= drafts
    assert max(Counter(row["post_id"] for row in asked).values(), default=0) <= most
    for row in asked:
        assert row["original"] == replies[row["original_id"]]["text"]
        assert f"<draft>\n{row['original']}\n</draft>" in row["prompt"]
        assert row["key"] == key_of(row["prompt"], teacher)


@limits(deadline=None)
@given(threads(), st.randoms())
def test_the_join_does_not_depend_on_the_order_of_threads_and_replies(rows, rng):
    once, _, _ = planned(rows, settings_of(max_per_post=2))
    shuffled = [row | {"comments": rng.sample(row["comments"], len(row["comments"]))} for row in rows]
    rng.shuffle(shuffled)
    again, _, _ = planned(shuffled, settings_of(max_per_post=2))
    assert sorted(map(str, once)) == sorted(map(str, again))


def test_the_likest_of_the_better_replies_is_taken_first():
    replies = [(2, 1, about(0, "one")), (50, 2, about(1, "two")), (9, 3, about(0, "three"))]
    (found,), _, ends = planned([thread("p", replies)], settings_of(max_per_post=1), floor=-1.0)
    assert (found["original_id"], found["revision_id"]) == ("pc0", "pc2")
    assert ends["over_cap"] == 1


def test_a_better_reply_about_something_else_is_no_revision():
    replies = [(2, 1, about(0)), (50, 2, about(1))]
    found, _, ends = planned([thread("p", replies)], settings_of())
    assert (found, dict(ends)) == ([], {"content_lost": 1})


def test_the_worse_revision_is_the_least_liked_of_those_that_keep_the_content():
    low = [(7, 1, about(0, "draft")), (6, 2, about(0, "bad")), (5, 3, about(0, "worst")), (2, 4, about(1))]
    rows = [thread("p", [*low, (50, 9, about(0, "best"))])]
    found, _, _ = planned(rows, settings_of(worse_share=1.0, max_per_reply=9))
    worst_of_all = {row["original_id"]: row["worse_id"] for row in found if row["revision_id"] == "pc4"}
    assert worst_of_all == {"pc0": "pc2", "pc1": "pc2", "pc2": "pc1"}
    found, _, _ = planned(rows, settings_of(worse_share=0.0, max_per_reply=9))
    assert {row["worse_id"] for row in found} == {None}


def test_the_mix_of_worse_revisions_and_originals_is_the_share_asked_for():
    low = [(2, 1 + i, about(0, f"low{i}")) for i in range(3)]
    rows = [thread(f"p{i}", [*low, (50, 9, about(0, "best"))]) for i in range(200)]
    found, _, _ = planned(rows, settings_of(worse_share=0.3, max_per_reply=9))
    share = np.mean([row["worse_id"] is not None for row in found])
    assert len(found) == 600
    assert share == pytest.approx(0.3, abs=0.06)


def test_retrieved_examples_stand_in_the_teachers_prompt_and_are_named():
    teacher = TeacherSettings(base_url="http://127.0.0.1/v1", model="m")

    def retrieve(rows: pa.Table, file: Path) -> list[Retrieved]:
        assert file == Path("part-0.parquet")
        return [Retrieved([{"post": f"like {p}", "reply": "kind"}], ["e1"]) for p in rows["post_id"].to_pylist()]

    rows = [thread(f"p{i}", [(2, 1, about(i, "low")), (9, 2, about(i, "high"))]) for i in range(3)]
    _, asked, _ = planned(rows, settings_of(sources=["teacher"], teacher=teacher), retrieve=retrieve)
    for row in asked:
        assert f"<post>like {row['post_id']}</post>" in row["prompt"]
        assert row["example_ids"] == ["e1"]


def written(folder: Path, rows: list[dict[str, Any]]) -> list[Path]:
    pq.write_table(table(*rows), folder / "part-0.parquet")
    return [folder / "part-0.parquet"]


def test_the_floor_lies_above_replies_to_different_posts_and_below_replies_about_the_same(tmp_path):
    names = [f"only{i} never{i} elsewhere{i}" for i in range(40)]
    rows = [thread(f"p{i}", [(2, 1, name), (9, 2, f"{name} more")]) for i, name in enumerate(names)]
    floor = floor_of(written(tmp_path, rows), ImprovementSettings(), ENCODE)
    assert floor.replies == 40
    assert floor.unrelated["0.95"] == floor.value < 0.3
    found, _, ends = planned(rows, settings_of(), floor.value)
    assert (len(found), ends["content_lost"]) == (40, 0)


def test_the_floor_is_measured_on_the_training_split_only(tmp_path):
    rows = [thread(f"p{i}", [(2, 1, about(0))], split="test") for i in range(30)]
    rows += [thread(f"q{i}", [(2, 1, f"only{i} never{i} elsewhere{i}")]) for i in range(30)]
    floor = floor_of(written(tmp_path, rows), ImprovementSettings(), ENCODE)
    assert (floor.replies, floor.value < 0.5) == (30, True)


def test_a_floor_of_the_settings_is_taken_as_it_is(tmp_path):
    rows = [thread(f"p{i}", [(2, 1, about(i))]) for i in range(5)]
    floor = floor_of(written(tmp_path, rows), ImprovementSettings(floor=0.42), ENCODE)
    assert (floor.value, floor.quantile) == (0.42, None)


def test_a_corpus_that_gives_no_floor_is_refused_with_the_setting(tmp_path):
    with pytest.raises(DataError, match=r"set improvement\.floor"):
        floor_of(written(tmp_path, [thread("p", [(2, 1, "x")])]), ImprovementSettings(), ENCODE)


def test_quantiles_come_back_from_bins():
    values = np.random.default_rng(0).uniform(-0.2, 0.9, 5000)
    counts = Counter(str(int(at)) for at in np.floor(values / 0.01))
    found = binned_quantiles(counts, (0.05, 0.5, 0.95))
    for q, value in found.items():
        assert value == pytest.approx(np.quantile(values, float(q)), abs=0.011)
    assert binned_quantiles({}, (0.5,)) == {}
