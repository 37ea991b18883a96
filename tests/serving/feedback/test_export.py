"""From what people said of the service's answers to DPO2's pairs, and out of all of it again."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pyarrow.parquet as pq
import pytest

from cluster.forget import forget
from configs import Settings, load
from configs.errors import UsageError
from configs.prompts import messages, whole_post
from pipelines.corpus.threads import split_of
from pipelines.feedback.build import build
from pipelines.feedback.ratings import DIMENSIONS, Rating, read_ratings
from pipelines.manifest import read
from serving.feedback.crypt import add_key
from serving.feedback.export import Exported, export
from serving.feedback.records import StoreAway, Texts
from serving.feedback.store import FeedbackStore
from tests.pipelines.feedback.making import write_threads
from tests.serving.feedback.giving import given, rows

HIGH, LOW = dict.fromkeys(DIMENSIONS, 5), dict.fromkeys(DIMENSIONS, 2)
BETTER = "I have been there myself, and it slowly got easier for me."
WORSE = "Just get over it already, nobody here can do a thing."
POST = "I lie awake until sunrise. Mail me at someone@example.org please."
CLEAN = "I lie awake until sunrise. Mail me at [EMAIL] please."


class Service:
    """A store that answers are given by, and its settings."""

    def __init__(self, settings: Settings, store: FeedbackStore):
        self.settings, self.store = settings, store

    def answer(self, request_id: str, *answers: str | None, post: str = POST, **changes: Any) -> None:
        texts = Texts("Awake", post, answers, changes.pop("draft", None))
        asyncio.run(self.store.record(**given(request_id, texts=texts, drafts=len(answers), **changes)))

    def rate(self, request_id: str, *ratings: dict[str, int] | None, rater: str | None = None) -> None:
        for index, values in enumerate(ratings):
            if values is not None:
                asyncio.run(self.store.rate(request_id, "app", values, index=index, rater=rater))

    def choose(self, request_id: str, index: int, rater: str | None = None) -> None:
        asyncio.run(self.store.choose(request_id, "app", index, rater=rater))

    def export(self) -> tuple[Exported, list[Rating]]:
        path = Path(self.settings.output) / "feedback" / "served.jsonl"
        made = export(self.settings, path)
        assert path.stat().st_mode & 0o777 == 0o600
        return made, read_ratings([path])


@pytest.fixture
def service(make: Callable[..., FeedbackStore], url: str, key_file: Path, tmp_path: Path) -> Service:
    """On a database of either kind."""
    return of(tmp_path, url, key_file, make())


@pytest.fixture
def light(opening: Callable[..., FeedbackStore], key_file: Path, tmp_path: Path) -> Service:
    """On SQLite."""
    url = f"sqlite:///{tmp_path / 'feedback.db'}"
    return of(tmp_path, url, key_file, opening(url=url))


def of(folder: Path, url: str, key_file: Path, store: FeedbackStore) -> Service:
    given = [f"output={folder / 'run'}", f"serving.feedback.url={url}", f"serving.feedback.key_file={key_file}"]
    return Service(load("tiny", given), store)


def test_two_rated_drafts_of_one_request_are_compared(service: Service) -> None:
    service.answer("r1", BETTER, WORSE, post_id="t3_abc")
    service.rate("r1", HIGH, LOW)
    made, (line,) = service.export()
    assert (made.answers, made.used, made.lines, made.items, made.most_raters) == (1, 1, 1, 1, 1)
    assert (line.model, line.post_id, line.rater_id, line.source) == ("gm", "abc", "app", "human")
    assert (line.post.title, line.post.text) == ("Awake", CLEAN)
    sides = [(line.response_a, line.ratings_a), (line.response_b, line.ratings_b)]
    found = {response.text: (response.id, ratings.given()) for response, ratings in sides}
    assert found == {BETTER: ("served:r1 0", [5] * 5), WORSE: ("served:r1 1", [2] * 5)}


def test_answers_to_the_same_post_are_compared_one_after_the_other(light: Service) -> None:
    for number, text in enumerate(["first words", "second words", "third words"]):
        light.answer(f"r{number}", text)
        light.rate(f"r{number}", HIGH)
    light.answer("elsewhere", "other words", post="another post")
    light.rate("elsewhere", LOW)
    light.answer("revised", "revised words", model="im", kind="improve", draft="mine")
    light.rate("revised", LOW)
    made, lines = light.export()
    pairs = [{line.response_a.id, line.response_b.id} for line in lines]
    assert pairs == [{"served:r0 0", "served:r1 0"}, {"served:r1 0", "served:r2 0"}]
    assert made.left_out == {"nothing_to_compare_with": 2}


def test_a_chosen_draft_is_compared_with_each_of_the_others(light: Service) -> None:
    light.answer("r1", "one", "two", None, "two", "four")
    light.choose("r1", 1)
    _, lines = light.export()
    won = [(line.response_a if line.preferred == "a" else line.response_b).id for line in lines]
    lost = {(line.response_b if line.preferred == "a" else line.response_a).id for line in lines}
    assert set(won) == {"served:r1 1"}
    assert lost == {"served:r1 0", "served:r1 4"}  # neither what was refused nor what says the same


def test_what_cannot_be_used_is_counted_by_its_reason(light: Service, key_file: Path) -> None:
    for name in ("lost", "alone", "single"):
        light.answer(name, BETTER, WORSE, post=name)
        light.rate(name, HIGH, LOW if name == "lost" else None)
    key_file.unlink()
    add_key(key_file)
    light.answer("fine", BETTER, WORSE)
    light.rate("fine", HIGH, LOW)
    light.answer("silent", BETTER, WORSE)
    made, lines = light.export()
    assert (made.answers, made.used, len(lines)) == (4, 1, 1)
    assert made.left_out == {"no_key_fits": 3, "nothing_to_compare_with": 0}


def test_without_texts_there_is_nothing_to_export_and_the_error_says_how(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"serving\.feedback\.keep_text and a key"):
        export(load("tiny", [f"output={tmp_path}"]), tmp_path / "out.jsonl")


@pytest.fixture
def threads(tmp_path: Path) -> Path:
    """Two threads of dumps, one of them with the words of a post that the service was asked about."""
    known = {"post_id": "dumped", "title": "Awake", "text": CLEAN, "split": "test"}
    return write_threads(tmp_path / "run" / "threads", [known, {"post_id": "other", "split": "train"}])


def pairs_of(settings: Settings, threads: Path) -> dict[str, list[dict[str, Any]]]:
    """The pairs of DPO2 by model."""
    output = Path(settings.output) / "rated_pairs"
    build(settings, {"threads": threads, "ratings": list(map(Path, settings.feedback.ratings))}, output)
    return {model: pq.read_table(output / model).to_pylist() for model in ("gm", "im")}


def test_dpo2_pairs_are_built_from_what_people_said(service: Service, threads: Path) -> None:
    service.answer("new", BETTER, WORSE, post="A post that no dump holds.", post_id="ticket-9")
    for rater in ("v1", "v2", "v3"):
        service.rate("new", HIGH, LOW, rater=rater)
    service.answer("known", BETTER, WORSE)
    for rater in ("v1", "v2", "v3"):
        service.choose("known", 0, rater=rater)
    improved = {"model": "im", "kind": "improve", "draft": "I said it badly."}
    for name, text in (("i1", BETTER), ("i2", WORSE)):
        service.answer(name, text, post="A post that no dump holds.", **improved)
        for rater in ("v1", "v2", "v3"):
            service.rate(name, HIGH if text == BETTER else LOW, rater=rater)
    made, _ = service.export()
    assert (made.lines, made.items, made.most_raters) == (9, 3, 3)
    file = Path(service.settings.output) / "feedback" / "served.jsonl"
    settings = load("tiny", [f"output={service.settings.output}", f'feedback.ratings=["{file}"]'])
    found = pairs_of(settings, threads)
    by_post = {pair["post_id"]: pair for pair in found["gm"]}
    new = by_post["post:ticket-9"]
    assert new["prompt"] == messages("gm", whole_post("Awake", "A post that no dump holds."))
    assert (new["chosen"][0]["content"], new["rejected"][0]["content"]) == (BETTER, WORSE)
    assert (new["chosen_id"], new["rejected_id"]) == ("served:new 0", "served:new 1")
    assert new["split"] == split_of("post:ticket-9", settings.corpus.split)
    (known,) = (pair for name, pair in by_post.items() if name.startswith("text:"))
    assert known["split"] == "test"  # that of the thread with the same words
    assert known["chosen"][0]["content"] == BETTER
    (revision,) = found["im"]
    assert revision["prompt"] == messages("im", whole_post("Awake", "A post that no dump holds."), "I said it badly.")
    manifest = read(Path(settings.output) / "rated_pairs")
    assert manifest is not None
    assert manifest.figures["served_posts"] == 3


def test_forgetting_takes_it_out_of_the_store_the_rating_file_and_the_pairs(
    service: Service, threads: Path, tmp_path: Path
) -> None:
    posts = {"r1": "t3_abc", "r2": "ticket-9", "r3": None, "r4": None}
    for name, post_id in posts.items():
        service.answer(name, BETTER, WORSE, post=f"The post of {name}.", post_id=post_id)
        for rater in ("v1", "v2", "v3"):
            service.rate(name, HIGH, LOW, rater=rater)
    service.export()
    file = Path(service.settings.output) / "feedback" / "served.jsonl"
    url = service.settings.serving.feedback.url
    given = [f"output={service.settings.output}", f"serving.feedback.url={url}", f'feedback.ratings=["{file}"]']
    settings = load("tiny", given)
    assert len(pairs_of(settings, threads)["gm"]) == 4
    ids = tmp_path / "ids.txt"
    ids.write_text("t3_abc\npost:ticket-9\nrequest:r3\nrequest:never-given\n")
    assert forget(settings, "tiny", ids, dry_run=True, as_json=True) == 0
    assert len(rows(service.store, "answers")) == 4
    assert forget(settings, "tiny", ids, dry_run=False, as_json=False) == 0
    assert [row["request_id"] for row in rows(service.store, "answers")] == ["r4"]
    assert len(rows(service.store, "ratings")) == 6
    left = [orjson.loads(line) for line in file.read_bytes().splitlines()]
    assert {line["response_a"]["id"].split()[0] for line in left} == {"served:r4"}
    pairs = pq.read_table(Path(settings.output) / "rated_pairs" / "gm").to_pylist()
    assert [pair["chosen_id"] for pair in pairs] == ["served:r4 0"]
    service.answer("r5", BETTER, WORSE, post="Asked again.", post_id="ticket-9")
    service.rate("r5", HIGH, LOW)
    made, lines = service.export()
    assert made.left_out["forgotten"] == 1
    assert {line.response_a.id.split()[0] for line in lines} == {"served:r4"}


def test_what_forgetting_tells_names_the_store_and_what_was_found_nowhere(
    light: Service, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    light.answer("r1", BETTER)
    ids = tmp_path / "ids.txt"
    ids.write_text("request:r1\nrequest:r2 # by mail\n")
    assert forget(light.settings, "tiny", ids, dry_run=False, as_json=False) == 0
    shown = capsys.readouterr().out
    assert "the feedback store: removed: 1 of 1 answers" in shown
    assert "not found in the threads, kept out of later builds all the same: request:r2\n" in shown


def test_forgetting_changes_nothing_where_the_store_cannot_be_reached(tmp_path: Path) -> None:
    settings = load("tiny", [f"output={tmp_path / 'run'}", "serving.feedback.url=postgresql://nobody@127.0.0.1:1/none"])
    ids = tmp_path / "ids.txt"
    ids.write_text("request:r1\n")
    with pytest.raises(StoreAway, match=r"127\.0\.0\.1:1"):
        forget(settings, "tiny", ids, dry_run=False, as_json=False)
    assert not (tmp_path / "run" / "forgotten.json").exists()
