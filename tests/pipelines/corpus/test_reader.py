"""Every line of a dump leaves as a row or in a tally."""

from collections import Counter
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.compute as pc
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from configs.errors import DataError
from pipelines.corpus import decoding, reader
from pipelines.corpus.datasource import cut
from pipelines.corpus.reader import Dump, ReadOptions, read_dump
from tests.pipelines.corpus.dumps import comment, post, zst, zst_of_frames


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


LINES = {
    "wanted": orjson.dumps(comment("c", "p")),
    "other": orjson.dumps(comment("c", "p", subreddit="Loud")),
    "broken": b'{"subreddit":"Quiet", "body',
    "returned": orjson.dumps(comment("c", "p")) + b"\r",
    "blank": b"",
    "incomplete": orjson.dumps({"subreddit": "Quiet", "id": "c"}),
}


@settings(max_examples=150, deadline=None)
@given(
    kinds=st.lists(st.sampled_from(sorted(LINES)), max_size=60),
    ended=st.booleans(),
    frame=st.integers(1, 3000),
    skippable=st.booleans(),
    piece=st.integers(20, 2000),
    block=st.integers(50, 900),
    probe=st.integers(0, 10),
    searching=st.booleans(),
)
def test_every_line_comes_out_once_however_frames_pieces_and_blocks_are_cut(
    tmp_path_factory: pytest.TempPathFactory,
    kinds: list[str],
    ended: bool,
    frame: int,
    skippable: bool,
    piece: int,
    block: int,
    probe: int,
    searching: bool,
) -> None:
    named = [LINES[kind].replace(b'"c"', b'"c%d"' % number) for number, kind in enumerate(kinds)]
    data = b"\n".join(named) + (b"\n" if ended and kinds else b"")
    path = zst_of_frames(tmp_path_factory.mktemp("dump") / "RC.zst", data, frame, skippable)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reader, "PROBE", probe)
        patch.setattr(decoding, "BLOCK", block)
        chosen = ReadOptions(frozenset({"quiet"} if searching else ()), 1.0)
        tables = [table for part in cut(Dump("comment", str(path)), piece) for table in read_dump(part, chosen)]
    got = pa.concat_tables(tables)
    counts = ends(got)
    assert counts.total() == data.count(b"\n") + (bool(data) and not data.endswith(b"\n"))
    expected = {"wanted", "returned"} | (set() if searching else {"other"})
    rows = got.filter(pc.and_(pc.is_null(got["dropped"]), pc.equal(got["kind"], "comment")))
    assert rows["id"].to_pylist() == [f"c{number}" for number, kind in enumerate(kinds) if kind in expected]
    assert counts["malformed"] == kinds.count("broken")
    assert counts["incomplete"] == kinds.count("incomplete")


def test_a_frame_that_begins_where_a_piece_does_is_read_by_one_of_them(tmp_path: Path) -> None:
    frames = [zstandard.compress(orjson.dumps(comment(f"c{i}", "p")) + b"\n") for i in range(4)]
    path = tmp_path / "RC.zst"
    path.write_bytes(b"".join(frames))
    border = len(frames[0] + frames[1])
    parts = [Dump("comment", str(path), 0, border), Dump("comment", str(path), border)]
    tables = [pa.concat_tables(read_dump(part, ReadOptions(frozenset(), 0.0))) for part in parts]
    ids = [[name for name in table["id"].to_pylist() if name != "comment"] for table in tables]
    assert ids == [["c0", "c1", "c2"], ["c3"]]


def test_a_line_longer_than_several_pieces_comes_out_once(tmp_path: Path) -> None:
    rows = [comment("a", "p"), comment("long", "p", body=str(list(range(20_000)))), comment("z", "p")]
    path = zst_of_frames(tmp_path / "RC.zst", b"\n".join(map(orjson.dumps, rows)) + b"\n", 5_000)
    parts = cut(Dump("comment", str(path)), 1_000)
    assert len(parts) > 10
    ids = [table["id"].to_pylist() for part in parts for table in read_dump(part, ReadOptions(frozenset(), 0.0))]
    assert [name for some in ids for name in some if name and name != "comment"] == ["a", "long", "z"]


def test_damaged_ends_of_lines_are_seen_though_the_line_names_nothing_wanted(tmp_path: Path) -> None:
    whole = orjson.dumps(comment("x", "p", subreddit="Loud"))
    rows: list[Any] = [comment("x", "p", subreddit="Loud")] * reader.PROBE
    rows += [whole[:-5], whole[5:], whole + b"\r", b"   ", comment("c", "p")]
    got = read(zst(tmp_path / "RC.zst", rows), wanted=("quiet",))
    assert ends(got) == {None: 1, "malformed": 2, "blank": 1, "other_subreddit": reader.PROBE + 1}


def test_a_bad_line_of_a_later_piece_is_found_by_frame_and_offset(tmp_path: Path) -> None:
    rows = [orjson.dumps(comment(f"c{i}", "p")) for i in range(3000)]
    rows[2500] = b"{bad"
    path = zst_of_frames(tmp_path / "RC.zst", b"\n".join(rows) + b"\n", 50_000)
    parts = cut(Dump("comment", str(path)), path.stat().st_size // 4)
    assert len(parts) == 4
    for part in parts:
        for _ in read_dump(part, ReadOptions(frozenset(), 0.1, tmp_path)):
            pass
    (file,) = tmp_path.glob("*.jsonl")
    entry = orjson.loads(file.read_bytes())
    assert entry["frame"] > 0
    with path.open("rb") as raw:
        raw.seek(entry["frame"])
        rest = zstandard.ZstdDecompressor().stream_reader(raw, read_across_frames=True).read()
    assert rest[entry["offset"] :].startswith(b"{bad\n")
    assert rest.split(b"\n")[entry["line"] - 1] == b"{bad"


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


def test_a_bad_line_of_ten_megabytes_costs_only_itself(tmp_path: Path) -> None:
    rows = [comment("a", "p"), b'{"body":"' + b"x" * 10_000_000, *[comment("b", "p")] * 400]
    assert ends(read(zst(tmp_path / "RC.zst", rows), max_malformed_share=0.01)) == {None: 401, "malformed": 1}


@pytest.mark.parametrize("between", [b"\n", b"\r\n", b"\r\n\n", b" \n\t\r\n"])
@pytest.mark.parametrize("wanted", [(), ("quiet",)])
def test_line_ends_of_any_system_are_read(tmp_path: Path, between: bytes, wanted: tuple[str, ...]) -> None:
    path = tmp_path / "RC.ndjson"
    path.write_bytes(between.join(orjson.dumps(comment(f"c{i}", "p")) for i in range(500)))
    got = ends(read(path, wanted=wanted, max_malformed_share=0.0))
    assert got[None] == 500
    assert got.total() - got["blank"] == 500


def test_two_rows_on_one_line_are_malformed(tmp_path: Path) -> None:
    twice = b"\r".join(orjson.dumps(comment(f"c{i}", "p")) for i in range(2))
    assert ends(read(zst(tmp_path / "RC.zst", [comment("a", "p"), twice]))) == {None: 1, "malformed": 1}


def test_a_file_of_no_lines_is_read_as_such(tmp_path: Path) -> None:
    assert read(zst(tmp_path / "RC.zst", []), max_malformed_share=0.0).num_rows == 0


def test_a_score_as_text_and_a_time_in_milliseconds_are_read(tmp_path: Path) -> None:
    rows = [comment("a", "p", score="12", created_utc=1617235200123), comment("b", "p", score="many")]
    got = read(zst(tmp_path / "RC.zst", rows))
    assert got["score"].to_pylist()[:2] == [12, None]
    assert got["created_utc"].to_pylist()[0] == 1617235200


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
    with pytest.raises(DataError, match=r"RC\.ndjson: 5,000 of 5,000 lines .*the first is line 1"):
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
    monkeypatch.setattr(reader, "BATCH_ROWS", 10)
    monkeypatch.setattr(decoding, "BLOCK", 1000)
    path = zst(tmp_path / "RC.zst", [comment(f"c{i}", "p") for i in range(250)])
    sizes = [table.num_rows for table in read_dump(Dump("comment", str(path)), ReadOptions(frozenset(), 0.0))]
    assert len(sizes) >= 3
    assert all(100 <= size < 120 for size in sizes[:2])
    assert sum(sizes) == 251
