"""Every line of a dump leaves as a row or in a tally."""

from collections import Counter
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from configs.errors import DataError
from pipelines.corpus import reader
from pipelines.corpus.reader import Dump, ReadOptions, matching_lines, read_dump
from tests.pipelines.corpus.dumps import comment, post, zst


def read(path: Path, kind: str = "comment", wanted: tuple[str, ...] = (), **options: Any) -> pa.Table:
    """The dump's rows and tallies, as one table."""
    chosen = {"max_malformed_share": 1.0} | options
    return pa.concat_tables(read_dump(Dump(kind, str(path)), ReadOptions(frozenset(wanted), **chosen)))


def ends(table: pa.Table) -> Counter[str | None]:
    """Lines by reason (None: a row)."""
    counts: Counter[str | None] = Counter()
    for row in table.to_pylist():
        if row["kind"] != "seen":
            counts[row["dropped"]] += row["count"]
    return counts


def test_rows_of_other_communities_are_counted_without_being_parsed(tmp_path: Path) -> None:
    rows = [comment(f"c{i}", "p", subreddit=("Quiet", "Loud", "quiet")[i % 3]) for i in range(5000)]
    got = read(zst(tmp_path / "RC.zst", rows), wanted=("quiet",))
    assert ends(got) == {None: 3333, "other_subreddit": 1667}
    assert set(got["subreddit"].drop_null().to_pylist()) == {"Quiet", "quiet", "Loud"}


def test_the_name_inside_a_text_or_a_crosspost_does_not_make_a_row(tmp_path: Path) -> None:
    inside = post("a", subreddit="Loud", crosspost_parent_list=[{"subreddit": "Quiet"}])
    quoted = post("b", subreddit="Loud", selftext='they said "subreddit":"Quiet" to me')
    rows = [post("x", subreddit="Loud")] * reader.PROBE + [inside, quoted, post("c")]
    got = read(zst(tmp_path / "RS.zst", rows), kind="post", wanted=("quiet",))
    assert ends(got) == {None: 1, "other_subreddit": reader.PROBE + 2}


def test_spaces_in_the_json_do_not_hide_a_row(tmp_path: Path) -> None:
    spaced = orjson.dumps(comment("c", "p")).replace(b'"subreddit":"', b'"subreddit" : "')
    rows = [comment("x", "p", subreddit="Loud")] * reader.PROBE + [spaced]
    assert ends(read(zst(tmp_path / "RC.zst", rows), wanted=("quiet",)))[None] == 1


@settings(max_examples=60, deadline=None)
@given(
    kinds=st.lists(st.sampled_from(["wanted", "other", "broken", "blank", "incomplete"]), max_size=60),
    ended=st.booleans(),
    size=st.integers(50, 900),
    probe=st.integers(0, 10),
    searching=st.booleans(),
)
def test_every_line_is_accounted_for_wherever_blocks_are_cut(
    tmp_path_factory: pytest.TempPathFactory, kinds: list[str], ended: bool, size: int, probe: int, searching: bool
) -> None:
    made = {
        "wanted": orjson.dumps(comment("c", "p")),
        "other": orjson.dumps(comment("c", "p", subreddit="Loud")),
        "broken": b'{"subreddit":"Quiet", "body',
        "blank": b"",
        "incomplete": orjson.dumps({"subreddit": "Quiet", "id": "c"}),
    }
    data = b"\n".join(made[kind] for kind in kinds) + (b"\n" if ended and kinds else b"")
    path = tmp_path_factory.mktemp("dump") / "RC.ndjson"
    path.write_bytes(data)
    lines = data.count(b"\n") + (bool(data) and not data.endswith(b"\n"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reader, "PROBE", probe)
        patch.setattr(reader, "blocks", lambda location: _cut(data, size))
        got = ends(read(path, wanted=("quiet",) if searching else ()))
    assert got.total() == lines
    assert got[None] == kinds.count("wanted") + (0 if searching else kinds.count("other"))
    assert got["malformed"] == kinds.count("broken")
    assert got["incomplete"] == kinds.count("incomplete")


def _cut(data: bytes, size: int) -> list[bytes]:
    """Blocks of whole lines, about ``size`` bytes each."""
    blocks, block = [], b""
    for line in data.splitlines(keepends=True):
        block += line
        if len(block) >= size:
            blocks.append(block)
            block = b""
    return [*blocks, block] if block else blocks


def test_matching_lines_are_found_at_both_ends_of_a_block() -> None:
    block = b"hit one\nmiss\nhit two hit\nmiss\nlast hit"
    found = [block[a:b] for a, b in matching_lines(block, reader.re.compile(b"hit"))]
    assert found == [b"hit one", b"hit two hit", b"last hit"]


def test_lone_surrogates_and_duplicate_keys_are_read(tmp_path: Path) -> None:
    line = orjson.dumps(comment("c", "p", body="x", created_utc="1617235200", score=None))
    line = line.replace(b'"body":"x"', rb'"body":"x","body":"sad \ud83d"')
    got = read(zst(tmp_path / "RC.zst", [line]))
    assert got["text"].to_pylist()[0] == "sad \ufffd"
    assert got["score"].to_pylist()[0] is None


@pytest.mark.parametrize("line", [b"[]", b'"text"', b"null", b"{", b"\xff\xfe{}", b"[" * 100_000])
def test_what_is_no_json_object_goes_to_quarantine_with_file_line_and_reason(tmp_path: Path, line: bytes) -> None:
    path = zst(tmp_path / "RC.zst", [comment("a", "p"), line, comment("b", "p")])
    assert ends(read(path, quarantine=tmp_path)) == {None: 2, "malformed": 1}
    (file,) = tmp_path.glob("comments-*.jsonl")
    (entry,) = map(orjson.loads, file.read_bytes().splitlines())
    assert (entry["file"], entry["line"], entry["reason"]) == (str(path), 2, "malformed")
    assert entry["text"] == line.decode("utf-8", "replace")


def test_reading_again_overwrites_the_quarantine(tmp_path: Path) -> None:
    path = zst(tmp_path / "RC.zst", [comment("a", "p"), b"{"])
    for _ in range(2):
        read(path, quarantine=tmp_path)
    (file,) = tmp_path.glob("*.jsonl")
    assert len(file.read_bytes().splitlines()) == 1


def test_a_file_with_too_many_bad_lines_is_refused_with_the_first_of_them(tmp_path: Path) -> None:
    path = zst(tmp_path / "RC.zst", [comment("a", "p")] * 90 + [b"{"] * 10)
    with pytest.raises(DataError, match=r"RC\.zst: 10 of 100 lines .*max_malformed_share=0\.05; the first is line 91"):
        read(path, max_malformed_share=0.05)


def test_a_file_that_is_no_json_is_refused_even_when_searched_for_names(tmp_path: Path) -> None:
    path = tmp_path / "RC.ndjson"
    path.write_bytes(b"once upon a time\n" * 5000)
    with pytest.raises(DataError, match=r"RC\.ndjson: 1,000 of 1,000 lines .*the first is line 1"):
        read(path, wanted=("quiet",), max_malformed_share=0.01)


def test_the_text_of_a_bad_line_is_in_no_message(tmp_path: Path) -> None:
    path = zst(tmp_path / "RC.zst", [b"secret words of somebody"] * 3)
    with pytest.raises(DataError) as caught:
        read(path, max_malformed_share=0.0)
    assert "secret" not in str(caught.value)


def test_a_dump_of_the_other_kind_is_refused_with_its_name(tmp_path: Path) -> None:
    comments = zst(tmp_path / "RC.zst", [comment("a", "p")])
    with pytest.raises(
        DataError, match=r"RC\.zst: line 1 is a comment, but .* corpus\.posts; give it under corpus\.comm"
    ):
        read(comments, kind="post", wanted=("elsewhere",))
    posts = zst(tmp_path / "RS.zst", [post("a")])
    with pytest.raises(DataError, match=r"RS\.zst: line 1 is a post"):
        read(posts, kind="comment")


def test_tables_are_handed_on_before_the_file_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader, "TABLE_ROWS", 100)
    path = zst(tmp_path / "RC.zst", [comment(f"c{i}", "p") for i in range(250)])
    sizes = [table.num_rows for table in read_dump(Dump("comment", str(path)), ReadOptions(frozenset(), 0.0))]
    assert sizes[:2] == [100, 100]
    assert sum(sizes) == 251
