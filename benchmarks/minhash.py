"""Near duplicates: documents a second on one core, and what is found against exact Jaccard similarity.

Rates are of texts long enough to be looked at. Found is measured against all pairs of such
texts whose sets of word pairs are alike by the threshold, worked out exactly by prefix
filtering (Chaudhuri et al. 2006): pairs, and rows that repeat an earlier one. Pairs of
equal texts are left out: those are found as exact duplicates. An estimate close to the
threshold falls on either side of it, so precision is also given a little below it.
"""

import multiprocessing
import os
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import pyarrow as pa

from benchmarks.texts import comments
from configs.corpus import CleaningSettings

TIMES = 3
SLACK = 0.1
"""How far below the threshold a find still counts as close."""


def run() -> dict[str, object]:
    """Rates, and recall and precision of pairs and rows."""
    source, texts = comments()
    os.environ["POLARS_MAX_THREADS"] = "1"
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        timings = [pool.apply(timed, (texts,)) for _ in range(TIMES)]
    best = {name: min(timing[name] for timing in timings) for name in timings[0]}
    documents = int(best.pop("documents"))
    return {
        "texts": source,
        "documents": documents,
        "documents_per_cpu_s": {name: round(documents / seconds) for name, seconds in best.items()}
        | {"all": round(documents / sum(best.values()))},
        "found": found(texts),
    }


def long_texts(texts: list[str], settings: CleaningSettings) -> "tuple[pa.Table, list[list[str]]]":
    """The texts that are looked at, as rows of ROW in order of arrival, and their words."""
    from pipelines.corpus.duplicates import normalised
    from pipelines.corpus.schema import COMMENT, ROW

    values = {
        "kind": [COMMENT] * len(texts),
        "id": [f"{i:09}" for i in range(len(texts))],
        "post_id": ["p"] * len(texts),
        "text": texts,
        "created_utc": list(range(len(texts))),
        "count": [1] * len(texts),
    }
    rows = pa.table({field.name: pa.array(values.get(field.name, [None] * len(texts)), field.type) for field in ROW})
    words = normalised(rows).str.split(" ")
    long = words.list.len().to_numpy() >= settings.near_duplicate_min_words
    return rows.filter(pa.array(long)), words.filter(long).to_list()


def timed(texts: list[str]) -> dict[str, float]:
    """CPU seconds of the steps, without and with the words' splitting, and the number of documents."""
    from pipelines.corpus.duplicates import keys, verdicts

    settings = CleaningSettings(drop_duplicate=False)
    rows, _ = long_texts(texts, settings)
    keys(rows.slice(0, 100), settings)
    start = time.process_time()
    found = keys(rows, settings)
    middle = time.process_time()
    verdicts(found, settings)
    return {
        "normalise, sign, keys": middle - start,
        "verdicts": time.process_time() - middle,
        "documents": rows.num_rows,
    }


def found(texts: list[str]) -> dict[str, object]:
    """Recall and precision against exact similarity."""
    from pipelines.corpus.duplicates import keys, verdicts

    settings = CleaningSettings(drop_duplicate=False)
    least = settings.near_duplicate_similarity
    rows, words = long_texts(texts, settings)
    sets = [frozenset(pairwise(row)) for row in words]
    true = {pair for pair in alike(sets, least) if words[pair[0]] != words[pair[1]]}
    close = {pair for pair in alike(sets, least - SLACK) if words[pair[0]] != words[pair[1]]}
    table = keys(rows, settings)
    place = {name: i for i, name in enumerate(rows["id"].to_pylist())}
    made = {pair for pair in pairs_of(table, place, least) if words[pair[0]] != words[pair[1]]}
    dropped = {place[name] for name in verdicts(table, settings)["id"].to_pylist()}
    equal = {later for first, later in alike(sets, 1.0) if words[first] == words[later]}
    repeating = {later for _, later in true} - equal
    return {
        "threshold": least,
        "true_pairs": len(true),
        "pair_recall": ratio(len(true & made), len(true)),
        "pair_precision": ratio(len(true & made), len(made)),
        f"pair_precision_at_{least - SLACK:.1f}": ratio(len(close & made), len(made)),
        "repeating_rows": len(repeating),
        "row_recall": ratio(len(repeating & dropped), len(repeating)),
        "row_precision": ratio(len(repeating & dropped), len(dropped - equal)),
    }


def pairs_of(table: pa.Table, place: dict[str, int], least: float) -> Iterator[tuple[int, int]]:
    """Pairs of rows that share a band and are estimated to be alike."""
    from pipelines.corpus.duplicates import sharing
    from pipelines.corpus.minhash import similarity

    shared = sharing(table)
    groups: dict[int, list[int]] = defaultdict(list)
    for i, key in enumerate(shared["key"].to_pylist()):
        groups[key].append(i)
    signatures = np.frombuffer(b"".join(shared["signature"].to_pylist()), np.uint8).reshape(shared.num_rows, -1)
    names = [place[name] for name in shared["id"].to_pylist()]
    for members in groups.values():
        for at, one in enumerate(members):
            rest = np.array(members[at + 1 :], int)
            alike = similarity(signatures[rest], signatures[np.full(len(rest), one)]) >= least
            for other in rest[alike]:
                yield min(names[one], names[other]), max(names[one], names[other])


def alike(sets: list[frozenset[tuple[str, str]]], least: float) -> Iterator[tuple[int, int]]:
    """All pairs (earlier, later) of sets with Jaccard similarity ``least`` or more."""
    seen = Counter(element for elements in sets for element in elements)
    index: dict[tuple[str, str], list[int]] = defaultdict(list)
    for later, elements in enumerate(sets):
        rarest = sorted(elements, key=lambda element: (seen[element], element))
        prefix = rarest[: len(rarest) - int(np.ceil(least * len(rarest) - 1e-9)) + 1]
        candidates = {first for element in prefix for first in index[element]}
        for first in candidates:
            common = len(elements & sets[first])
            if common >= least * (len(elements) + len(sets[first]) - common) - 1e-9:
                yield first, later
        for element in prefix:
            index[element].append(later)


def ratio(part: int, whole: int) -> float | None:
    """A share, None of nothing."""
    return round(part / whole, 3) if whole else None
