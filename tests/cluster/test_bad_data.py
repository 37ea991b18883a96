"""Damaged or unfitting dumps: one line that names the file or setting, exit code 1, no half-written output."""

import json
from pathlib import Path

import pytest
import zstandard

from cluster.cli import main
from configs.corpus import SampleSettings
from pipelines import manifest
from pipelines.sample.build import build

KEPT = {".lock", "author.key"}  # the lock, and the key that authors are hashed with: neither is an output


@pytest.fixture(scope="module")
def dumps(tmp_path_factory) -> Path:
    """A small sample's dump files."""
    folder: Path = tmp_path_factory.mktemp("dumps") / "sample"
    build(SampleSettings(threads=40, seed=5), folder)
    return folder


@pytest.fixture
def corpus(dumps, tmp_path, capsys, ray_cluster):
    """Runs ``llumi corpus`` on the sample's dumps with one more file each; returns exit code and stderr."""

    def call(posts: str = "", comments: str = "", *overrides: str) -> tuple[int, str]:
        globs = {"posts": [str(dumps / "RS_*.zst"), posts], "comments": [str(dumps / "RC_*.zst"), comments]}
        options = [f"corpus.{name}={json.dumps([g for g in given if g])}" for name, given in globs.items()]
        options += [f"output={tmp_path / 'out'}", *overrides]
        arguments = [part for option in options for part in ("--set", option)]
        with pytest.raises(SystemExit) as ended:
            main(["corpus", "tiny", *arguments])
            raise SystemExit(0)
        shown = capsys.readouterr().err
        assert "Traceback" not in shown
        return int(ended.value.code or 0), shown

    return call


def nothing_left(folder: Path) -> bool:
    """Whether no output and nothing half-written lies below ``folder``."""
    return [path for path in folder.rglob("*") if path.is_file() and path.name not in KEPT] == []


def write(path: Path, *lines: str) -> str:
    path.write_bytes(zstandard.ZstdCompressor().compress("".join(f"{line}\n" for line in lines).encode()))
    return str(path)


def test_the_sample_itself_passes(corpus, tmp_path):
    assert corpus()[0] == 0
    assert manifest.read(tmp_path / "out" / "threads") is not None


def test_a_truncated_dump_is_named(corpus, dumps, tmp_path):
    whole = sorted(dumps.glob("RS_*.zst"))[0].read_bytes()
    cut = tmp_path / "RS_cut.zst"
    cut.write_bytes(whole[: len(whole) // 2])
    code, shown = corpus(str(cut))
    assert code == 1
    assert str(cut) in shown.splitlines()[-1]
    assert shown.splitlines()[-1].startswith("error: ")
    assert nothing_left(tmp_path / "out")


def test_a_file_that_is_no_zst_is_named(corpus, tmp_path):
    path = tmp_path / "RS_text.zst"
    path.write_text("this is text", encoding="utf-8")
    code, shown = corpus(str(path))
    assert code == 1
    assert str(path) in shown.splitlines()[-1]


def test_lines_that_are_no_json_beyond_the_tolerated_share_name_file_and_setting(corpus, tmp_path):
    path = write(tmp_path / "RC_bad.zst", *["{not json"] * 50)
    code, shown = corpus("", path)
    assert code == 1
    assert path in shown.splitlines()[-1]
    assert "{not json" not in shown
    assert nothing_left(tmp_path / "out")


def test_a_comment_without_its_post_is_counted_and_no_error(corpus, tmp_path):
    row = {"id": "zzz1", "link_id": "t3_nowhere", "parent_id": "t3_nowhere", "author": "somebody", "score": 3}
    row |= {"subreddit": "x", "created_utc": 1550000000, "body": "A reply to a post that is in none of the dumps."}
    code, _ = corpus("", write(tmp_path / "RC_orphan.zst", json.dumps(row)))
    assert code == 0
    made = manifest.read(tmp_path / "out" / "threads")
    assert made is not None
    assert any("post" in reason for count in made.rows.values() for reason in count.dropped)


def test_a_subreddit_without_rows_is_named(corpus, tmp_path):
    code, shown = corpus("", "", "corpus.subreddits=[nosuchplace]")
    assert code == 1
    assert "nosuchplace" in shown.splitlines()[-1]
    assert nothing_left(tmp_path / "out")
