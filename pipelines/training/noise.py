"""How many pairs carry the wrong label, and what their margins are: asked of the tokens before training.

Whether a label is wrong nobody can read off a pair. But where a label follows from what the
two replies say, it can be predicted from their words; what no reader of the words could predict
is noise to a model that learns from words. The share of held-out pairs that a simple reader
gets wrong is therefore an estimate from above of the share of wrong labels: no classifier
errs less than the label's own noise (Bayes error, Devroye et al. 1996, chapter 2), and a weaker
reader only errs more. Estimating flip rates by a fitted classifier's held-out predictions is the
way of Northcutt et al. 2021 ("Confident learning", section 3) and of Natarajan et al. 2013,
who choose the rate by cross-validation. The reader is logistic regression on the words and
pairs of neighbouring words that only one of the two replies has, cross-validated by posts.

On hard text it reads badly and the estimate is far above the truth, so that above ``MOST`` none
is given: Robust DPO divides by 1 - 2 x rate and would multiply its own noise.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from configs.errors import ConfigError, DataError
from pipelines.training.tokens import MARGIN

FOLDS = 5
FEWEST = 100
"""Pairs without which there is nothing to learn a reader from."""
PAIRS = 10_000
"""Most pairs that are read; the estimate's error is then below half a percentage point."""
MOST = 0.4
BUCKETS = 1 << 18
"""Places that pairs of neighbouring tokens are hashed to, beside one for each token."""
VOCABULARY = 1 << 18
STRENGTH = 0.01
"""Inverse strength of the reader's regularisation; from 0.003 to 0.03 the estimate hardly changes."""


@dataclass(frozen=True)
class Noise:
    """An estimate of the share of wrong labels."""

    rate: float
    """Share of pairs (0-0.5), from above."""
    pairs: int
    """Pairs it was estimated from."""


def estimate(tokens: Path, field: str) -> Noise:
    """The share of wrong labels among the training pairs in a folder of tokens; seconds on one core.

    Raises ConfigError naming ``field`` where there are too few pairs, or where their labels can
    hardly be told from their words.
    """
    pairs = sampled(tokens)
    groups = len(pc.unique(pairs["post_id"]))
    if pairs.num_rows < FEWEST or groups < FOLDS:
        raise ConfigError(
            f"{field}: auto needs {FEWEST} pairs of {FOLDS} posts and there are {pairs.num_rows} of {groups}; "
            "give a number, 0.1 is usual"
        )
    rate = held_out_error(pairs)
    if rate > MOST:
        raise ConfigError(
            f"{field}: auto cannot tell: the words of {pairs.num_rows} pairs predict {1 - rate:.0%} of their labels, "
            f"and an estimate above {MOST:.0%} is of no use; give a number, 0.1 is usual"
        )
    return Noise(round(rate, 4), pairs.num_rows)


def sampled(tokens: Path) -> pa.Table:
    """Ids of the training pairs' replies and posts, evenly drawn where there are many."""
    columns = ["chosen_ids", "rejected_ids", "post_id"]
    files = sorted((tokens / "train").glob("*.parquet"))
    rows = sum(pq.read_metadata(file).num_rows for file in files)
    every = max(1, -(-rows // PAIRS))
    kept, seen = [], 0
    for file in files:
        table = pq.read_table(file, columns=columns)
        kept.append(table.take(pa.array(range(-seen % every, table.num_rows, every), pa.int64())))
        seen += table.num_rows
    if not kept:
        raise DataError(f"{tokens / 'train'} holds no Parquet file")
    return pa.concat_tables(kept)


def held_out_error(pairs: pa.Table) -> float:
    """Share of pairs whose label a reader that was fitted on other posts gets wrong; ties count half."""
    from scipy.sparse import csr_matrix
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GroupKFold

    found = list(differences(pairs))
    sizes = [len(columns) for columns, _ in found]
    places = np.concatenate([columns for columns, _ in found])
    signs = np.concatenate([signs for _, signs in found])
    used, columns = np.unique(places, return_inverse=True)
    shape = (len(found), max(1, len(used)))
    matrix = csr_matrix((signs, columns, np.concatenate([[0], np.cumsum(sizes)])), shape=shape)
    # Every second pair is turned round: without an intercept that changes nothing, and there are two classes.
    turned = np.where(np.arange(len(found)) % 2, -1.0, 1.0)
    matrix = csr_matrix(matrix.multiply(turned[:, None]))
    wrong = 0.0
    for learned, held in GroupKFold(FOLDS).split(matrix, groups=pairs["post_id"].to_pylist()):
        reader = LogisticRegression(C=STRENGTH, fit_intercept=False, max_iter=500)
        score = reader.fit(matrix[learned], turned[learned]).decision_function(matrix[held]) * turned[held]
        wrong += float((score < 0).sum() + 0.5 * (score == 0).sum())
    return wrong / len(found)


def differences(pairs: pa.Table) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float64]]]:
    """For each pair the features that one reply alone has: 1 where the chosen one has it, -1 where the rejected."""
    for chosen, rejected in zip(pairs["chosen_ids"].to_pylist(), pairs["rejected_ids"].to_pylist(), strict=True):
        mine, yours = features(chosen), features(rejected)
        only, other = np.setdiff1d(mine, yours), np.setdiff1d(yours, mine)
        yield np.concatenate([only, other]), np.concatenate([np.ones(len(only)), -np.ones(len(other))])


def features(ids: list[int]) -> NDArray[np.int64]:
    """Places of a reply's tokens and of its pairs of neighbouring tokens."""
    tokens = np.asarray(ids, dtype=np.int64)
    neighbours = (tokens[:-1] * 1_000_003 + tokens[1:]) % BUCKETS
    return np.unique(np.concatenate([tokens % VOCABULARY, VOCABULARY + neighbours]))


def mean_weight(tokens: Path, field: str) -> float:
    """The mean of log2(1 + margin) over the training pairs, which weights are relative to.

    Raises ConfigError naming ``field`` where pairs have no margin, or one that is not above 0.
    """
    files = sorted((tokens / "train").glob("*.parquet"))
    known = all(MARGIN in pq.read_schema(file).names for file in files)
    margins = [pq.read_table(file, columns=[MARGIN])[MARGIN].cast(pa.float64()) for file in files] if known else []
    values = pa.chunked_array([chunk for column in margins for chunk in column.chunks], pa.float64())
    if not known or not len(values) or values.null_count or not pc.all(pc.greater(values, 0)).as_py():
        raise ConfigError(
            f"{field}: margin needs a margin above 0 on every training pair, and {tokens} has pairs without; "
            "set it to none, or make the pairs again with a rule that measures one"
        )
    return float(np.log2(1 + values.to_numpy()).mean())
