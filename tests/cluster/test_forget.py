"""``llumi forget`` on what the stages really made of the built-in sample, and what it tells."""

import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import lancedb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from rich.console import Console

from cluster.cli import main
from cluster.forget import lines, trained_on_forgotten
from cluster.runner import Runner, locked
from cluster.stages import table
from configs import Settings, load
from pipelines import manifest
from pipelines.corpus.authors import author_hash, author_key
from pipelines.forgetting import kept
from pipelines.forgetting.report import Report
from pipelines.layout import Layout
from pipelines.manifest import CARD
from tests.pipelines.forgetting.world import World, files_with, strings, words

DATA = {"sample", "corpus", "exposure", "retrieval", "revisions", "sft", "pairs", "feedback"}
OVERRIDES = ("sample.threads=90", "retrieval.examples=1", "feedback.panel.items=40")


@dataclass
class Done:
    """A run's data stages, what was asked to be forgotten, its texts, and what the command told."""

    settings: Settings
    ids: Path
    texts: set[str]
    report: Report
    before: dict[str, int]
    """Rows of each output, by its folder and kind."""

    @property
    def root(self) -> Path:
        return Path(self.settings.output)


def overrides(root: Path) -> list[str]:
    return [item for text in (f"output={root}", *OVERRIDES) for item in ("--set", text)]


def build(settings: Settings) -> dict[str, str]:
    """Bring the data stages up to date; their outcomes."""
    stages = table(settings)
    plan = [stage for stage in stages if stage.name.split("/")[0] in DATA]
    made = Runner(settings, stages, console=Console(quiet=True)).run(plan)
    return {outcome.stage: outcome.status for outcome in made}


def threads_of(root: Path) -> list[dict[str, Any]]:
    files = sorted((root / "threads").glob("*.parquet"))
    return pa.concat_tables([pq.read_table(file) for file in files]).sort_by("post_id").to_pylist()


def names_in(sample: Path) -> dict[str, str]:
    """Who wrote what, by id, as the dumps say."""
    found = {}
    for path in sample.glob("R?_*.zst"):
        with path.open("rb") as file:
            dump = zstandard.ZstdDecompressor(max_window_size=2**31).stream_reader(file).read()
        for line in dump.splitlines():
            try:
                row = json.loads(line)
                found[row["id"]] = row["author"]
            except (ValueError, LookupError):
                continue
    return found


def chosen(root: Path) -> list[str]:
    """Requests that reach every output: two posts, an example, a draft, an author."""
    revised = pq.read_table(root / "sft" / "im" / "train", partitioning=None).to_pylist()
    example = next(row["example_ids"][0] for row in revised if row["example_ids"])
    threads, names = threads_of(root), names_in(root / "sample")
    posts = {
        split: next(t["post_id"] for t in threads if t["split"] == split and t["comments"])
        for split in ("train", "test")
    }
    rated = json.loads((root / "ratings" / "ratings.jsonl").read_text().splitlines()[0])
    author = names[next(c["comment_id"] for t in threads for c in t["comments"][1:] if t["split"] == "train")]
    asked = {f"t3_{post}" for post in posts.values()} | {f"t3_{rated['post_id']}"}
    return sorted({*asked, f"t1_{example}", f"t1_{revised[-1]['original_id']}", f"u/{author}"})


def texts_of(threads: list[dict[str, Any]], requests: list[str], key: bytes) -> set[str]:
    """The texts that have to go, those left out that are part of one that stays."""
    asked = {
        prefix: {name[len(prefix) :] for name in requests if name.startswith(prefix)} for prefix in ("t3_", "t1_", "u/")
    }
    authors = {author_hash(name, key) for name in asked["u/"]}
    gone: set[str] = set()
    stay: set[str] = set()
    for thread in threads:
        post = thread["post_id"] in asked["t3_"] or thread["author_hash"] in authors
        (gone if post else stay).update([thread["text"], thread["title"]])
        for comment in thread["comments"]:
            own = comment["comment_id"] in asked["t1_"] or comment["author_hash"] in authors
            (gone if post or own else stay).add(comment["text"])
    return {text for text in gone if text and not any(text in other for other in stay)}


def held(root: Path, texts: set[str]) -> dict[str, int]:
    """How many of the texts stand in each file below ``root`` but the dumps, and in the tables of the index."""
    haystacks: dict[str, list[Any]] = {}
    for path in (path for path in root.rglob("*") if path.is_file()):
        name = path.relative_to(root)
        if name.parts[0] == "sample":
            continue
        if path.suffix == ".parquet":
            haystacks[str(name)] = strings(pq.read_table(path, partitioning=None).to_pylist())
        else:
            haystacks[str(name)] = [path.read_bytes()]
    database = lancedb.connect(str(root / "retrieval" / "index"))
    for name in database.table_names():
        opened = database.open_table(name)
        haystacks[f"index:{name}"] = strings(opened.to_arrow().to_pylist())
        assert len(opened.list_versions()) == 1, "no earlier version of the index is left"

    def stands(text: str, haystack: list[Any]) -> bool:
        return any((text if isinstance(part, str) else text.encode()) in part for part in haystack)

    counts = {name: sum(stands(text, haystack) for text in texts) for name, haystack in haystacks.items()}
    return {name: n for name, n in counts.items() if n}


def counts(root: Path) -> dict[str, int]:
    """Rows kept by every output."""
    found = {
        path.name: manifest.read(path) for path in sorted(root.iterdir()) if path.is_dir() and path.name != "sample"
    }
    return {f"{name}/{kind}": n.kept for name, made in found.items() if made for kind, n in made.rows.items()}


@pytest.fixture(scope="module")
def done(ray_cluster: None, tmp_path_factory: pytest.TempPathFactory) -> Done:
    """The data stages of a small sample, and a request that reached all of them."""
    folder = tmp_path_factory.mktemp("forget")
    settings = load("demo", [f"output={folder / 'run'}", *OVERRIDES])
    build(settings)
    root = Path(settings.output)
    requests, before = chosen(root), counts(root)
    texts = texts_of(threads_of(root), requests, author_key(root))
    reached = {name.split("/")[0] for name in held(root, texts)}
    assert {"threads", "sft", "pairs", "retrieval", "ratings", "rated_pairs", "index:entries"} <= reached
    ids = folder / "ids.txt"
    ids.write_text("\n".join(["# by mail", *requests]) + "\n")
    report = folder / "report.json"
    with pytest.MonkeyPatch.context() as patch, report.open("w") as file, pytest.raises(SystemExit) as ended:
        patch.setattr("sys.stdout", file)
        main(["forget", "demo", str(ids), "--json", *overrides(root)])
    assert not ended.value.code
    return Done(settings, ids, texts, Report.model_validate_json(report.read_text()), before)


def test_no_file_of_the_whole_output_holds_a_removed_text(done: Done) -> None:
    assert len(done.texts) > 15
    assert held(done.root, done.texts) == {}
    assert done.report.unknown == []
    assert {c.output for c in done.report.changes if c.action == "rows"} >= {
        "threads",
        "sft",
        "pairs",
        "retrieval",
        "ratings",
    }


def test_rows_stay_conserved_and_what_the_report_says_is_what_the_manifests_say(done: Done) -> None:
    after = counts(done.root)
    for change in done.report.changes:
        made = manifest.read(done.root / change.output)
        assert made is not None
        for kind, n in made.rows.items():  # reading it has checked that they add up
            lost = done.before[f"{change.output}/{kind}"] - after[f"{change.output}/{kind}"]
            assert n.dropped.get("forgotten", 0) == lost
            if kind in change.rows:
                assert change.rows[kind] == lost
    for name in ("sft", "pairs"):
        for model in ("gm", "im"):
            files = (done.root / name / model).rglob("*.parquet")
            assert after[f"{name}/{model}"] == sum(pq.read_metadata(file).num_rows for file in files)


def test_a_run_after_forgetting_keeps_every_data_stage(done: Done) -> None:
    assert set(build(done.settings).values()) == {"kept"}


@pytest.mark.slow
def test_threads_made_again_from_the_same_dumps_are_those_that_forgetting_left(done: Done) -> None:
    left, made = threads_of(done.root), manifest.read(done.root / "threads")
    stages = {stage.name: stage for stage in table(done.settings)}
    stages["corpus"].make(done.settings)
    again = manifest.read(done.root / "threads")
    assert threads_of(done.root) == left
    assert made is not None and again is not None
    assert (again.key, again.rows) == (made.key, made.rows)
    assert again.rows["comments"].dropped["forgotten"] > 5
    outcomes = build(done.settings)  # the threads' manifest is another one, so all that follows is made again
    assert outcomes["corpus"] == "kept" and outcomes["pairs"] == "made"
    assert held(done.root, done.texts) == {}


def test_every_data_output_has_a_card_that_names_nobody_and_holds_no_text(done: Done) -> None:
    names = {
        name for name in names_in(done.root / "sample").values() if name and name not in {"[deleted]", "AutoModerator"}
    }
    texts = {text for t in threads_of(done.root) for text in (t["text"], *(c["text"] for c in t["comments"])) if text}
    for output in ("threads", "sft", "pairs", "revisions", "rated_pairs", "retrieval"):
        card = (done.root / output / CARD).read_text()
        made = manifest.read(done.root / output)
        assert made is not None and made.key in card
        told = card.replace("u/<author>", "")
        assert [name for name in names if name in told] == [], output
        assert [text for text in texts if text in told] == [], output
        for kind, n in made.rows.items():
            assert f"| {kind.replace('_', ' ')} | {n.read:,} | {n.kept:,} | {n.read - n.kept:,} |" in card


# What is told, on a world of files.


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path / "run").everything()


def forget(world: World, folder: Path, capsys: pytest.CaptureFixture[str], text: str, *options: str) -> tuple[int, str]:
    """Exit code and what stands on stdout and stderr."""
    ids = folder / "ids.txt"
    ids.write_text(text)
    given = ["--set", f"output={world.root}", "--set", "feedback.panel={}", "--set", "sample={}", *options]
    with pytest.raises(SystemExit) as ended:
        main(["forget", "tiny", str(ids), *given])
    shown = capsys.readouterr()
    return int(ended.value.code or 0), shown.out + shown.err


def test_people_read_what_went_what_was_trained_on_it_and_what_to_do(
    world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, shown = forget(world, tmp_path, capsys, "t1_c0x2\nt1_zzz\n", "--dry-run")
    assert code == 0 and "dry run: nothing was changed" in shown and "would be removed: 1 of 6 gm" in shown
    code, shown = forget(world, tmp_path, capsys, "t1_c0x2\nt1_zzz\n")
    assert code == 0
    assert "threads: removed: 1 of 18 comments" in shown
    assert "tokens/gm/sft: removed whole: it held 1 removed training rows" in shown
    assert "not found in the threads, kept out of later builds all the same: t1_zzz" in shown
    assert "  models/gm\n" in shown and "`llumi run tiny` trains again" in shown
    warnings = trained_on_forgotten(world.settings)
    assert len(warnings) == 2 and "models/gm was trained on rows that were forgotten since" in warnings[0]


def test_a_bad_line_is_one_error_and_nothing_is_touched(
    world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, shown = forget(world, tmp_path, capsys, "t3_p0\nsomebody\n")
    assert code == 2 and shown.count("\n") == 1 and "ids.txt:2" in shown and "somebody" not in shown
    assert files_with(world.root, words("p0"))


def test_an_output_that_is_being_written_is_left_alone(
    world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with locked(world.root):
        code, shown = forget(world, tmp_path, capsys, "t3_p0\n")
    assert code == 2 and "is being written by process" in shown
    assert files_with(world.root, words("p0"))


def test_a_rating_file_elsewhere_is_named_and_the_exit_code_says_that_something_is_left_to_do(
    world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = tmp_path / "given.jsonl"
    given.write_bytes((world.at.ratings / "ratings.jsonl").read_bytes())
    code, shown = forget(world, tmp_path, capsys, "t3_p1\n", "--set", f"feedback.ratings=[{given}]")
    assert code == 3
    assert f"{given} holds 2 lines of it" in shown


class Health(BaseHTTPRequestHandler):
    """What a service of ours answers when it is asked how it is."""

    def do_GET(self) -> None:
        body = json.dumps({"status": "ok"}).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def port() -> Iterator[int]:
    server = HTTPServer(("127.0.0.1", 0), Health)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_port
    server.shutdown()


def test_a_service_that_answers_is_named_where_its_models_are_affected(
    world: World, tmp_path: Path, port: int, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _ = forget(world, tmp_path, capsys, "t3_p5\n", "--set", f"serving.port={port}")
    assert code == 0, "a test post went into no model"
    code, shown = forget(world, tmp_path, capsys, "t1_c1x0\n", "--json", "--set", f"serving.port={port}")
    report = json.loads(shown)
    assert code == 3
    assert report["served"] == [{"url": f"http://127.0.0.1:{port}", "models": ["im"]}]
    assert any("stop it" in line for line in lines(Report.model_validate(report)))


def test_whoever_takes_the_lock_next_finishes_what_a_killed_forgetting_had_decided(world: World) -> None:
    from pipelines.forgetting.staging import FOLDER, JOURNAL, Staging

    staging = Staging(world.root)
    staging.place(world.root / kept.FILE).write_text("decided")
    (world.root / FOLDER / JOURNAL).write_text(json.dumps(staging.operations))
    with locked(world.root):
        assert (world.root / kept.FILE).read_text() == "decided"
    assert not (world.root / FOLDER).exists()
    assert Layout(world.root).threads.is_dir()
