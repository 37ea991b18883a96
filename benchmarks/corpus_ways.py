"""Three ways from dumps to threads and pairs: our stages on Ray, a DuckDB script, a polars script.

All read the same dumps, apply the same rules (``SETTINGS``: everything but scrubbing, language
and near duplicates), write threads and pairs as Parquet, and report what they counted.
Each is run in a process of its own:

    python -m benchmarks.corpus_ways WAY DUMPS OUTPUT RESULT.json

For Ray the clock starts after all workers are up and the same stages went over dumps of one thread
in the same session: that is its fixed start. The scripts' starts after importing.
"""

import json
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from configs.corpus import CorpusSettings
from configs.pairs import PairSettings
from pipelines.corpus.cleaning import LINK, month_span

SETTINGS = CorpusSettings.model_validate({"cleaning": {"drop_not_english": False, "drop_near_duplicate": False}})
PAIRS = PairSettings(rule="shp", max_per_reply=5)
"""Five pairs a post; without the cap a reply, which is no single query in SQL."""
FROZEN = [month_span(month) for month in SETTINGS.cleaning.frozen_months]
SETTLED = month_span(SETTINGS.cleaning.settled_from)[0]
GONE = ("[deleted]", "[removed]", "[ removed by reddit ]", "[removed by reddit]", "[deleted by user]")
NO_WORD = r"[^\p{L}\p{M}\p{N}]+"
PART = "part-0.parquet"


def ray(dumps: Path, output: Path) -> dict[str, Any]:
    """Our own: ``corpus`` without scrubbing, then the pairs of the threads it wrote."""
    import ray
    import ray.data

    from cluster import session
    from configs.settings import Settings

    session.connect(Settings(output=str(output)))
    cpus = int(ray.cluster_resources()["CPU"])
    ray.data.range(cpus, override_num_blocks=cpus).map_batches(woken, batch_format="pyarrow").materialize()
    through_stages(almost_empty(output / "empty"), output / "first")
    began = time.time()
    counts = through_stages(dumps, output / "whole")
    spent = {"began": began, "ended": time.time()}
    ray.shutdown()
    return spent | counts


def woken(batch: pa.Table) -> pa.Table:
    """Import what the stages import, and wait until every worker is there."""
    import pipelines.corpus.flow
    import pipelines.pairs.select  # noqa: F401

    time.sleep(3)
    return batch


def almost_empty(folder: Path) -> Path:
    """Dumps of one post and two comments that make a pair: what runs over them is Ray's fixed start."""
    folder.mkdir()
    row = {"subreddit": "a", "created_utc": 1_600_000_000, "author": "one"}
    post = row | {"id": "p", "title": "a post of four words", "selftext": "", "is_self": True}
    replies = [row | {"id": f"c{i}", "author": f"a{i}", "link_id": "t3_p", "parent_id": "t3_p"} for i in (2, 9)]
    replies = [
        reply | {"score": int(reply["id"][1:]), "body": f"a reply with number {reply['id']}"} for reply in replies
    ]
    (folder / "RS_0.ndjson").write_text(json.dumps(post | {"score": 1}) + "\n", encoding="utf-8")
    (folder / "RC_0.ndjson").write_text("".join(json.dumps(reply) + "\n" for reply in replies), encoding="utf-8")
    return folder


def through_stages(dumps: Path, output: Path) -> dict[str, int]:
    """Threads and pairs of the dumps, written below ``output``; what was counted."""
    from pipelines.corpus.build import dumps_of
    from pipelines.corpus.build import run as threads_of
    from pipelines.pairs.rows import each, thread_files

    given = {"posts": [f"{dumps}/RS_*"], "comments": [f"{dumps}/RC_*"]}
    folder = output / "threads"
    folder.mkdir(parents=True)
    account = threads_of(SETTINGS, dumps_of(given), folder, b"k" * 32, scrub=same)
    counted = each(thread_files(folder), partial(pairs_of, output=output))
    pairs = sum(int(row["pairs"]) for row in counted.take_all())
    return {"posts": account["post"][None], "comments": account["comment"][None], "pairs": pairs}


def same(values: Any) -> Any:
    """What it was given."""
    return values


def pairs_of(file: Path, output: Path) -> pa.Table:
    """Write the pairs of a file of threads, as the baselines do; returns their number."""
    import pyarrow.compute as pc

    from pipelines.pairs.replies import Replies
    from pipelines.pairs.rules import rules
    from pipelines.pairs.select import select

    threads = pq.read_table(file, partitioning=None)
    found = select(Replies.of(threads), rules(PAIRS, None)[PAIRS.rule], PAIRS)
    replies = pc.list_flatten(threads["comments"]).combine_chunks().flatten()
    comments = pa.table(replies, names=["id", "author_hash", "text", "created_utc", "score"])
    asked = threads.select(["post_id", "title", "text", "split"]).take(pa.array(found.pairs.posts))
    sides = [comments.select(["id", "text", "score"]).take(pa.array(side)) for side in (found.chosen, found.rejected)]
    names, columns = list(asked.column_names), list(asked.columns)
    for which, side in zip(("chosen", "rejected"), sides, strict=True):
        names += [f"{which}_{name}" for name in side.column_names]
        columns += side.columns
    pq.write_table(pa.table(columns, names=names), output / f"pairs-{file.name}", compression="zstd")
    return pa.table({"pairs": [len(found.pairs)]})


def duckdb(dumps: Path, output: Path) -> dict[str, Any]:
    """One process, two statements written and a few counted."""
    import duckdb

    base = duckdb.connect()
    began = time.time()
    base.execute("set preserve_insertion_order = false; set enable_progress_bar = false")
    base.execute(DUCKDB_ROWS.format(dumps=dumps, **patterns()))
    base.execute(DUCKDB_THREADS.format(output=output))
    base.execute(DUCKDB_PAIRS.format(output=output, pairs=PAIRS))
    spent = {"began": began, "ended": time.time()}
    return spent | {name: base.table(name).count("*").fetchall()[0][0] for name in ("posts", "comments", "pairs")}


def patterns() -> dict[str, str]:
    """The rules' patterns, as alternatives, quoted for SQL."""
    cleaning = SETTINGS.cleaning
    given = {"names": cleaning.bot_names, "except_names": cleaning.bot_names_except, "signatures": cleaning.bot_texts}
    joined = {name: "|".join(f"(?:{one})" for one in many) for name, many in given.items()} | {"link": LINK}
    quoted = {name: "'" + pattern.replace("'", "''") + "'" for name, pattern in joined.items()}
    listed = ", ".join(f"'{name.lower()}'" for name in cleaning.bots)
    frozen = " or ".join(f"(created_utc >= {start} and created_utc < {end})" for start, end in FROZEN)
    gone = ", ".join(f"'{text}'" for text in GONE)
    return quoted | {"bots": listed, "frozen": frozen, "gone": gone, "no_word": NO_WORD, "settled": str(SETTLED)}


DUCKDB_ROWS = r"""
create macro size(words) as len(list_filter(string_split(translate(words, E'\n\t\r', '   '), ' '), lambda x: x <> ''));
create macro is_bot(author, words) as coalesce(lower(author) in ({bots})
    or (regexp_matches(author, {names}) and not regexp_matches(author, {except_names})), false)
    or coalesce(regexp_matches(words, {signatures}, 'i'), false);
create macro is_link(words) as case when regexp_matches(words, {link}) then length(regexp_extract_all(
    regexp_replace(words, {link}, ' ', 'g'), '\p{{L}}[\p{{L}}'']*')) <= 3 else false end;
create macro normal(words) as trim(regexp_replace(lower(words), '{no_word}', ' ', 'g'));
create macro first_of(words, normal) as case when normal = '' then words else normal end;
create temp table fair_posts as
select id as post_id, subreddit, nullif(author, '[deleted]') as author, title, trim(selftext) as text, created_utc,
    score, title || ' ' || trim(selftext) as whole
from read_json('{dumps}/RS_*', format = 'newline_delimited', columns = {{
    id: 'VARCHAR', subreddit: 'VARCHAR', title: 'VARCHAR', selftext: 'VARCHAR', author: 'VARCHAR',
    created_utc: 'BIGINT', score: 'BIGINT', over_18: 'BOOLEAN', is_self: 'BOOLEAN', stickied: 'BOOLEAN',
    distinguished: 'VARCHAR', contest_mode: 'BOOLEAN', removed_by_category: 'VARCHAR', crosspost_parent: 'VARCHAR',
    _meta: 'STRUCT(retrieved_2nd_on BIGINT)'}})
where lower(text) not in ({gone}) and removed_by_category is null and distinguished is null
    and not coalesce(stickied, false) and not coalesce(over_18, false) and coalesce(is_self, true)
    and crosspost_parent is null and not coalesce(contest_mode, false) and not ({frozen})
    and (created_utc < {settled} or _meta.retrieved_2nd_on is not null);
create temp table posts as
select * exclude (whole, normal) from (
    select *, normal(whole) as normal from fair_posts
    where not is_bot(author, text) and not is_link(text) and size(whole) between 3 and 1000)
qualify row_number() over (partition by first_of(whole, normal) order by created_utc, post_id) = 1;
create temp table fair_comments as
select id, link_id[4:] as post_id, author, trim(body) as text, created_utc, score
from read_json('{dumps}/RC_*', format = 'newline_delimited', columns = {{
    id: 'VARCHAR', link_id: 'VARCHAR', parent_id: 'VARCHAR', author: 'VARCHAR', body: 'VARCHAR',
    created_utc: 'BIGINT', score: 'BIGINT', stickied: 'BOOLEAN', distinguished: 'VARCHAR', score_hidden: 'BOOLEAN',
    _meta: 'STRUCT(retrieved_2nd_on BIGINT)'}})
where lower(text) not in ({gone}) and author <> '[deleted]' and distinguished is null
    and not coalesce(stickied, false) and parent_id = link_id and score is not null
    and not coalesce(score_hidden, false) and not ({frozen})
    and (created_utc < {settled} or _meta.retrieved_2nd_on is not null);
create temp table first_comments as
select * exclude (normal) from (
    select *, normal(text) as normal from fair_comments
    where not is_bot(author, text) and not is_link(text) and size(text) between 5 and 400)
qualify row_number() over (partition by first_of(text, normal) order by created_utc, id) = 1;
create temp table comments as
select c.* from first_comments c join posts p using (post_id) where c.author is distinct from p.author
qualify row_number() over (partition by post_id order by hash(c.id)) <= 200;
"""
DUCKDB_THREADS = """
copy (
    select post_id, subreddit, md5(author || 'key') as author_hash, title, text, created_utc, score,
        case when hash(coalesce(author, post_id)) % 100 < 90 then 'train' else 'test' end as split, replies
    from posts left join (
        select post_id, list(struct_pack(id, author_hash := md5(author || 'key'), text, created_utc, score)
            order by created_utc, id) as replies
        from comments group by post_id) using (post_id)
    order by post_id
) to '{output}/threads.parquet' (format parquet, compression zstd);
"""
DUCKDB_PAIRS = """
create temp table pairs as
select a.post_id, a.id as chosen_id, a.text as chosen_text, a.score as chosen_score,
    b.id as rejected_id, b.text as rejected_text, b.score as rejected_score
from comments a join comments b using (post_id)
where a.score > b.score and b.score >= {pairs.min_score} and a.score >= {pairs.min_ratio} * b.score
    and a.created_utc >= b.created_utc
qualify row_number() over (partition by post_id
    order by a.score / greatest(b.score, 1) desc, a.score - b.score desc, a.id, b.id) <= {pairs.max_per_post};
copy (select p.*, q.title, q.text from pairs p join posts q using (post_id))
to '{output}/pairs.parquet' (format parquet, compression zstd);
"""


def main(way: str, dumps: str, output: str, result: str) -> None:
    """Run a way and write its figures."""
    from benchmarks.corpus_polars import polars

    folder = Path(output)
    folder.mkdir(parents=True)
    ways = {"ray": ray, "duckdb": duckdb, "polars": polars}
    Path(result).write_text(json.dumps(ways[way](Path(dumps), folder)), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
