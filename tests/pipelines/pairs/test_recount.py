"""An independent recount: every rule written again in SQL, over threads of the sample and of real dumps.

The SQL is written from what the rules' docstrings promise, over ``threads/*.parquet``; it
shares no code with them. The same pairs (post, chosen, rejected) must come out, before
the caps and, with the greedy caps told again one by one, after them.
"""

from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from configs import Settings
from configs.corpus import SampleSettings
from configs.pairs import MatchedSettings, PairSettings, RuleName
from pipelines.corpus.build import build as build_corpus
from pipelines.pairs.exposure import build as build_exposure
from pipelines.pairs.exposure_model import Exposure
from pipelines.pairs.replies import Replies
from pipelines.pairs.rules import rules
from pipelines.pairs.select import select
from pipelines.sample.build import build as build_sample

Pairs = set[tuple[str, str, str]]
UNLIMITED = {"max_per_post": 1_000_000, "max_per_reply": 1_000_000}
ROWS = """
create temp table replies as
select post_id, coalesce(t.score, 0) as post_score, c.comment_id as id, c.score, c.created_utc as time,
    length(c.text) as length,
    row_number() over (partition by post_id order by c.created_utc, encode(c.comment_id)) as rank,
    count(*) over (partition by post_id) as size,
    sign(c.score) * log2(1 + abs(c.score)) as logged
from (select post_id, score, unnest(comments) as c from read_parquet('{threads}/*.parquet')) t;
create temp table falls as
select size_from, lead(size_from, 1, 1000000000) over (order by size_from) as size_to,
    unnest(fall) as fall, unnest(range(1, len(fall) + 1)) as at, len(fall) as longest
from (select unnest(curves, recursive := true) from read_json('{exposure}'));
create temp table adjusted as
select r.*, logged - coalesce(f.fall, 0) as adjusted
from replies r left join falls f
    on (r.size >= f.size_from or f.size_from = (select min(size_from) from falls)) and r.size < f.size_to
    and f.at = least(r.rank, f.longest);
create temp table lifted as
select *, adjusted - median(adjusted) over (partition by post_id) as lift,
    case when score < 0 then -1 else round(log2(1 + greatest(score, 0))) end as grade
from adjusted;
create temp table couples as
select c.post_id, c.id as chosen, r.id as rejected, c.score as high, r.score as low, c.time as chosen_time,
    r.time as rejected_time, c.rank as chosen_rank, r.rank as rejected_rank, c.adjusted - r.adjusted as margin,
    c.adjusted > r.adjusted as above, sign(c.length - r.length) as longer,
    c.lift as chosen_lift, r.lift as rejected_lift, c.grade - r.grade as grades
from lifted c join lifted r on c.post_id = r.post_id and c.id <> r.id
where c.post_score >= {min_post_score};
"""
RULES: dict[RuleName, tuple[str, str, str]] = {
    "shp": (
        "high > low and low >= {min_score} and high >= {min_ratio} * low and chosen_time >= rejected_time",
        "high / greatest(low, 1)",
        "high - low",
    ),
    "paper": ("high >= {top} and low <= {bottom} and high - low >= {min_gap}", "high - low", "high"),
    "askell": ("grades > 0", "grades", "high - low"),
    "margin": ("high - low >= {min_gap}", "high - low", "high"),
    "naive": ("high > low", "high / greatest(low, 1)", "high - low"),
    "matched": (
        "above and margin >= {matched.min_margin} and high > low and high >= {matched.min_chosen_score}"
        " and abs(chosen_time - rejected_time) <= 3600 * {matched.window_hours}"
        " and abs(chosen_rank - rejected_rank) <= {matched.max_rank_distance}"
        " and (low > 0 or chosen_lift >= {matched.min_lift})",
        "case when low <= 0 then 1 else 0 end",
        "round(chosen_lift + least(-rejected_lift, 2), 9)",
    ),
}
"""Condition, clarity, and clarity of ties of each rule, over ``couples``."""


def test_every_rule_is_recounted() -> None:
    assert set(RULES) == set(get_args(RuleName))


@pytest.fixture(scope="module", params=["sample", "college"])
def made(
    request: pytest.FixtureRequest, ray_cluster: None, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Path]:
    """Threads, and the exposure model fitted on them."""
    root = tmp_path_factory.mktemp(request.param)
    settings = Settings.model_validate({"output": str(root), "sample": {"threads": 400}})
    if request.param == "sample":
        build_sample(SampleSettings(threads=400, seed=5), root / "sample")
        dumps = root / "sample"
    else:
        dumps = request.getfixturevalue("shared_data") / "college"
    build_corpus(settings, {"posts": [f"{dumps}/RS_*.zst"], "comments": [f"{dumps}/RC_*.zst"]}, root / "threads")
    build_exposure(settings, {"threads": root / "threads"}, root / "exposure")
    return root / "threads", root / "exposure"


@pytest.fixture(scope="module")
def base(made: tuple[Path, Path]) -> Iterator[duckdb.DuckDBPyConnection]:
    """DuckDB with every couple of replies of one post."""
    with duckdb.connect() as connection:
        threads, exposure = made
        connection.execute(
            ROWS.format(
                threads=threads, exposure=exposure / "exposure.json", min_post_score=PairSettings().min_post_score
            )
        )
        yield connection


def ours(made: tuple[Path, Path], settings: PairSettings, name: RuleName) -> Pairs:
    """The pairs that the pipeline makes, file by file as its tasks do."""
    found: Pairs = set()
    model = Exposure.read(made[1])
    for file in sorted(made[0].glob("*.parquet")):
        threads = pq.read_table(file, partitioning=None)
        selection = select(Replies.of(threads, model), rules(settings, model)[name], settings)
        ids = pc.struct_field(pc.list_flatten(threads["comments"]), "comment_id")
        sides = (ids.take(pa.array(side)).to_pylist() for side in (selection.chosen, selection.rejected))
        posts = threads["post_id"].take(pa.array(selection.pairs.posts)).to_pylist()
        found |= set(zip(posts, *sides, strict=True))
    return found


def in_sql(
    base: duckdb.DuckDBPyConnection, made: tuple[Path, Path], settings: PairSettings, name: RuleName
) -> list[tuple[str, str, str]]:
    """The candidates of a rule, by post and then clearest first."""
    model = Exposure.read(made[1])
    condition, clear, tie = RULES[name]
    given = settings.model_dump() | {"matched": settings.matched, "top": model.top_score, "bottom": model.bottom_score}
    query = f"""select post_id, chosen, rejected from couples where {condition.format(**given)}
        order by post_id, {clear} desc, {tie} desc, encode(chosen), encode(rejected)"""
    return base.execute(query).fetchall()


@pytest.mark.parametrize("name", get_args(RuleName))
def test_every_rule_allows_the_pairs_that_sql_finds(
    base: duckdb.DuckDBPyConnection, made: tuple[Path, Path], name: RuleName
) -> None:
    settings = PairSettings(rule=name, matched=MatchedSettings(balanced=False), **UNLIMITED)
    expected = in_sql(base, made, settings, name)
    assert len(set(expected)) == len(expected) > 20
    assert ours(made, settings, name) == set(expected)


@pytest.mark.parametrize("name", get_args(RuleName))
def test_within_the_caps_the_clearest_pairs_stay(
    base: duckdb.DuckDBPyConnection, made: tuple[Path, Path], name: RuleName
) -> None:
    settings = PairSettings(rule=name, matched=MatchedSettings(balanced=False))
    assert ours(made, settings, name) == within_the_caps(in_sql(base, made, settings, name), settings)


def within_the_caps(candidates: list[tuple[str, str, str]], settings: PairSettings) -> Pairs:
    """The clearest pair of a post, then the next of which no reply is full, until the post has enough."""
    taken: Pairs = set()
    of_post: Counter[str] = Counter()
    uses: dict[str, Counter[str]] = defaultdict(Counter)
    for post, chosen, rejected in candidates:
        used = uses[post]
        if of_post[post] < settings.max_per_post and max(used[chosen], used[rejected]) < settings.max_per_reply:
            of_post[post] += 1
            used.update((chosen, rejected))
            taken.add((post, chosen, rejected))
    return taken


def test_the_default_rule_keeps_of_each_kind_the_share_that_the_model_says(
    base: duckdb.DuckDBPyConnection, made: tuple[Path, Path]
) -> None:
    settings = PairSettings(rule="matched")
    shares = {(kept.stratum, kept.earlier, kept.longer): kept.share for kept in Exposure.read(made[1]).kept}
    kinds = {
        (post, chosen, rejected): (stratum, earlier, longer)
        for post, chosen, rejected, stratum, earlier, longer in base.execute(
            """select post_id, chosen, rejected,
                case when low <= 0 then 0 when margin < 2 then 1 when margin < 3 then 2 else 3 end,
                sign(rejected_time - chosen_time), longer from couples where above"""
        ).fetchall()
    }
    candidates = in_sql(base, made, settings, "matched")
    kept = [pair for pair in candidates if draw(pair[1], pair[2]) < shares.get(kinds[pair], 1.0)]
    assert 0 < len(kept) < len(candidates)
    assert ours(made, settings, "matched") == within_the_caps(kept, settings)


def draw(chosen: str, rejected: str) -> float:
    """A number in [0, 1) of two ids: FNV-1a of each, the finaliser of SplitMix64, the upper 53 bits."""
    return (mixed((mixed(fnv(chosen)) + fnv(rejected)) % 2**64) >> 11) / 2**53


def fnv(text: str) -> int:
    code = 0xCBF29CE484222325
    for byte in text.encode():
        code = (code ^ byte) * 0x100000001B3 % 2**64
    return mixed(code)


def mixed(code: int) -> int:
    code = (code ^ (code >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
    code = (code ^ (code >> 27)) * 0x94D049BB133111EB % 2**64
    return code ^ (code >> 31)
