"""The corpus stage: from dumps to threads, with an account of every line.

    read -> clean -> duplicates (by text) -> thread (by post) -> write

``flow`` runs these steps on Ray Data; here is what frames them: which files are read,
what outcome is refused, and what the manifest tells.
"""

import logging
import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import ray

from configs.corpus import CleaningSettings, CorpusSettings
from configs.errors import DataError, UsageError
from configs.load import to_yaml
from configs.settings import Settings
from pipelines.card import card_of
from pipelines.corpus import flow, scrub_report, sources
from pipelines.corpus.authors import author_key, given_key, key_check
from pipelines.corpus.datasource import DumpDatasource
from pipelines.corpus.decoding import window
from pipelines.corpus.notes import Account, record_rows
from pipelines.corpus.reader import Dump, ReadOptions
from pipelines.corpus.schema import COMMENT, POST, THREAD
from pipelines.corpus.threads import Scrub
from pipelines.forgetting import kept
from pipelines.forgetting.files import clean_quarantine
from pipelines.forgetting.kept import NOTHING, Forgotten
from pipelines.manifest import Draft, Input, Manifest, fingerprints, writing

STAGE = "corpus"
LONG_WINDOW = 128 << 20
"""Decoding windows up to this many bytes fit into any task; longer ones ask Ray for memory."""
SHARED_TIMES = 0.9
"""Share of comments with another's timestamp in their thread above which timestamps are called unusable."""
log = logging.getLogger("llumi.corpus")


def depends(settings: Settings) -> dict[str, Any]:
    """The settings that threads depend on, and what was forgotten; dumps are inputs, memory is no matter."""
    found = settings.corpus.model_dump(mode="json", exclude={"posts", "comments", "read_mb", "reader_memory_gb"})
    key = given_key(Path(settings.output), settings.corpus.scrub.author_key)
    found["author_key"] = None if key is None else key_check(key)
    return found | kept.depends(Path(settings.output), settings.corpus.scrub.author_key)


def build(settings: Settings, inputs: Mapping[str, Input], output: Path) -> Manifest:
    """Threads from the dumps under ``posts`` and ``comments`` of ``inputs``, as Parquet of THREAD.

    Raises MissingInput or DataError naming the file or the setting at fault.
    """
    dumps = dumps_of(inputs)
    gone = kept.load(Path(settings.output), settings.corpus.scrub.author_key)  # before a lost key is made anew
    key = author_key(Path(settings.output), settings.corpus.scrub.author_key)
    scrub_report.check(settings.corpus.scrub)
    with writing(
        output,
        stage=STAGE,
        settings=depends(settings),
        inputs=fingerprints(inputs),
        resolved=to_yaml(settings),
        card=card_of(settings, inputs),
    ) as draft:
        quarantine = draft.path.resolve() / "quarantine"
        quarantine.mkdir()
        log.info("reading %d dump files", len(dumps))
        account = run(settings.corpus, dumps, draft.path.resolve(), key, gone=gone)
        clean_quarantine(quarantine, gone)
        check(account, settings.corpus, dumps)
        for kind, name in ((POST, "posts"), (COMMENT, "comments")):
            record_rows(draft, name, account[kind])
        record_figures(draft, account)
        scrub_report.record(draft, settings.corpus.scrub)
        draft.figures["author_key"] = key_check(key)
        if not any(quarantine.iterdir()):
            quarantine.rmdir()
    assert draft.manifest is not None
    return draft.manifest


def dumps_of(inputs: Mapping[str, Input]) -> list[Dump]:
    """Each dump file once; raises UsageError without posts or comments, DataError for a file given as both."""
    dumps = []
    for kind, name in ((POST, "posts"), (COMMENT, "comments")):
        given = inputs.get(name, ())
        globs: list[str | Path] = [given] if isinstance(given, str | Path) else list(given)
        if not globs:
            raise UsageError(
                f"corpus.{name} names no dump files; set it to globs such as {'RS' if kind == POST else 'RC'}_*.zst"
            )
        dumps += [Dump(kind, location) for location in sources.expand(globs)]
    twice = [file for file, n in Counter(dump.location for dump in dumps).items() if n > 1]
    if twice:
        raise DataError(f"{twice[0]}: given under corpus.posts and corpus.comments; a dump holds one of them")
    copies = sources.repeated(dump.location for dump in dumps)
    if copies:
        raise DataError(f"{copies[1]}: holds the same bytes as {copies[0]}; leave one of them out")
    return dumps


def run(
    settings: CorpusSettings,
    dumps: Sequence[Dump],
    folder: Path,
    key: bytes,
    scrub: Scrub | None = None,
    gone: Forgotten = NOTHING,
) -> Account:
    """Write threads below ``folder`` and account for every row; ``scrub`` and ``gone`` as in ``flow.run``."""
    wanted = frozenset(name.removeprefix("r/").lower() for name in settings.subreddits)
    options = ReadOptions(wanted, settings.max_malformed_share, folder / "quarantine")
    source = DumpDatasource(dumps, options, int(settings.read_mb * 1e6))
    rows = ray.data.read_datasource(source, override_num_blocks=len(source.pieces), memory=read_memory(settings, dumps))
    account = flow.run(rows, settings, flow.partitions_for(settings, dumps), folder, key, scrub, gone)
    shutil.rmtree(folder / "scratch")
    return account


def read_memory(settings: CorpusSettings, dumps: Sequence[Dump]) -> float | None:
    """Logical memory (bytes) a read task asks for: only for long windows, and no more than a node has."""
    if max(window(dump.location) for dump in dumps) <= LONG_WINDOW:
        return None
    return flow.within_a_node(settings.reader_memory_gb * 1e9)


def check(account: Account, settings: CorpusSettings, dumps: Sequence[Dump]) -> None:
    """Refuse an outcome that nobody can have meant; raises DataError saying what to change."""
    seen = account[f"seen:{POST}"]
    names = {str(name).lower() for name in seen}
    missing = [name for name in settings.subreddits if name.removeprefix("r/").lower() not in names]
    if missing:
        common = ", ".join(str(name) for name, _ in seen.most_common(10)) or "none"
        raise DataError(f"no posts of {', '.join(missing)} (corpus.subreddits) in the dumps; seen there: {common}")
    for kind in (POST, COMMENT):
        ends = account[kind]
        if ends[None]:
            continue
        if kind == COMMENT and ends["post_missing"]:
            raise DataError(
                f"none of {ends['post_missing']:,} comments has its post in the dumps; give post and comment dumps of"
                f" the same months and communities ({', '.join(Path(dump.location).name for dump in dumps[:6])})"
            )
        reasons = ", ".join(f"{reason} {count:,}" for reason, count in ends.most_common(5) if reason)
        switches = (name for name, _ in ends.most_common() if f"drop_{name}" in CleaningSettings.model_fields)
        way_out = "".join(f" (corpus.cleaning.drop_{name}=false keeps those)" for name in list(switches)[:1])
        raise DataError(f"no {kind} is left of {ends.total():,} lines read; dropped: {reasons or 'nothing'}{way_out}")


def record_figures(draft: Draft, account: Account) -> None:
    """What a reader of the manifest wants to know about the threads."""

    def table(column: str) -> dict[str, dict[str, int]]:
        posts, comments = account[f"threads:{column}"], account[f"comments:{column}"]
        return {str(name): {"posts": n, "comments": comments[name]} for name, n in posts.most_common()}

    times = account["times"]
    share = times["shared"] / times["all"] if times["all"] else 0.0
    draft.figures |= {
        "subreddits": table("subreddit"),
        "splits": table("split"),
        "posts_with_comments": account["threads"]["with_comments"],
        "dates": dates(sorted(draft.path.glob("*.parquet"))),
        "shared_timestamps": round(share, 4),
        "usable_timestamps": share <= SHARED_TIMES,
    }
    if share > SHARED_TIMES:
        draft.notes.append(
            f"{share:.0%} of comments share their timestamp with another one of their thread: these dumps do not tell"
            " the order of arrival, so pairs cannot be freed of its influence on votes."
        )


def dates(files: Sequence[Path]) -> dict[str, str]:
    """First and last day (UTC) of posting, from the Parquet files' statistics."""
    column = THREAD.get_field_index("created_utc")
    bounds: list[int] = []
    for file in files:
        metadata = pq.read_metadata(file)
        for group in range(metadata.num_row_groups):
            statistics = metadata.row_group(group).column(column).statistics
            bounds += [statistics.min, statistics.max]
    first, last = (datetime.fromtimestamp(t, UTC).date().isoformat() for t in (min(bounds), max(bounds)))
    return {"first_post": first, "last_post": last}
