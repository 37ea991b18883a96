"""The bias report: its figures against a plain count, and its page."""

import csv
import re
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from configs.pairs import PairSettings
from pipelines.corpus.notes import Account, Notes
from pipelines.evaluation.statistics import Resampling
from pipelines.pairs import bias, bias_truth
from pipelines.pairs.bias_report import number
from pipelines.pairs.rules import rules
from pipelines.pairs.select import select_all
from tests.pipelines.pairs.making import exposure, ids, of, random_table, row, table

SETTINGS, MODEL = PairSettings(), exposure()


def counted(*tables: pa.Table) -> Account:
    """The notes of some tasks, added up as the driver does."""
    account: Account = Account(Counter)
    for threads in tables:
        notes, replies = Notes(), of(threads, MODEL)
        bias.note_rules(replies, select_all(replies, rules(SETTINGS, MODEL), SETTINGS), notes)
        for (kind, name), count in notes.entries.items():
            account[kind][name] += count
    return account


def test_the_figures_are_those_of_a_plain_count_over_the_pairs() -> None:
    threads = random_table(7, 120)
    replies = of(threads, MODEL)
    found = select_all(replies, rules(SETTINGS, MODEL), SETTINGS)
    figures = bias.figures(counted(threads), list(found))
    for name, one in found.items():
        chosen, rejected, row = one.chosen, one.rejected, figures["rules"][name]
        assert (row["pairs"], row["posts"]) == (len(chosen), len(set(one.pairs.posts.tolist())))
        assert row["chosen_earlier"] == pytest.approx(
            (replies.times[chosen] < replies.times[rejected]).mean(), abs=1e-4
        )
        assert row["chosen_longer"] == pytest.approx(
            (replies.lengths[chosen] > replies.lengths[rejected]).mean(), abs=1e-4
        )
        gap = np.quantile(replies.scores[chosen] - replies.scores[rejected], 0.5, method="inverted_cdf")
        assert row["score_gap"]["q50"] == pytest.approx(gap, rel=0.05)
        for other, two in found.items():
            first, second = set(ids(threads, one)), set(ids(threads, two))
            assert figures["overlap"][name][other] == pytest.approx(len(first & second) / len(first | second), abs=1e-4)


def test_parts_counted_apart_add_up_to_the_whole() -> None:
    threads = random_table(8, 90)
    parts = [threads.slice(0, 40), threads.slice(40, 1), threads.slice(41)]
    names = list(rules(SETTINGS, MODEL))
    assert bias.figures(counted(*parts), names) == bias.figures(counted(threads), names)


def test_rules_without_pairs_have_no_shares() -> None:
    figures = bias.figures(counted(table(row("p", [(1, 1), (1, 2)]))), ["naive", "shp"])
    assert figures["rules"]["naive"]["pairs"] == 0 and figures["rules"]["naive"]["chosen_earlier"] is None
    assert figures["overlap"]["naive"]["shp"] is None


@given(st.floats(-1e6, 1e6))
def test_histograms_are_right_to_five_per_cent(value: float) -> None:
    (found,) = bias.rounded(np.array([value]))
    assert abs(found - value) <= max(0.05 * abs(value), 0.005)


def truth_of(threads: pa.Table, better: Any) -> dict[str, float]:
    """A quality for each comment."""
    return {comment["comment_id"]: better(comment) for one in threads.to_pylist() for comment in one["comments"]}


def test_agreement_compares_the_used_rule_at_its_own_and_at_the_others_yield() -> None:
    threads, how = random_table(9, 300), Resampling(resamples=100)
    truth = truth_of(threads, lambda comment: float(comment["score"]))
    found = bias_truth.judged(threads, SETTINGS, MODEL, truth)
    rows = bias_truth.agreement(found, "matched", how)
    assert {row["mean"] for row in rows.values()} == {1.0}
    late = truth_of(threads, lambda comment: float(comment["created_utc"]))
    rows = bias_truth.agreement(bias_truth.judged(threads, SETTINGS, MODEL, late), "matched", how)
    assert rows["naive"]["mean"] < rows["matched"]["mean"]
    assert rows["naive"]["minus"]["verdict"] == "rises"
    assert rows["shp"]["mean"] == 1.0 and rows["shp"]["minus"]["verdict"] == "falls"
    fewer = [name for name, row in rows.items() if "clearest" in row]
    assert all(rows[name]["clearest"]["n"] == rows[name]["n"] < rows["matched"]["n"] for name in fewer) and fewer


def test_replies_of_unknown_truth_are_left_out_of_the_agreement() -> None:
    threads = table(row("p", [(2, 1), (9, 2), (90, 3)]))
    found = bias_truth.judged(threads, SETTINGS, None, {"pc0": 0.0, "pc1": 1.0})
    assert found["naive"].posts == ["p"] and found["naive"].hits.tolist() == [True]


def test_numbers_are_shown_without_a_negative_zero() -> None:
    assert [number(value, 2) for value in (-0.001, None, 1.239)] == ["0.00", "", "1.24"]


def check_page(folder: Path, used: str) -> None:
    """That the page of an output holds its sections and fetches nothing; its tables match the manifest's names."""
    page = (folder / "report.html").read_text()
    assert f"{used} (used)" in page
    assert not re.search(r'(?:src|href)="(?!tables/|#|data:)', page) and "<script" not in page and "@import" not in page
    links = set(re.findall(r'href="(tables/[a-z]+\.csv)"', page))
    assert links and all((folder / link).is_file() for link in links)
    with (folder / "tables" / "rules.csv").open() as file:
        assert used in [row["rule"] for row in csv.DictReader(file)]
