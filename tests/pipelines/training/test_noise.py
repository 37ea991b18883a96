"""The share of wrong labels, estimated from words alone, beside the truth that only the sample knows."""

import random
from itertools import combinations
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from configs.errors import ConfigError
from pipelines.sample.community import Community
from pipelines.training import noise
from pipelines.training.tokens import MARGIN

FIELD = "training.dpo1.label_smoothing"
Pair = dict[str, object]


def community(threads: int, gap: float) -> tuple[list[Pair], float]:
    """Pairs of neighbouring replies whose votes differ ``gap`` times, as tokens; and their share of wrong labels."""
    drawn = Community(random.Random(4), threads)
    words: dict[str, int] = {}
    pairs: list[Pair] = []
    wrong = 0
    for _ in range(threads):
        thread = drawn.thread()
        for one, other in combinations([c for c in thread.comments if c.truth and c.score is not None], 2):
            best, worst = (one, other) if (one.score or 0) > (other.score or 0) else (other, one)
            if abs(one.order - other.order) > 2 or (best.score or 0) < gap * max(1, worst.score or 0):
                continue
            assert best.truth is not None and worst.truth is not None
            wrong += best.truth.quality <= worst.truth.quality
            ids = [[words.setdefault(w, len(words)) for w in c.text.lower().split()] for c in (best, worst)]
            pairs.append({"chosen_ids": ids[0], "rejected_ids": ids[1], "post_id": thread.post_id})
    return pairs, wrong / len(pairs)


def flipped(pairs: list[Pair], share: float) -> list[Pair]:
    draw = random.Random(9)
    turned = [draw.random() < share for _ in pairs]
    return [
        {**p, "chosen_ids": p["rejected_ids"], "rejected_ids": p["chosen_ids"]} if turn else p
        for p, turn in zip(pairs, turned, strict=True)
    ]


def written(folder: Path, pairs: list[Pair]) -> Path:
    (folder / "train").mkdir(parents=True)
    for part in range(2):
        pq.write_table(pa.Table.from_pylist(pairs[part::2]), folder / "train" / f"part-{part}.parquet")
    return folder


@pytest.mark.parametrize(("gap", "flips"), [(2.5, 0.0), (1.5, 0.0), (2.5, 0.2)])
def test_the_estimate_lies_little_above_the_sample_s_true_share(gap: float, flips: float, tmp_path: Path) -> None:
    pairs, wrong = community(260, gap)
    truth = wrong * (1 - flips) + (1 - wrong) * flips
    found = noise.estimate(written(tmp_path, flipped(pairs, flips)), FIELD)
    assert found.pairs == len(pairs) > 250
    assert truth - 0.03 <= found.rate <= truth + 0.08, f"truth {truth:.3f}, estimate {found.rate:.3f}"


def test_labels_that_words_do_not_tell_are_refused_with_the_way_out(tmp_path: Path) -> None:
    pairs, _ = community(120, 2.0)
    with pytest.raises(ConfigError, match=r"training\.dpo1\.label_smoothing: auto cannot tell.*give a number"):
        noise.estimate(written(tmp_path, flipped(pairs, 0.5)), FIELD)


def test_too_few_pairs_are_refused(tmp_path: Path) -> None:
    pairs, _ = community(20, 2.0)
    with pytest.raises(ConfigError, match=r"auto needs 100 pairs of 5 posts and there are 8 of"):
        noise.estimate(written(tmp_path, pairs[:8]), FIELD)


def test_many_pairs_are_drawn_evenly_over_all_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(noise, "PAIRS", 10)
    rows: list[Pair] = [{"chosen_ids": [k], "rejected_ids": [k], "post_id": str(k)} for k in range(95)]
    assert noise.sampled(written(tmp_path, rows)).num_rows == 10


def test_the_mean_weight_is_that_of_the_training_pairs(tmp_path: Path) -> None:
    rows: list[Pair] = [{"post_id": str(k), MARGIN: float(k)} for k in (1, 3, 7)]
    assert noise.mean_weight(written(tmp_path, rows), "training.dpo1.weights") == 2.0


@pytest.mark.parametrize("margin", [{}, {MARGIN: None}, {MARGIN: 0.0}])
def test_pairs_without_a_margin_cannot_be_weighted(margin: dict[str, float | None], tmp_path: Path) -> None:
    rows: list[Pair] = [{"post_id": "a", MARGIN: 1.0} | {"other": 1}, {"post_id": "b", **margin}]
    rows = rows if margin else [{"post_id": "b"}]
    with pytest.raises(ConfigError, match=r"training\.dpo1\.weights: margin needs a margin above 0 on every"):
        noise.mean_weight(written(tmp_path, rows), "training.dpo1.weights")
