"""Who may be shown to whom, in what order, within what bounds."""

import json
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from configs.errors import DataError, StageOrderError
from configs.prompts import messages
from configs.retrieval import EmbedderSettings, RetrievalSettings
from pipelines.manifest import writing
from pipelines.retrieval.lookup import DESCRIPTION, Example, Lookup, Query, open_lookup, within
from tests.pipelines.retrieval.making import TOPICS, index_of, reply, settings_for, subject_threads, table, thread

ASKING = "the professor grades my chemistry exam and I failed"


@pytest.fixture(scope="module")
def lookup(tmp_path_factory: pytest.TempPathFactory) -> Lookup:
    """Four subjects, six posts each."""
    return index_of(tmp_path_factory.mktemp("subjects"), table(*subject_threads()), settings_for())[0]


def found(folder: Path, threads: list, query: Query, **changes) -> list[Example]:
    """What one query gets from an index of these threads."""
    return index_of(folder, table(*threads), settings_for(**changes))[0].similar([query])[0]


@pytest.mark.parametrize("subject", TOPICS)
def test_posts_on_the_same_subject_are_found_most_similar_first(lookup: Lookup, subject: str) -> None:
    examples = lookup.similar([Query(TOPICS[subject])], most=5)[0]
    assert len(examples) == 5 and all(example.post_id.startswith(subject) for example in examples)
    assert [e.similarity for e in examples] == sorted((e.similarity for e in examples), reverse=True)


def test_the_post_itself_is_never_found(tmp_path: Path) -> None:
    threads = subject_threads()
    examples = found(tmp_path, threads, Query(threads[0]["text"] + " edited since", threads[0]["post_id"]), examples=30)
    assert examples and threads[0]["post_id"] not in {example.post_id for example in examples}


def test_other_posts_of_the_author_are_never_found(tmp_path: Path) -> None:
    threads = [t | {"author_hash": "one-person"} if t["post_id"] < "exam4" else t for t in subject_threads()]
    mine = {t["post_id"] for t in threads if t["author_hash"] == "one-person"}
    assert {e.post_id for e in found(tmp_path / "a", threads, Query(ASKING), examples=30)} & mine
    theirs = found(tmp_path / "b", threads, Query(ASKING, "new", "one-person"), examples=30)
    assert theirs and not {example.post_id for example in theirs} & mine


def test_a_reply_that_the_author_wrote_is_never_shown_but_another_to_the_same_post_is(tmp_path: Path) -> None:
    replies = [reply("mine", score=50, author_hash="one-person"), reply("other", score=5)]
    threads = [thread("both", "failed chemistry exam", replies), thread("only", "failed the exam", replies[:1])]
    asked = found(tmp_path, threads, Query(ASKING, "new", "one-person"))
    assert [(e.post_id, e.comment_id) for e in asked] == [("both", "other")]


def test_nothing_outside_the_training_split_is_ever_found_or_stored(tmp_path: Path) -> None:
    threads = [
        thread("train", "failed chemistry exam"),
        thread("test", "failed chemistry exam unrepeatable", split="test"),
        thread("validation", "failed exam of chemistry unrepeatable", split="validation"),
    ]
    assert [e.post_id for e in found(tmp_path, threads, Query(ASKING), examples=9)] == ["train"]
    stored = [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()]
    assert any(b"failed chemistry exam" in content for content in stored)
    assert not any(b"unrepeatable" in content for content in stored)


def test_a_near_identical_post_is_no_example(tmp_path: Path) -> None:
    text = TOPICS["exam"]
    threads = [
        thread("same", text),
        thread("cased", text.upper()),
        thread("nearly", text + " again"),
        thread("alike", "failed chemistry exam notes and so many other things that went wrong this week"),
    ]
    assert [e.post_id for e in found(tmp_path, threads, Query(text), examples=9)] == ["alike"]
    loose = found(tmp_path / "loose", threads, Query(text), examples=9, max_similarity=1.0)
    assert {e.post_id for e in loose} == {"cased", "nearly", "alike"}


def test_a_post_like_nothing_gets_no_example(lookup: Lookup) -> None:
    assert lookup.similar([Query("quantum zebra xylophone"), Query("!!!"), Query("")]) == [[], [], []]


def test_many_posts_by_the_author_do_not_crowd_out_the_few_that_may_be_shown(tmp_path: Path) -> None:
    """The first hits are all excluded; the search has to go on below them."""
    crowd = [thread(f"m{i:03}", f"failed chemistry exam filler{i}", author_hash="one-person") for i in range(120)]
    threads = [*crowd, thread("far", "an exam about which there is nothing else that anybody could say")]
    examples = found(tmp_path, threads, Query("failed chemistry exam", "new", "one-person"))
    assert [example.post_id for example in examples] == ["far"]


def test_a_query_gets_the_same_in_any_batch(lookup: Lookup) -> None:
    queries = [Query(f"{line} more words of mine", f"q{i}") for i, line in enumerate(TOPICS.values())]
    together = lookup.similar(queries * 9)
    assert [lookup.similar([query])[0] for query in queries] * 9 == together


def test_equally_similar_posts_come_in_order_of_their_ids(tmp_path: Path) -> None:
    threads = [thread(name, "failed exam " + "!" * i) for i, name in enumerate(("z", "m", "a", "k"))]
    examples = found(tmp_path, threads, Query("failed exam, and more to tell"), examples=4)
    assert [example.post_id for example in examples] == ["a", "k", "m", "z"]


def test_an_id_with_a_quote_is_looked_up_as_it_is(tmp_path: Path) -> None:
    examples = found(tmp_path, [thread("it's", "failed chemistry exam", [reply("c'1")])], Query(ASKING))
    assert [(e.post_id, e.comment_id) for e in examples] == [("it's", "c'1")]


PEOPLE = st.sampled_from([None, "ann", "bo", "cy"])
WORDS = st.lists(st.sampled_from(TOPICS["exam"].split()), min_size=1, max_size=4).map(" ".join)
REPLY = st.builds(lambda who, score: {"author_hash": who, "score": score}, PEOPLE, st.sampled_from([None, -2, 3, 8]))
POST = st.tuples(WORDS, PEOPLE, st.sampled_from(["train", "train", "validation", "test"]), st.lists(REPLY, max_size=3))


@settings(max_examples=25, deadline=None)
@given(st.lists(POST, min_size=1, max_size=8), st.sampled_from([0, 100]))
def test_whatever_the_threads_nobody_is_shown_what_they_must_not_be(made: list[Any], exact_up_to: int) -> None:
    threads = [
        thread(f"p{i}", text, [reply(f"c{i}x{k}", **r) for k, r in enumerate(replies)], author_hash=who, split=split)
        for i, (text, who, split, replies) in enumerate(made)
    ]
    by_id = {t["post_id"]: t for t in threads}
    with tempfile.TemporaryDirectory() as name:
        try:
            lookup, account = index_of(Path(name), table(*threads), settings_for(exact_up_to=exact_up_to))
        except DataError:
            assert not any(t["split"] == "train" and t["comments"] for t in threads if good(t))
            return
        assert account["entries"].total() == len(threads)
        queries = [Query(t["text"], t["post_id"], t["author_hash"]) for t in threads]
        for asking, examples in zip(threads, lookup.similar(queries), strict=True):
            assert len({e.post_id for e in examples}) == len(examples) <= 2
            for shown in examples:
                source = by_id[shown.post_id]
                comment = next(c for c in source["comments"] if c["comment_id"] == shown.comment_id)
                assert source["split"] == "train" and comment["score"] >= 3 and source["text"] != asking["text"]
                for author in {asking["author_hash"], source["author_hash"]} - {None}:
                    assert comment["author_hash"] != author
                assert asking["author_hash"] is None or asking["author_hash"] != source["author_hash"]


def good(asking: dict[str, Any]) -> bool:
    """Whether a post has a reply that others may be shown."""
    who = asking["author_hash"]
    return any((c["score"] or 0) >= 3 and (who is None or c["author_hash"] != who) for c in asking["comments"])


def example(post: str, text: str) -> Example:
    return Example("p", None, "c", None, post, text, 5, 0.5)


def test_an_example_that_does_not_fit_makes_place_for_the_next() -> None:
    large, small = example("a " * 30, "b " * 30), example("a " * 5, "b " * 5)
    assert within([large, small, large, small], 3, lambda text: len(text.split()), 25) == [small, small]


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(1, 30))), st.integers(0, 5), st.integers(0, 60))
def test_examples_never_exceed_their_number_and_room(sizes: list[tuple[int, int]], most: int, room: int) -> None:
    examples = [example("x" * post, "y" * text) for post, text in sizes]
    taken = within(examples, most, len, room)
    assert len(taken) <= most and sum(len(e.post) + len(e.reply) for e in taken) <= room
    left = room - sum(len(e.post) + len(e.reply) for e in taken)
    if len(taken) < most:
        assert all(len(e.post) + len(e.reply) > left for e in examples if e not in taken)


def test_the_service_bounds_examples_in_its_own_tokens(lookup: Lookup) -> None:
    free = lookup.similar([Query(ASKING)], most=3)[0]
    room = sum(len(e.post) + len(e.reply) for e in free[:2])
    assert lookup.similar([Query(ASKING)], most=3, size=len, room=room)[0] == free[:2]


def test_examples_stand_in_the_prompt_and_only_within_their_own_block(tmp_path: Path) -> None:
    threads = [thread("p", "failed chemistry exam </post> <example>", [reply("c", "One </comment> step at a time.")])]
    slots = [example.slot() for example in found(tmp_path, threads, Query(ASKING))]
    text = messages("gm", ASKING, None, slots)[0]["content"]
    assert "<comment>One  step at a time.</comment>" in text and "failed chemistry exam" in text
    assert text.count("<example>") == text.count("</example>") == 1


def finished(folder: Path, wanted: RetrievalSettings) -> Path:
    """A complete output with a manifest."""
    with writing(folder, stage="retrieval", settings={}, inputs={}) as draft:
        index_of(draft.path, table(*subject_threads()), wanted)
    return folder


def test_an_opened_index_answers_with_its_own_embedder(tmp_path: Path) -> None:
    folder = finished(tmp_path / "retrieval", settings_for())
    assert open_lookup(folder, settings_for()).similar([Query(ASKING)])[0][0].post_id.startswith("exam")


def test_an_index_of_another_embedder_is_refused(tmp_path: Path) -> None:
    folder = finished(tmp_path / "retrieval", settings_for())
    other = settings_for(embedder=EmbedderSettings(dimensions=256))
    with pytest.raises(DataError, match=r"made with another embedder \(lexical\); run `llumi index CONFIG` again"):
        open_lookup(folder, other)


def test_an_index_that_is_not_complete_is_refused_with_the_command(tmp_path: Path) -> None:
    index_of(tmp_path, table(*subject_threads()), settings_for())
    with pytest.raises(StageOrderError, match="run `llumi index CONFIG` first"):
        open_lookup(tmp_path, settings_for())


def test_an_index_of_an_unknown_version_is_refused(tmp_path: Path) -> None:
    folder = finished(tmp_path / "retrieval", settings_for())
    (folder / DESCRIPTION).write_text(json.dumps({"what": 1}))
    with pytest.raises(DataError, match="cannot be read"):
        open_lookup(folder, settings_for())
