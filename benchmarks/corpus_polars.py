"""The polars script of ``corpus_ways``: the same rows, threads and pairs in one process."""

import time
from pathlib import Path
from typing import Any

COMMON = {"id": "String", "author": "String", "created_utc": "Int64", "score": "Int64", "stickied": "Boolean"}
POSTS = COMMON | {
    **dict.fromkeys(("subreddit", "title", "selftext", "distinguished", "removed_by_category"), "String"),
    **dict.fromkeys(("over_18", "is_self", "contest_mode"), "Boolean"),
    "crosspost_parent": "String",
}
COMMENTS = COMMON | {
    **dict.fromkeys(("link_id", "parent_id", "body", "distinguished"), "String"),
    "score_hidden": "Boolean",
}


def polars(dumps: Path, output: Path) -> dict[str, Any]:
    """Lazy frames, collected at the writes."""
    import polars as pl

    from benchmarks.corpus_ways import PAIRS, SETTLED

    began = time.time()

    def read(glob: str, columns: dict[str, str]) -> pl.LazyFrame:
        schema = {name: getattr(pl, kind) for name, kind in columns.items()}
        schema["_meta"] = pl.Struct({"retrieved_2nd_on": pl.Int64})
        files = sorted(dumps.glob(glob))
        return pl.concat([pl.scan_ndjson(file, schema=schema) for file in files])

    def fair(rows: pl.LazyFrame, text: pl.Expr) -> pl.LazyFrame:
        again = pl.col("_meta").struct.field("retrieved_2nd_on").is_not_null()
        return rows.with_columns(text=text.str.strip_chars()).filter(
            *rows_rules(pl), (pl.col("created_utc") < SETTLED) | again
        )

    def first(rows: pl.LazyFrame, whole: pl.Expr, least: int, most: int) -> pl.LazyFrame:
        normal = whole.str.to_lowercase().str.replace_all(r"[\W_]+", " ").str.strip_chars(" ")
        sized = rows.filter(whole.str.count_matches(r"\S+").is_between(least, most))
        keyed = sized.with_columns(normal=pl.when(normal == "").then(whole).otherwise(normal))
        return keyed.sort("created_utc", "id").unique("normal", keep="first", maintain_order=True).drop("normal")

    posts = fair(read("RS_*", POSTS), pl.col("selftext")).filter(
        pl.col("removed_by_category").is_null(),
        pl.col("crosspost_parent").is_null(),
        ~pl.col("over_18").fill_null(False),
        pl.col("is_self").fill_null(True),
        ~pl.col("contest_mode").fill_null(False),
    )
    posts = first(posts, pl.col("title") + " " + pl.col("text"), 3, 1000)
    kept = posts.select("subreddit", "title", "text", "created_utc", "score", "author", post_id="id").collect()
    comments = fair(read("RC_*", COMMENTS), pl.col("body")).filter(
        pl.col("author") != "[deleted]",
        pl.col("parent_id") == pl.col("link_id"),
        pl.col("score").is_not_null(),
        ~pl.col("score_hidden").fill_null(False),
    )
    comments = first(comments, pl.col("text"), 5, 400).with_columns(post_id=pl.col("link_id").str.slice(3))
    writers = kept.lazy().select("post_id", poster="author")
    replies = (
        comments.join(writers, on="post_id")
        .filter((pl.col("poster") == "[deleted]") | (pl.col("author") != pl.col("poster")))
        .filter(pl.col("id").hash().rank("ordinal").over("post_id") <= 200)
        .select("id", "post_id", "text", "created_utc", "score", author_hash=pl.col("author").hash(7))
        .sort("post_id", "created_utc", "id")
        .collect()
    )
    lists = replies.group_by("post_id").agg(
        pl.struct("id", "author_hash", "text", "created_utc", "score").alias("comments")
    )
    threads = kept.join(lists, on="post_id", how="left").with_columns(
        author_hash=pl.col("author").hash(7),
        split=pl.when(pl.col("author").hash(1) % 100 < 90).then(pl.lit("train")).otherwise(pl.lit("test")),
    )
    threads.drop("author").sort("post_id").write_parquet(output / "threads.parquet", compression="zstd")
    pairs = pairs_of(replies, pl, PAIRS)
    pairs.join(kept.select("post_id", "title", post="text"), on="post_id").write_parquet(
        output / "pairs.parquet", compression="zstd"
    )
    counts = {"posts": kept.height, "comments": replies.height, "pairs": pairs.height}
    return {"began": began, "ended": time.time()} | counts


def rows_rules(pl: Any) -> list[Any]:
    """What posts and comments are asked alike."""
    from benchmarks.corpus_ways import FROZEN, GONE, SETTINGS
    from pipelines.corpus.cleaning import LINK

    cleaning = SETTINGS.cleaning
    names, others, signed = (
        "|".join(f"(?:{one})" for one in many)
        for many in (cleaning.bot_names, cleaning.bot_names_except, cleaning.bot_texts)
    )
    author, text, created = pl.col("author"), pl.col("text"), pl.col("created_utc")
    listed = author.str.to_lowercase().is_in([name.lower() for name in cleaning.bots])
    bot = listed | (author.str.contains(names) & ~author.str.contains(others)) | text.str.contains(f"(?i){signed}")
    beside = text.str.replace_all(LINK, " ").str.count_matches(r"\pL[\pL']*")
    frozen = [~created.is_between(start, end, closed="left") for start, end in FROZEN]
    return [
        ~text.str.to_lowercase().is_in(list(GONE)),
        pl.col("distinguished").is_null(),
        ~pl.col("stickied").fill_null(False),
        *frozen,
        ~bot,
        ~(text.str.contains(LINK) & (beside <= cleaning.link_only_words)),
    ]


def pairs_of(replies: Any, pl: Any, settings: Any) -> Any:
    """The pairs of the rule ``shp``, five a post."""
    chosen = replies.lazy().select("post_id", chosen_id="id", chosen_text="text", high="score", late="created_utc")
    rejected = replies.lazy().select(
        "post_id", rejected_id="id", rejected_text="text", low="score", early="created_utc"
    )
    high, low = pl.col("high"), pl.col("low")
    fine = (high > low) & (low >= settings.min_score) & (high >= settings.min_ratio * low)
    return (
        chosen.join(rejected, on="post_id")
        .filter(fine & (pl.col("late") >= pl.col("early")))
        .with_columns(ratio=high / pl.max_horizontal(low, 1), gap=high - low)
        .sort("ratio", "gap", "chosen_id", "rejected_id", descending=[True, True, False, False])
        .group_by("post_id", maintain_order=True)
        .head(settings.max_per_post)
        .collect()
    )
