"""The exposure model: what it recovers of a known fall, how it balances pairs, and its stage."""

from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from configs import DataError, Settings
from configs.pairs import ExposureSettings, PairSettings
from pipelines.manifest import writing
from pipelines.pairs import exposure as stage
from pipelines.pairs.exposure_balance import balanced, tally
from pipelines.pairs.exposure_fit import arrival_correlation, curves, fit, quantile
from pipelines.pairs.exposure_model import Exposure, logged
from pipelines.pairs.replies import Replies
from pipelines.pairs.rules import rules
from pipelines.pairs.select import select
from tests.pipelines.pairs.making import of, random_table, row, table

FALL = np.array([0.0, -1.0, -1.5, -2.0, -2.2, -2.4])


def planted(threads: int, noise: float, seed: int = 0) -> Replies:
    """Threads of six replies in which arrival costs FALL, and busier threads answer faster and get more votes."""
    rng = np.random.default_rng(seed)
    rows = []
    for number in range(threads):
        level = rng.normal(8, 2)
        scores = np.round(2.0 ** (level + FALL + rng.normal(0, noise, 6)) - 1).astype(int)
        rows.append(row(f"p{number}", [(int(score), 100 * i) for i, score in enumerate(scores)]))
    return of(table(*rows))


def test_the_fall_that_was_planted_is_found_again() -> None:
    (curve,) = curves(planted(600, 0.5), min_threads=30)
    assert np.abs(np.array(curve.fall) - FALL).max() < 0.15
    assert curve.noise == pytest.approx(0.5, abs=0.05)
    assert (curve.size_from, curve.threads, curve.pooled) == (4, 600, False)


def test_busy_threads_do_not_make_late_replies_look_good() -> None:
    # only popular threads have late replies: the mean score by rank rises although each thread's falls
    rows = [row(f"s{i}", [(4, 1), (3, 2)]) for i in range(200)]
    rows += [row(f"b{i}", [(400 >> k, k) for k in range(6)]) for i in range(50)]
    replies = of(table(*rows))
    late = logged(replies.scores)[replies.ranks == 2].mean()
    assert logged(replies.scores)[replies.ranks == 3].mean() > late
    assert all(curve.fall == sorted(curve.fall, reverse=True) for curve in curves(replies, 30))
    assert curves(replies, 30)[1].fall[2] == pytest.approx(-2, abs=0.1)


def test_adjusted_scores_no_longer_follow_arrival() -> None:
    replies = planted(400, 0.7)
    model = fit(replies, {1: 1}, True, ExposureSettings(), PairSettings())
    before = arrival_correlation(replies, replies.adjusted)
    after = arrival_correlation(replies, replies.under(model).adjusted)
    assert before is not None and before < -0.5
    assert after is not None and abs(after) < 0.02


def test_sizes_with_few_threads_take_the_curve_of_all() -> None:
    rows = [row(f"p{i}", [(16, 1), (8, 2)]) for i in range(40)] + [row("q", [(9, t) for t in range(5)])]
    small, large = curves(of(table(*rows)), min_threads=30)
    assert (small.pooled, large.pooled, large.threads) == (False, True, 1)
    assert large.fall[1] < 0 and len(large.fall) == 5


def test_ranks_beyond_a_curve_take_its_last_value_and_small_threads_the_first_curve() -> None:
    model = Exposure.model_validate(
        {
            "threads": 1, "replies": 2, "usable_timestamps": True, "top_score": 1, "bottom_score": 1, "kept": [],
            "curves": [
                {"size_from": 2, "threads": 1, "pooled": False, "noise": 1, "fall": [0, -1]},
                {"size_from": 4, "threads": 1, "pooled": False, "noise": 1, "fall": [0, -2, -3]},
            ],
        }
    )  # fmt: skip
    ranks, sizes = np.array([1, 2, 2, 3, 99, 1]), np.array([3, 3, 4, 4, 99, 1])
    assert model.expected(ranks, sizes).tolist() == [0, -1, -2, -3, -3, 0]


@given(st.dictionaries(st.integers(-50, 500), st.integers(1, 99), min_size=1), st.sampled_from([0.02, 0.15, 0.5, 0.98]))
def test_a_quantile_is_the_least_score_with_so_many_replies_up_to_it(histogram: dict[int, int], share: float) -> None:
    scores = np.repeat(list(histogram), list(histogram.values()))
    found = quantile(histogram, share)
    assert (scores <= found).mean() >= share - 1e-9
    assert (scores < found).mean() < share


@given(st.integers(-(10**6), 10**6))
def test_downvotes_lie_as_far_below_zero_as_upvotes_above(score: int) -> None:
    up, down, next_up = logged(np.array([score, -score, score + 1]))
    assert up == -down and next_up > up


def test_balance_leaves_as_many_earlier_as_later_and_longer_as_shorter_choices() -> None:
    rng, rows = np.random.default_rng(1), []
    for number in range(900):
        scores = np.round(40 * np.exp(rng.normal(0, 1.2, 6))).astype(int)
        lengths = np.clip(scores, 1, 120) + rng.integers(0, 150, 6)  # who is liked is rather long
        rows.append(
            row(f"p{number}", [(int(s), 60 * i, int(n)) for i, (s, n) in enumerate(zip(scores, lengths, strict=True))])
        )
    replies, settings = of(table(*rows)), PairSettings()
    plain = fit(replies, Counter(replies.scores.tolist()), True, ExposureSettings(), settings)
    model = balanced(plain, replies, settings)

    def longer(one: Exposure) -> tuple[float, int]:
        counts = tally(one, replies.under(one), settings)
        return counts[:, :, 2].sum() / counts.sum(), int(counts.sum())

    (before, many), (after, left) = longer(plain), longer(model)
    assert before > 0.7
    assert 0.47 < after < 0.53
    found = select(replies.under(model), rules(settings, model)["matched"], settings)
    assert 0.46 < (replies.times[found.chosen] < replies.times[found.rejected]).mean() < 0.54
    assert left > 2 * many * (1 - before) * 0.8


def test_balance_is_left_alone_where_it_is_not_asked() -> None:
    replies, settings = of(random_table(2, 50)), PairSettings(matched={"balanced": False})
    model = fit(replies, {1: 1}, True, ExposureSettings(), settings)
    assert balanced(model, replies, settings) == model


def threads_folder(folder: Path, **figures: object) -> Path:
    """Random threads in three files, one thread in ten held out, with a manifest."""
    with writing(folder, stage="corpus", settings={}, inputs={}) as draft:
        draft.figures |= figures
        whole = random_table(6, 300).to_pylist()
        for number, one in enumerate(whole):
            one["split"] = "test" if number % 10 == 0 else "train"
        for part in range(3):
            pq.write_table(table(*whole[part::3]), draft.path / f"part-{part}.parquet")
    return folder


def test_the_stage_fits_on_training_threads_only_and_accounts_for_the_rest(ray_cluster: None, tmp_path: Path) -> None:
    threads = threads_folder(tmp_path / "threads")
    manifest = stage.build(Settings(output=str(tmp_path)), {"threads": threads}, tmp_path / "exposure")
    rows = manifest.rows["threads"]
    assert (rows.read, rows.dropped["not_training"]) == (300, 30)
    whole = random_table(6, 300).to_pylist()
    training = [one for number, one in enumerate(whole) if number % 10]
    replies = of(table(*sorted((one for one in training if len(one["comments"]) > 1), key=lambda one: one["post_id"])))
    histogram = Counter(comment["score"] for one in training for comment in one["comments"])
    expected = balanced(fit(replies, histogram, True, ExposureSettings(), PairSettings()), replies, PairSettings())
    assert Exposure.read(tmp_path / "exposure") == expected
    assert (tmp_path / "exposure" / stage.PLOT).read_text().startswith("<svg")
    assert len((tmp_path / "exposure" / stage.CURVES).read_text().splitlines()) > 5


def test_a_bounded_draw_is_the_same_however_often_it_is_drawn(ray_cluster: None, tmp_path: Path) -> None:
    threads = threads_folder(tmp_path / "threads")
    first, notes = stage.drawn(threads, 100)
    assert first.equals(stage.drawn(threads, 100)[0])
    assert 50 < notes["threads"][None] < 130 and notes["threads"]["not_drawn"] > 100


def test_threads_without_an_order_of_arrival_leave_a_model_that_says_so(ray_cluster: None, tmp_path: Path) -> None:
    threads = threads_folder(tmp_path / "threads", usable_timestamps=False)
    manifest = stage.build(Settings(output=str(tmp_path)), {"threads": threads}, tmp_path / "exposure")
    model = Exposure.read(tmp_path / "exposure")
    assert model.curves == [] and not model.usable_timestamps and model.top_score > model.bottom_score
    assert "matched cannot be used" in manifest.notes[0]


def test_without_a_thread_of_two_replies_nothing_is_fitted(ray_cluster: None, tmp_path: Path) -> None:
    with writing(tmp_path / "threads", stage="corpus", settings={}, inputs={}) as draft:
        pq.write_table(table(row("p", [(3, 1)])), draft.path / "part-0.parquet")
    with pytest.raises(DataError, match="two replies; read more dumps"):
        stage.build(Settings(output=str(tmp_path)), {"threads": tmp_path / "threads"}, tmp_path / "exposure")
    assert not (tmp_path / "exposure").exists()
