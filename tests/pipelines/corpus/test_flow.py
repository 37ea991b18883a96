"""The corpus' way through files, without Ray: clean, keys, verdicts, threads over any cut of the rows."""

from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from configs.corpus import CorpusSettings
from pipelines.corpus import fields, flow
from pipelines.corpus.notes import Account
from pipelines.corpus.reader import table_of
from pipelines.corpus.schema import COMMENT, POST
from tests.pipelines.corpus.dumps import APRIL_2021, comment, post

SECRET = b"k" * 32
TEXTS = (
    "I know how that feels and it does get better with time",
    "i know how that feels, and it DOES get better with time!",
    "[removed]",
    "no",
    "Please talk to somebody you trust about what happened there, you do not have to carry all of this alone,"
    " and nobody will think less of you for asking",
    "Please talk to somebody you trust about what happened there, you do not have to carry all of this alone,"
    " and nobody will think less of you for asking them",
)


def same(texts: pa.Array) -> pa.Array:
    return texts


def woven(
    folder: Path, tables: list[pa.Table], corpus: CorpusSettings, partitions: int
) -> tuple[list[dict[str, Any]], Account]:
    """The threads and the account of the three passes, a task after the other."""
    scratch = flow.Scratch(folder / "scratch", partitions, exact=corpus.partitions > 0)
    scratch.folder.mkdir(parents=True)
    account: Account = defaultdict(Counter)

    def note(tables: list[pa.Table]) -> None:
        for table in tables:
            for row in table.to_pylist():
                account[row["kind"]][row["name"]] += row["count"]
        scratch.take_in(account)

    note([flow.hold(table, corpus, partitions, scratch.folder) for table in tables])
    keys = scratch.pieces("keys")
    if keys:
        note([flow.judge(group, keys, corpus, partitions) for group in scratch.groups("keys")[0]])
    pieces = scratch.pieces("rows", "verdicts")
    note([flow.weave(group, pieces, corpus, folder, SECRET, same) for group in scratch.groups("rows")[0]])
    threads = [row for file in folder.glob("*.parquet") for row in pq.read_table(file, partitioning=None).to_pylist()]
    return sorted(threads, key=lambda thread: str(thread["post_id"])), account


def records(rows: list[dict[str, Any]]) -> pa.Table:
    """Rows of dumps as a table of RECORD."""
    return table_of([fields.post(row) if "title" in row else fields.comment(row) for row in rows])


@st.composite
def corpora(draw: st.DrawFn) -> list[dict[str, Any]]:
    """Rows of a few posts and comments: repeated ids and texts, missing posts, own replies, dropped rows."""
    names = [f"p{i}" for i in range(draw(st.integers(1, 5)))]
    rows = []
    for name in draw(st.lists(st.sampled_from(names), min_size=1, max_size=7)):
        over_18, text = draw(st.booleans()), draw(st.sampled_from(TEXTS))
        rows.append(post(name, over_18=over_18, selftext=text, author=draw(st.sampled_from(("A", "B", "[deleted]")))))
    homes = draw(st.lists(st.sampled_from([*names, "nowhere"]), min_size=13, max_size=13))
    for number in range(draw(st.integers(0, 25))):
        which = draw(st.integers(0, 12))
        rows.append(
            comment(
                f"c{which}",
                homes[which],
                body=draw(st.sampled_from([*TEXTS, f"{TEXTS[0]} number {number}"])),
                author=draw(st.sampled_from(("A", "B", "C"))),
                created_utc=APRIL_2021 + draw(st.integers(0, 3)),
                score=draw(st.sampled_from([None, 1, 5])),
            )
        )
    return rows


@given(corpora(), st.data())
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_every_row_is_accounted_for_and_threads_do_not_depend_on_cuts_order_or_partitions(
    tmp_path_factory: pytest.TempPathFactory, rows: list[dict[str, Any]], data: st.DataObject
) -> None:
    corpus = CorpusSettings(max_comments_per_post=3)
    whole, account = woven(tmp_path_factory.mktemp("whole"), [records(rows)], corpus, 1)
    posts = sum("title" in row for row in rows)
    assert account[POST].total() == posts
    assert account[COMMENT].total() == len(rows) - posts
    assert account[POST][None] == len(whole)
    assert account[COMMENT][None] == sum(len(thread["comments"]) for thread in whole)
    shuffled = data.draw(st.permutations(rows))
    cut = data.draw(st.integers(0, len(rows)))
    partitions = data.draw(st.integers(1, 9))
    tables = [records(shuffled[:cut]), records(shuffled[cut:])]
    again, counted = woven(tmp_path_factory.mktemp("cut"), tables, corpus, partitions)
    assert again == whole
    assert {kind: +counted[kind] for kind in (POST, COMMENT)} == {kind: +account[kind] for kind in (POST, COMMENT)}


def test_a_thread_of_fifteen_thousand_comments_passes_and_its_sample_favours_nobody(tmp_path: Path) -> None:
    rows = [post("p1"), post("p2"), comment("other", "p2")]
    rows += [comment(f"c{i}", "p1", created_utc=APRIL_2021 + i, score=15_000 - i) for i in range(15_000)]
    corpus = CorpusSettings(max_comments_per_post=200)
    tables = [records(rows[start : start + 4000]) for start in range(0, len(rows), 4000)]
    threads, account = woven(tmp_path, tables, corpus, 16)
    assert [len(thread["comments"]) for thread in threads] == [200, 1]
    assert account[COMMENT] == {None: 201, "over_cap": 14_800}
    arrivals = sorted(reply["created_utc"] - APRIL_2021 for reply in threads[0]["comments"])
    assert 5_500 < arrivals[100] < 9_500
    assert sum(arrival < 3000 for arrival in arrivals) < 70


def test_the_partitions_of_the_settings_are_tasks_and_a_file_holds_so_many_threads(tmp_path: Path) -> None:
    rows = [post(f"p{i}") for i in range(40)]
    corpus = CorpusSettings(partitions=2, rows_per_file=15)
    threads, _ = woven(tmp_path, [records(rows)], corpus, 2)
    sizes = sorted(pq.read_metadata(file).num_rows for file in tmp_path.glob("*.parquet"))
    assert len(threads) == sum(sizes) == 40
    assert len(sizes) in {3, 4}
    assert max(sizes) <= 15
    assert flow.partitions_for(corpus, []) == 2
    assert flow.partitions_for(CorpusSettings(), []) == flow.FEWEST


def test_what_a_task_left_behind_that_was_killed_is_not_read(tmp_path: Path) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    corpus = CorpusSettings()
    flow.hold(records([post("ghost")]), corpus, 4, scratch)
    folder = tmp_path / "again"
    threads, _ = woven(folder, [records([post("p1")])], corpus, 4)
    for file in scratch.iterdir():
        file.rename(folder / "scratch" / file.name)
    assert [thread["post_id"] for thread in threads] == ["p1"]
