"""Repeated texts: what is found, that nothing else is, and that partitioning and order do not matter."""

import random
from itertools import pairwise
from pathlib import Path
from typing import Any

import hypothesis
import hypothesis.strategies as st
import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from benchmarks.minhash import alike
from benchmarks.texts import texts_of
from configs.corpus import CleaningSettings
from pipelines.corpus import duplicates
from pipelines.corpus.duplicates import carry_out, keys, normalised, verdicts
from pipelines.corpus.minhash import band_keys, compact, sign, similarity
from pipelines.corpus.schema import KEY, ROW

SETTINGS = CleaningSettings()
LONG = (
    "when I could not sleep at all I used to get up and write down three things that had gone well on that day and"
    " after some weeks it became easier to lie down and to wait for the morning without fear"
)
SIMILAR = LONG.replace("three things", "four things")
OTHER = LONG.replace("I", "she").replace("write", "sing").replace("weeks", "days").replace("lie", "sit").replace(
    "three things that had gone well", "old songs with my brother"
)  # fmt: skip


def row(name: str, text: str, time: int = 0, kind: str = "comment", **columns: Any) -> dict[str, Any]:
    """A living row of ROW."""
    title = {"title": text, "text": ""} if kind == "post" else {"text": text}
    post = name if kind == "post" else "p"
    return {"kind": kind, "id": name, "post_id": post, "created_utc": time, "count": 1} | title | columns


def table(*rows: dict[str, Any]) -> pa.Table:
    """A table of ROW."""
    return pa.Table.from_pylist(list(rows), schema=ROW)


def judged(rows: pa.Table, settings: CleaningSettings = SETTINGS, partitions: int = 1) -> set[tuple[str, str, str]]:
    """Kind, id and reason of each verdict, with the keys in so many partitions."""
    found = keys(rows, settings)
    assert found.schema == KEY
    place = found["key"].to_numpy() % np.uint64(partitions)
    parts = [verdicts(found.filter(pa.array(place == i)), settings) for i in range(partitions)]
    assert all(part.schema == ROW and not any(part["count"].to_pylist()) for part in parts)
    columns = ("kind", "id", "dropped")
    return {values for part in parts for values in zip(*(part[c].to_pylist() for c in columns), strict=True)}


def test_the_earliest_of_equal_texts_stays_whatever_case_spacing_and_punctuation() -> None:
    rows = table(row("z", "You are NOT alone!!", 1), row("a", "you  are not alone.", 2), row("b", "not alone", 3))
    assert judged(rows) == {("comment", "a", "duplicate")}


def test_of_equal_texts_of_one_second_the_smaller_id_stays() -> None:
    assert judged(table(row("b", "you are not alone"), row("a", "you are not alone"))) == {
        ("comment", "b", "duplicate")
    }


def test_a_long_text_that_shares_most_of_its_wording_is_a_near_duplicate() -> None:
    rows = table(row("a", LONG, 1), row("b", SIMILAR, 2), row("c", OTHER, 3))
    assert judged(rows) == {("comment", "b", "near_duplicate")}


def test_short_texts_are_only_compared_exactly() -> None:
    short, nearly = "you are not alone in this at all my friend", "you are not alone in this at all my dear"
    assert judged(table(row("a", short), row("b", nearly, 1))) == set()
    low = CleaningSettings(near_duplicate_min_words=5)
    assert judged(table(row("a", short), row("b", nearly, 1)), low) == {("comment", "b", "near_duplicate")}


def test_texts_without_a_word_are_told_apart() -> None:
    rows = table(row("a", "!!!", 1), row("b", "???", 2), row("c", "!!!", 3), row("d", "", 4), row("e", "", 5))
    assert judged(rows) == {("comment", "c", "duplicate"), ("comment", "e", "duplicate")}


def test_posts_repeat_posts_and_comments_comments() -> None:
    rows = table(row("a", LONG, 1, "post"), row("b", LONG, 2), row("c", LONG, 3, "post"))
    assert judged(rows) == {("post", "c", "duplicate"), ("post", "c", "near_duplicate")}


def test_a_row_read_twice_does_not_repeat_itself() -> None:
    rows = table(row("a", LONG, 1), row("a", LONG, 1), row("b", LONG, 2))
    assert judged(rows) == {("comment", "b", "duplicate"), ("comment", "b", "near_duplicate")}


def test_dropped_rows_and_tallies_have_no_keys() -> None:
    gone = row("a", LONG, 1) | {"dropped": "bot"}
    tally = {"kind": "comment", "dropped": "deleted", "count": 9}
    seen = {"kind": "seen", "id": "post", "subreddit": "Quiet", "count": 9}
    assert keys(table(gone, tally, seen), SETTINGS).num_rows == 0
    assert judged(table(gone, row("b", LONG, 2))) == set()


@pytest.mark.parametrize(
    ("settings", "reasons"),
    [
        ({}, {"duplicate", "near_duplicate"}),
        ({"drop_near_duplicate": False}, {"duplicate"}),
        ({"drop_duplicate": False}, {"near_duplicate"}),
        ({"drop_duplicate": False, "drop_near_duplicate": False}, set()),
        ({"near_duplicate_similarity": 1.0, "drop_duplicate": False}, {"near_duplicate"}),
        ({"near_duplicate_min_words": 100}, {"duplicate"}),
    ],
)
def test_the_rules_follow_their_switches(settings: dict[str, Any], reasons: set[str]) -> None:
    rows = table(row("a", LONG, 1), row("b", LONG, 2), row("c", SIMILAR, 3))
    assert {reason for _, _, reason in judged(rows, CleaningSettings(**settings))} == reasons


def test_a_higher_threshold_keeps_what_is_only_similar() -> None:
    rows = table(row("a", LONG, 1), row("b", SIMILAR, 2))
    assert judged(rows, CleaningSettings(near_duplicate_similarity=0.99)) == set()


def test_verdicts_move_the_rows_they_name_and_no_others_from_kept_to_dropped() -> None:
    rows = table(
        row("p", LONG, 0, "post"), row("a", LONG, 1), row("b", SIMILAR, 2), row("c", LONG, 3), row("d", "else", 4),
        {"kind": "comment", "dropped": "bot", "count": 5},
    )  # fmt: skip
    told = verdicts(keys(rows, SETTINGS), SETTINGS)
    after = carry_out(pa.concat_tables([told, rows, told]))
    assert pc.sum(after["count"]).as_py() == pc.sum(rows["count"]).as_py()
    counts = {r["dropped"]: r["count_sum"] for r in after.group_by("dropped").aggregate([("count", "sum")]).to_pylist()}
    assert counts == {None: 3, "bot": 5, "duplicate": 1, "near_duplicate": 1}
    assert set(after.filter(pc.is_null(after["dropped"]))["id"].to_pylist()) == {"p", "a", "d"}


def test_a_dropped_post_stays_known_by_its_id() -> None:
    rows = table(row("p", LONG, 0, "post"), row("q", LONG, 1, "post"))
    after = carry_out(pa.concat_tables([rows, verdicts(keys(rows, SETTINGS), SETTINGS)]))
    (gone,) = after.filter(pc.is_valid(after["dropped"])).to_pylist()
    assert (gone["id"], gone["dropped"], gone["title"]) == ("q", "duplicate", None)


def test_no_rows_give_no_keys_and_no_verdicts() -> None:
    assert judged(ROW.empty_table()) == set()
    assert carry_out(ROW.empty_table()).num_rows == 0


def test_a_key_with_many_different_texts_costs_no_square(monkeypatch: pytest.MonkeyPatch) -> None:
    compared = 0

    def counting(one: np.ndarray, other: np.ndarray) -> np.ndarray:
        nonlocal compared
        compared += len(one)
        return np.zeros(len(one), bool)

    many = pa.table(
        {
            "key": pa.array([7] * 1000, pa.uint64()),
            "kind": ["comment"] * 1000,
            "id": [f"{i:04}" for i in range(1000)],
            "signature": [i.to_bytes(8, "big") for i in range(1000)],
        }
    )
    assert not duplicates.repeats(many, counting).any()
    assert compared <= duplicates.LEADERS * 1000


TEXTS = st.lists(st.sampled_from(LONG.split()), min_size=0, max_size=40).map(" ".join)
MANY = st.lists(
    st.builds(
        row,
        st.integers(0, 30).map("r{}".format),
        st.one_of(TEXTS, st.sampled_from([LONG, SIMILAR, OTHER, LONG.upper()])),
        st.integers(0, 3),
        st.sampled_from(["comment", "post"]),
    ),
    max_size=25,
    unique_by=lambda r: (r["kind"], r["id"]),
)


@hypothesis.settings(max_examples=60, deadline=None)
@hypothesis.given(rows=MANY, seed=st.integers(0, 9), partitions=st.integers(1, 5))
def test_the_verdicts_depend_neither_on_the_order_of_rows_nor_on_partitions_and_conserve_rows(
    rows: list[dict[str, Any]], seed: int, partitions: int
) -> None:
    mixed = random.Random(seed).sample(rows, len(rows))
    first = judged(table(*rows))
    assert judged(table(*mixed), partitions=partitions) == first
    told = verdicts(keys(table(*rows), SETTINGS), SETTINGS)
    after = carry_out(pa.concat_tables([table(*rows), told]))
    assert (pc.sum(after["count"]).as_py() or 0) == len(rows)
    kept = set(zip(*(after.filter(pc.is_null(after["dropped"]))[c].to_pylist() for c in ("kind", "id")), strict=True))
    assert kept == {(r["kind"], r["id"]) for r in rows} - {(kind, name) for kind, name, _ in first}


@hypothesis.settings(max_examples=60, deadline=None)
@hypothesis.given(rows=MANY)
def test_of_every_text_one_row_stays_and_it_is_the_earliest(rows: list[dict[str, Any]]) -> None:
    whole = table(*rows)
    words = normalised(whole).to_list()
    gone = {(kind, name) for kind, name, _ in judged(whole, CleaningSettings(drop_near_duplicate=False))}
    earliest: dict[tuple[str, str], tuple[int, str]] = {}
    for r, text in zip(rows, words, strict=True):
        place = (r["created_utc"], r["id"])
        earliest[r["kind"], text] = min(place, earliest.get((r["kind"], text), place))
    stay = {(kind, name) for (kind, _), (_, name) in earliest.items()}
    assert {(r["kind"], r["id"]) for r in rows} - gone == stay


def jaccard(one: str, other: str) -> float:
    """Exact similarity of the sets of word pairs."""
    a, b = ({*pairwise(t.split())} for t in (one, other))
    return len(a & b) / len(a | b)


def test_estimated_similarity_is_right_on_average_and_within_its_error() -> None:
    rng = random.Random(5)
    errors = []
    for _ in range(300):
        words = [f"w{rng.randrange(5000)}" for _ in range(80)]
        changed = [w if rng.random() > rng.choice([0.02, 0.1, 0.25]) else "x" + w for w in words]
        slots = compact(sign(pl.Series([words, changed])))
        errors.append(similarity(slots[:1], slots[1:])[0] - jaccard(" ".join(words), " ".join(changed)))
    assert abs(np.mean(errors)) < 0.01
    assert np.std(errors) < 0.06


def test_signatures_of_a_text_do_not_depend_on_the_texts_beside_it() -> None:
    texts = [LONG.split(), ["one"], [], OTHER.split(), SIMILAR.split()]
    together = sign(pl.Series(texts, dtype=pl.List(pl.String)))
    alone = np.concatenate([sign(pl.Series([text], dtype=pl.List(pl.String))) for text in texts])
    assert (together == alone).all()
    assert len(np.unique(band_keys(together, 12)[[0, 3]])) > 12


def test_near_duplicates_of_real_comments_are_found_and_are_such(shared_data: Path) -> None:
    texts = texts_of(sorted((shared_data / "college").glob("RC_*.zst")))
    rows = table(*(row(f"{i:06}", text, i) for i, text in enumerate(texts) if len(text.split()) >= 25))
    words = [text.split() for text in normalised(rows).to_list()]
    sets = [frozenset(pairwise(w)) for w in words]
    place = {name: i for i, name in enumerate(rows["id"].to_pylist())}
    told = judged(rows)
    gone = {place[name] for _, name, _ in told}
    repeating = {later for _, later in alike(sets, 0.7)}
    close = {later for _, later in alike(sets, 0.6)}
    assert len(repeating) > 40
    assert len(repeating & gone) / len(repeating) >= 0.9
    assert len(close & gone) / len(gone) >= 0.97
