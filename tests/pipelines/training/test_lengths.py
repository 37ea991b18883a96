"""Length statistics."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pipelines.training.lengths import Lengths

ROWS = st.lists(st.tuples(st.integers(1, 300), st.lists(st.integers(1, 200), min_size=1, max_size=2)), min_size=1)


def counted(rows: list[tuple[int, list[int]]]) -> Lengths:
    lengths = Lengths()
    for prompt, completions in rows:
        lengths.add(prompt, completions)
    return lengths


@given(ROWS, ROWS)
def test_figures_are_those_of_all_lengths_whichever_files_they_came_from(
    one: list[tuple[int, list[int]]], other: list[tuple[int, list[int]]]
) -> None:
    sent = Lengths(counted(one).as_lists()) + Lengths(counted(other).as_lists())
    found = sent.figures(512)
    every = {
        "prompt": [prompt for prompt, _ in one + other],
        "completion": [n for _, completions in one + other for n in completions],
        "whole": [prompt + n for prompt, completions in one + other for n in completions],
    }
    for part, lengths in every.items():
        figures = found[part]
        assert (figures["count"], figures["min"], figures["max"]) == (len(lengths), min(lengths), max(lengths))
        assert figures["mean"] == round(sum(lengths) / len(lengths), 2)
        for name, share in (("p50", 0.5), ("p90", 0.9), ("p99", 0.99)):
            assert figures[name] == np.quantile(lengths, share, method="inverted_cdf")
        assert sum(found["histogram"][part]) == len(lengths)
    assert found["trained_share"] == round(sum(every["completion"]) / sum(every["whole"]), 4)


def test_no_row_has_no_figures() -> None:
    found = Lengths().figures(100)
    assert found["whole"] == {"count": 0} and found["trained_share"] is None
